"""The messages of the Open Inference Protocol V2 over HTTP/JSON; bytes in, bytes out, no I/O.

https://github.com/open-inference/open-inference-protocol/blob/main/specification/protocol/inference_rest.md

A tensor is ``{"name", "shape", "datatype", "data"}`` with `data` flat or nested in row-major order. A scalar column of
a model has the shape [rows] (or [rows, 1]), a matrix [rows, k]. Text has the datatype BYTES. Beyond the protocol, a
null in `data` is a missing value, as it is everywhere in Millstream: NaN for a float, "" for text; a NaN among the
answers is sent as null. Answers are in the flat form of `millstream.models.outputs`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from math import prod
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from millstream.errors import SignatureError
from millstream.models import Signature, flat_schema

__all__ = [
    "InferRequest",
    "InferResponse",
    "Tensor",
    "answer",
    "columns",
    "inputs_of",
    "metadata",
    "no_answers",
    "request_of",
    "table_of",
]

_ARROW: dict[str, pa.DataType] = {
    "BOOL": pa.bool_(),
    "UINT8": pa.uint8(),
    "UINT16": pa.uint16(),
    "UINT32": pa.uint32(),
    "UINT64": pa.uint64(),
    "INT8": pa.int8(),
    "INT16": pa.int16(),
    "INT32": pa.int32(),
    "INT64": pa.int64(),
    "FP32": pa.float32(),
    "FP64": pa.float64(),
    "BYTES": pa.string(),
}
_DATATYPES = {"double": "FP64", "float": "FP32", "int64": "INT64", "bool": "BOOL", "string": "BYTES"}


class Tensor(msgspec.Struct, omit_defaults=True):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any]
    parameters: dict[str, Any] = {}


class RequestedOutput(msgspec.Struct):
    name: str


class InferRequest(msgspec.Struct, omit_defaults=True):
    inputs: list[Tensor]
    id: str | None = None
    outputs: list[RequestedOutput] | None = None
    parameters: dict[str, Any] = {}


class InferResponse(msgspec.Struct, omit_defaults=True):
    model_name: str
    model_version: str
    outputs: list[Tensor]
    id: str | None = None


def metadata(name: str, number: int, signature: Signature) -> dict[str, Any]:
    """The answer to ``GET /v2/models/{name}``; a probability names its class under ``parameters``."""
    outputs: list[dict[str, Any]] = []
    for field in flat_schema(signature.output_schema):
        outputs.append({"name": field.name, "datatype": _datatype(field.type), "shape": [-1]})
        if (label := signature.class_of(field.name)) is not None:
            outputs[-1]["parameters"] = {"class": label}
    inputs = [
        {"name": i.name, "datatype": _DATATYPES[i.dtype], "shape": [-1] if i.width is None else [-1, i.width]}
        for i in signature.inputs
    ]
    return {
        "name": name,
        "versions": [str(number)],
        "platform": "onnxruntime_onnx",
        "inputs": inputs,
        "outputs": outputs,
    }


def columns(request: InferRequest) -> dict[str, pa.Array]:
    """The columns of a request by name. SignatureError names the tensor that contradicts itself."""
    names = [tensor.name for tensor in request.inputs]
    if len(set(names)) != len(names):
        raise SignatureError(f"inputs {sorted(names)} name a column twice; send each once")
    return {tensor.name: _column(tensor) for tensor in request.inputs}


def _column(tensor: Tensor) -> pa.Array:
    kind = _ARROW.get(tensor.datatype)
    if kind is None:
        raise SignatureError(
            f"column {tensor.name!r} has datatype {tensor.datatype!r}; expected one of {[*_ARROW]}"
        )
    shape, data = tensor.shape, tensor.data
    if len(shape) not in (1, 2) or min(shape) < 0:
        raise SignatureError(f"column {tensor.name!r} has shape {shape}; expected [rows] or [rows, k]")
    if len(shape) == 2 and data and isinstance(data[0], list):
        if any(not isinstance(row, list) or len(row) != shape[1] for row in data):
            raise SignatureError(f"column {tensor.name!r} is ragged; expected rows of {shape[1]} values")
        data = list(itertools.chain.from_iterable(data))
    if len(data) != prod(shape):
        raise SignatureError(
            f"column {tensor.name!r} has {len(data)} values; its shape {shape} has {prod(shape)}"
        )
    try:
        array = pa.array(data, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
        raise SignatureError(
            f"column {tensor.name!r} is not {tensor.datatype} throughout: {error}"
        ) from error
    if len(shape) == 1 or shape[1] == 1:
        return array
    return pa.FixedSizeListArray.from_arrays(array, shape[1])


def answer(request: InferRequest, name: str, number: int, predictions: pa.RecordBatch) -> InferResponse:
    """The response for flat predictions; only the outputs that were asked for, if any were named."""
    wanted = predictions.schema.names
    if request.outputs:
        wanted = [output.name for output in request.outputs]
        unknown = sorted(set(wanted) - set(predictions.schema.names))
        if unknown:
            raise SignatureError(f"no outputs {unknown}; the model has {predictions.schema.names}")
    return InferResponse(name, str(number), [_tensor(n, predictions.column(n)) for n in wanted], request.id)


def inputs_of(metadata: Mapping[str, Any]) -> set[str]:
    """The columns that a model with this metadata reads: by name, and the flat ones of a matrix."""
    names = set()
    for tensor in metadata["inputs"]:
        names.add(tensor["name"])
        if len(tensor["shape"]) == 2:
            names.update(f"{tensor['name'].lower()}{i}" for i in range(tensor["shape"][1]))
    return names


def no_answers(metadata: Mapping[str, Any]) -> pa.Table:
    """The answers for no rows."""
    return pa.schema([(o["name"], _ARROW[o["datatype"]]) for o in metadata["outputs"]]).empty_table()


def request_of(rows: pa.RecordBatch) -> InferRequest:
    """Rows as a request, one tensor a column."""
    return InferRequest([_tensor(name, rows.column(name)) for name in rows.schema.names])


def table_of(response: InferResponse) -> pa.Table:
    """The answers of a response."""
    arrays = [pa.array(tensor.data, _ARROW[tensor.datatype]) for tensor in response.outputs]
    return pa.Table.from_arrays(arrays, names=[tensor.name for tensor in response.outputs])


def _tensor(name: str, array: pa.Array) -> Tensor:
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_fixed_size_list(array.type):
        width = array.type.list_size
        values = array.flatten()
        return Tensor(name, [len(array), width], _datatype(values.type), _values(values))
    return Tensor(name, [len(array)], _datatype(array.type), _values(array))


def _values(array: pa.Array) -> list[Any]:
    """Python values; msgspec writes NaN as null."""
    if array.null_count or not pa.types.is_floating(array.type):
        return list(array.to_pylist())
    return list(np.asarray(array.to_numpy(zero_copy_only=False)).tolist())


def _datatype(kind: pa.DataType) -> str:
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "BYTES"
    found = next((name for name, candidate in _ARROW.items() if candidate == kind), None)
    if found is None:
        raise SignatureError(f"columns of type {kind} can't be sent; expected numbers, booleans or text")
    return found
