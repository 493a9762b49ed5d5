"""The signature of a model: which columns it takes and gives, under which names, types and shapes.

It is read from the ONNX graph, never written by hand, and stored in the bundle as ``signature.json``. A
scalar input is a column of shape (rows,); an input of width k is a matrix of shape (rows, k), the form of
estimators trained on arrays. Where only flat columns exist (a table of a database, a CSV file) a matrix ``X``
is read from the columns ``x0 ... x{k-1}``.
"""

from __future__ import annotations

from typing import Any

import msgspec
import onnx
import pyarrow as pa

from millstream.errors import InputError
from millstream.models.outputs import flat_names

__all__ = ["ARROW_TYPES", "Input", "Output", "Signature"]

#: the element types of ONNX that cross the border of a model, and the Arrow types they have there
ARROW_TYPES: dict[str, pa.DataType] = {
    "float": pa.float32(),
    "double": pa.float64(),
    "int64": pa.int64(),
    "bool": pa.bool_(),
    "string": pa.string(),
}

_ELEMENT_TYPES = {
    onnx.TensorProto.FLOAT: "float",
    onnx.TensorProto.DOUBLE: "double",
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.BOOL: "bool",
    onnx.TensorProto.STRING: "string",
}


class Input(msgspec.Struct, frozen=True):
    """One input: `dtype` is a key of `ARROW_TYPES`, `width` is None for (rows,) and k for (rows, k)."""

    name: str
    dtype: str
    width: int | None = None
    categories: tuple[str | int, ...] | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the flat columns it is read from where there are no matrices."""
        if self.width is None:
            return (self.name,)
        return tuple(f"{self.name.lower()}{i}" for i in range(self.width))


class Output(msgspec.Struct, frozen=True):
    """One output as the Scorer gives it: floats are widened to double."""

    name: str
    dtype: str
    width: int | None = None


class Signature(msgspec.Struct, frozen=True):
    """Inputs and outputs of a model, in the order of its graph.

    `classes` are the labels of a classifier in the order of the columns of ``probability``.
    """

    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    classes: tuple[Any, ...] | None = None

    @classmethod
    def of(cls, model: onnx.ModelProto, golden_outputs: pa.RecordBatch, classes: Any = None) -> Signature:
        """Read the signature from a graph; widths of outputs come from one evaluation of it."""
        categories = _categories(model.graph)
        return cls(
            inputs=tuple(_input(value, categories) for value in model.graph.input),
            outputs=tuple(_output(field) for field in golden_outputs.schema),
            classes=None if classes is None else tuple(getattr(c, "item", lambda c=c: c)() for c in classes),
        )

    @property
    def input_schema(self) -> pa.Schema:
        """The inputs as an Arrow schema; a matrix is a FixedSizeList."""
        return pa.schema([(i.name, _arrow(i.dtype, i.width)) for i in self.inputs])

    @property
    def output_schema(self) -> pa.Schema:
        """The outputs as an Arrow schema; a matrix is a FixedSizeList."""
        return pa.schema([(o.name, _arrow(o.dtype, o.width)) for o in self.outputs])

    @property
    def flat_columns(self) -> tuple[str, ...]:
        """The scalar columns that rows of a flat source need."""
        return tuple(column for i in self.inputs for column in i.columns)

    def class_of(self, column: str) -> Any:
        """The class whose probability a flat column of the outputs holds; None for any other column.

        >>> signature = Signature((), (Output("probability", "double", 3),), classes=("early", "late", "on time"))
        >>> signature.class_of("probability_1")
        'late'
        """
        if self.classes is None or "probability" not in self.output_schema.names:
            return None
        names = flat_names(self.output_schema.field("probability"))
        return {name: self.classes[index] for name, index in names}.get(column)

    def to_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=1)

    @classmethod
    def from_json(cls, text: bytes) -> Signature:
        return msgspec.json.decode(text, type=cls)


def _arrow(dtype: str, width: int | None) -> pa.DataType:
    scalar = ARROW_TYPES[dtype]
    return scalar if width is None else pa.list_(scalar, width)


def _input(value: onnx.ValueInfoProto, categories: dict[str, tuple[str | int, ...]]) -> Input:
    tensor = value.type.tensor_type
    dtype = _ELEMENT_TYPES.get(tensor.elem_type)
    shape = tensor.shape.dim
    if dtype is None or len(shape) not in (1, 2) or (len(shape) == 2 and not shape[1].dim_value):
        raise InputError(
            f"input {value.name!r} of the graph has element type {tensor.elem_type} and {len(shape)} axes; "
            f"expected one of {', '.join(ARROW_TYPES)} and the shape [rows] or [rows, k]"
        )
    width = shape[1].dim_value if len(shape) == 2 else None
    return Input(value.name, dtype, width, categories.get(value.name))


def _output(field: pa.Field) -> Output:
    if pa.types.is_fixed_size_list(field.type):
        return Output(field.name, _dtype(field.type.value_type), field.type.list_size)
    return Output(field.name, _dtype(field.type))


def _dtype(arrow: pa.DataType) -> str:
    return next(name for name, candidate in ARROW_TYPES.items() if candidate == arrow)


def _categories(graph: onnx.GraphProto) -> dict[str, tuple[str | int, ...]]:
    """The categories an encoder of the graph knows, by the input that reaches it through reshapes alone."""
    origin = {value.name: value.name for value in graph.input}
    found: dict[str, tuple[str | int, ...]] = {}
    for node in graph.node:
        source = origin.get(node.input[0]) if node.input else None
        if source is None:
            continue
        if node.op_type in ("Reshape", "Unsqueeze", "Squeeze", "Identity"):
            origin[node.output[0]] = source
        for attribute in node.attribute:
            if attribute.name in ("cats_strings", "keys_strings"):
                found[source] = tuple(s.decode() for s in attribute.strings)
            elif attribute.name in ("cats_int64s", "keys_int64s"):
                found[source] = tuple(attribute.ints)
    return found
