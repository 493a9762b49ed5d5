"""From rows to the tensors of a graph, strictly.

A model never guesses. A column that is missing, of another kind, or holds a value that its input can't hold
is a SignatureError that names the column, what was expected and what came. What is allowed:

- conversions that change no value: those NumPy calls safe (int32 to int64, int64 or bool to double, float to
  double), and int64 to double or double to float where every value at hand survives;
- plain Python numbers, which have no width of their own, take the type of the input (NumPy's NEP 50);
- a null number is NaN, a null string is "" (the estimators are trained by the same rule).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millstream.errors import SignatureError
from millstream.models.signature import ARROW_TYPES, Input, Signature

__all__ = ["Rows", "feeds", "flat_rows", "plain_text"]

#: what a Scorer takes
Rows: TypeAlias = pa.RecordBatch | pa.Table | np.ndarray | Mapping[str, Any]


def feeds(signature: Signature, rows: Rows) -> tuple[dict[str, np.ndarray], int]:
    """The tensor of every input, and the number of rows.

    Shapes: (rows,) or (rows, width). Text is an object array of str.
    """
    if isinstance(rows, np.ndarray):
        columns: Mapping[str, Any] = {_only_matrix(signature).name: rows}
    elif isinstance(rows, Mapping):
        columns = rows
    else:
        _refuse_duplicates(rows.schema.names)
        columns = dict(zip(rows.schema.names, rows.columns, strict=True))
    tensors = {i.name: _tensor(i, columns) for i in signature.inputs}
    lengths = {name: len(tensor) for name, tensor in tensors.items()}
    first = next(iter(lengths.values()), 0)
    for name, length in lengths.items():
        if length != first:
            raise SignatureError(
                f"column {name!r} has {length} rows, the first column {first}; pass equal lengths"
            )
    return tensors, first


def flat_rows(signature: Signature, batch: pa.RecordBatch) -> pa.RecordBatch:
    """The model's inputs as scalar columns, for targets that know no matrices: ``X`` becomes ``x0 ... x{k-1}``.

    Text is of type string, whichever of Arrow's types for it the rows have.
    """
    names: list[str] = []
    arrays: list[pa.Array] = []
    for wanted in signature.inputs:
        column = batch.column(wanted.name)
        names += wanted.columns
        if wanted.width is None:
            arrays.append(plain_text(column))
        else:
            values = column.flatten()
            arrays += [
                values.take(pa.array(range(i, len(values), wanted.width))) for i in range(wanted.width)
            ]
    return pa.RecordBatch.from_arrays(arrays, names=names)


def plain_text(column: pa.Array) -> pa.Array:
    """Text of any type (large_string, string_view, dictionary) as string; another column as it is.

    >>> plain_text(pa.array(["JFK", None], pa.large_string())).type
    DataType(string)
    """
    return column.cast(pa.string()) if _is_text(column.type) else column


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _only_matrix(signature: Signature) -> Input:
    if len(signature.inputs) != 1 or signature.inputs[0].width is None:
        names = [i.name for i in signature.inputs]
        raise SignatureError(
            f"this model takes the columns {names}, not an array; pass a table or a dict of columns"
        )
    return signature.inputs[0]


def _refuse_duplicates(names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SignatureError(f"columns {twice} occur twice; rename one of each")


def _tensor(wanted: Input, columns: Mapping[str, Any]) -> np.ndarray:
    if wanted.width is None:
        return _vector(wanted.name, wanted.dtype, _column(wanted.name, wanted.dtype, columns))
    if wanted.name in columns:
        return _matrix(wanted, columns[wanted.name])
    vectors = [_vector(name, wanted.dtype, _column(name, wanted.dtype, columns)) for name in wanted.columns]
    return np.ascontiguousarray(np.stack(vectors, axis=1))


def _column(name: str, dtype: str, columns: Mapping[str, Any]) -> Any:
    if name not in columns:
        raise SignatureError(f"column {name!r} is missing: expected {dtype}; the rows have {sorted(columns)}")
    return columns[name]


def _vector(name: str, dtype: str, values: Any) -> np.ndarray:
    """One column as an array of shape (rows,)."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if not isinstance(values, pa.Array):
        values = _untyped(name, dtype, values)
    if pa.types.is_dictionary(values.type) and dtype != "string":
        values = values.dictionary_decode()
    if pa.types.is_null(values.type):
        values = values.cast(ARROW_TYPES[dtype])
    if dtype == "string":
        return _text(name, values)
    return _numbers(name, dtype, values)


