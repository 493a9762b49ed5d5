"""An ONNX graph while it is written: values with names, constants, and the rows that flow through.

Rows flow as columns, each ``[N]`` or ``[N, width]`` of one element type. A raw column enters as ``[N]``; matrices come
from fixed-size lists, from arrays, and from transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
from numpy.typing import NDArray
from onnx import TensorProto, helper

from millstream.errors import InputError

__all__ = ["ML", "Column", "Graph", "GraphRows", "element_type", "input_column"]

ML = "ai.onnx.ml"
_OPSET, _ML_OPSET, _IR = 19, 3, 9  # the lowest with Equal on strings


@dataclass(frozen=True)
class Column:
    """A value of the graph: ``[N]`` if width is None, else ``[N, width]``; element: a `TensorProto` element type."""

    name: str
    value: str
    element: int
    width: int | None = None


@dataclass(frozen=True)
class GraphRows:
    """The columns that reach an estimator, in order."""

    columns: tuple[Column, ...]

    def select(self, names: Sequence[str]) -> GraphRows:
        """The named columns, in that order."""
        known = {column.name: column for column in self.columns}
        missing = [name for name in names if name not in known]
        if missing:
            raise InputError(f"the signature has no column {missing[0]!r}; it has {list(known)}")
        return GraphRows(tuple(known[name] for name in names))

    def of(self, estimator: Any) -> GraphRows:
        """The columns that the estimator was fitted on, or all of them if it was fitted on an array."""
        fields = getattr(estimator, "fields_in_", None)
        return self if fields is None else self.select([field.name for field in fields])


@dataclass
class Graph:
    """Collects inputs, constants and nodes; `finish` makes the model and checks it."""

    inputs: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    nodes: list[Any] = field(default_factory=list)

    def input(self, column: Column) -> Column:
        """Declares a column as an input of the model, under its own name."""
        shape = ["N"] if column.width is None else ["N", column.width]
        self.inputs.append(helper.make_tensor_value_info(column.value, column.element, shape))
        return column

    def constant(self, values: Any) -> str:
        """A constant tensor: float32, float64, int64, bool, or strings given as objects."""
        array = np.asarray(values)
        name = f"constant_{len(self.constants)}"
        if array.dtype.kind in "OUT":
            encoded = [str(value).encode() for value in array.ravel()]
            self.constants.append(helper.make_tensor(name, TensorProto.STRING, array.shape, encoded))
        else:
            self.constants.append(
                onnx.numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
            )
        return name

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Adds a node and returns the name of its one output."""
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(kind, list(inputs), [name], name=name, domain=domain, **attributes)
        )
        return name

    def cast(self, value: str, before: int, after: int) -> str:
        """The value as elements of another type."""
        return value if before == after else self.op("Cast", value, to=after)

    def matrix(self, rows: GraphRows, dtype: np.dtype[Any]) -> str:
        """All columns beside each other as ``[N, features]``; strings stay strings, numbers become `dtype`."""
        strings = all(column.element == TensorProto.STRING for column in rows.columns)
        element = TensorProto.STRING if strings else element_type(dtype)
        pieces = []
        for column in rows.columns:
            value = self.cast(column.value, column.element, element)
            pieces.append(
                value if column.width is not None else self.op("Unsqueeze", value, self.constant([1]))
            )
        return pieces[0] if len(pieces) == 1 else self.op("Concat", *pieces, axis=1)

    def split(self, rows: GraphRows) -> list[Column]:
        """Every feature as a column ``[N]`` of its own."""
        columns = []
        for column in rows.columns:
            if column.width is None:
                columns.append(column)
                continue
            for i in range(column.width):
                value = self.op("Gather", column.value, self.constant(np.int64(i)), axis=1)
                columns.append(Column(f"{column.name}{i}", value, column.element))
        return columns

    def finish(self, outputs: Mapping[str, Column]) -> onnx.ModelProto:
        """The model, its outputs named by the keys; checked by ONNX with shape inference."""
        infos = []
        for name, column in outputs.items():
            self.nodes.append(helper.make_node("Identity", [column.value], [name], name=name))
            shape = ["N"] if column.width is None else ["N", column.width]
            infos.append(helper.make_tensor_value_info(name, column.element, shape))
        graph = helper.make_graph(self.nodes, "millstream", self.inputs, infos, self.constants)
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(ML, _ML_OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, producer_name="millstream")
        model.ir_version = _IR
        onnx.checker.check_model(model, full_check=True)
        return model


def element_type(dtype: np.dtype[Any]) -> int:
    """The ONNX element type of a NumPy dtype; objects and strings are STRING."""
    if dtype.kind in "OUT":
        return int(TensorProto.STRING)
    if dtype.kind in "iu":
        return int(TensorProto.INT64)
    return int(helper.np_dtype_to_tensor_dtype(dtype))


def input_column(arrow: pa.Field) -> Column:
    """The input that a column of the signature becomes: double, float, int64 or string."""
    kind, types = arrow.type, pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_fixed_size_list(kind):
        element = TensorProto.FLOAT if kind.value_type == pa.float32() else TensorProto.DOUBLE
        return Column(arrow.name, arrow.name, element, kind.list_size)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return Column(arrow.name, arrow.name, TensorProto.STRING)
    if types.is_integer(kind) or types.is_boolean(kind):
        return Column(arrow.name, arrow.name, TensorProto.INT64)
    if types.is_floating(kind) or types.is_decimal(kind):
        element = TensorProto.FLOAT if kind in (pa.float16(), pa.float32()) else TensorProto.DOUBLE
        return Column(arrow.name, arrow.name, element)
    raise InputError(
        f"column {arrow.name!r} of the signature is of type {kind}; a model takes numbers and strings: "
        "compute features from it first"
    )


def labels(values: NDArray[Any]) -> NDArray[Any]:
    """Class labels as ONNX holds them: strings as objects, whole numbers as int64, others as they are."""
    if values.dtype.kind in "OUT":
        return values.astype(object)
    return values.astype(np.int64) if values.dtype.kind in "iu" else values