def _untyped(name: str, dtype: str, values: Any) -> pa.Array:
    """A list, a scalar or a NumPy array as Arrow; plain Python floats take a float input's width."""
    if isinstance(values, np.ndarray) and values.ndim != 1:
        raise SignatureError(f"column {name!r} has shape {values.shape}: expected {dtype} of shape (rows,)")
    plain = not isinstance(values, np.ndarray)
    try:
        array = pa.array(values if isinstance(values, (list, tuple, np.ndarray)) else [values])
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise SignatureError(
            f"column {name!r} is not one kind of value: expected {dtype}; {error}"
        ) from error
    if plain and dtype == "float" and (pa.types.is_float64(array.type) or pa.types.is_integer(array.type)):
        return array.cast(pa.float32(), safe=False)
    return array


def _numbers(name: str, dtype: str, array: pa.Array) -> np.ndarray:
    wanted = ARROW_TYPES[dtype]
    kind = array.type
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    to_float = pa.types.is_floating(wanted)
    narrowing = (pa.types.is_floating(kind) and not to_float) or (dtype == "bool" and kind != wanted)
    if not number or narrowing:
        raise _mismatch(name, dtype, kind)
    if array.null_count and not to_float:
        raise SignatureError(
            f"column {name!r} has {array.null_count} nulls: expected {dtype}; fill them beforehand"
        )
    try:
        if pa.types.is_boolean(kind) and to_float:
            array = array.cast(pa.int8())
        converted = array.cast(wanted, safe=True)
    except pa.ArrowInvalid as error:
        raise SignatureError(
            f"column {name!r} is {kind}: expected {dtype}, which can't hold it; {error}"
        ) from error
    if pa.types.is_float64(kind) and dtype == "float" and not _survives(array, converted):
        raise SignatureError(
            f"column {name!r} is double: expected float, which would round its values; "
            f"cast it to float32 where the rounding is meant"
        )
    if to_float:
        converted = pc.fill_null(converted, float("nan"))
    return np.asarray(converted.to_numpy(zero_copy_only=False))


def _survives(array: pa.Array, converted: pa.Array) -> bool:
    wide = np.asarray(pc.fill_null(array, 0.0).to_numpy(zero_copy_only=False))
    narrow = np.asarray(pc.fill_null(converted, 0.0).to_numpy(zero_copy_only=False))
    return np.array_equal(wide, narrow.astype(np.float64), equal_nan=True)


def _text(name: str, array: pa.Array) -> np.ndarray:
    """Text as objects; equal strings share one object, so a column of few categories costs few of them."""
    if not _is_text(array.type):
        raise _mismatch(name, "string", array.type)
    if not pa.types.is_dictionary(array.type):
        array = array.cast(pa.large_string()).dictionary_encode()
    known = array.dictionary.to_pylist()
    objects = np.array([*("" if value is None else value for value in known), ""], dtype=object)
    indices = pc.fill_null(array.indices.cast(pa.int64()), len(known)).to_numpy(zero_copy_only=False)
    return np.asarray(objects[indices])


def _matrix(wanted: Input, values: Any) -> np.ndarray:
    """A column of vectors as an array of shape (rows, width)."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    shape = f"shape (rows, {wanted.width})"
    if isinstance(values, pa.Array):
        if not pa.types.is_fixed_size_list(values.type) or values.type.list_size != wanted.width:
            raise SignatureError(
                f"column {wanted.name!r} is {values.type}: expected {wanted.dtype} of {shape}"
            )
        if values.null_count:
            raise SignatureError(
                f"column {wanted.name!r} has {values.null_count} null rows: expected {shape}"
            )
        flat = _vector(wanted.name, wanted.dtype, values.flatten())
        return flat.reshape(len(values), values.type.list_size)
    try:
        matrix = np.asarray(values)
    except ValueError as error:
        raise SignatureError(f"column {wanted.name!r} is ragged: expected {shape}; {error}") from error
    if matrix.ndim != 2 or matrix.shape[1] != wanted.width:
        raise SignatureError(
            f"column {wanted.name!r} has shape {matrix.shape}: expected {wanted.dtype} of {shape}"
        )
    flat = matrix.reshape(-1)
    plain = not isinstance(values, np.ndarray) and flat.dtype.kind in "fi"
    column = _untyped(wanted.name, wanted.dtype, flat.tolist() if plain else flat)
    return np.ascontiguousarray(_vector(wanted.name, wanted.dtype, column).reshape(matrix.shape))


def _mismatch(name: str, dtype: str, came: pa.DataType) -> SignatureError:
    return SignatureError(
        f"column {name!r} is {came}: expected {dtype}; convert it or pass the column of that type"
    )
