"""Rows as a matrix: what `local` computes on.

A block is cut from its part by a fixed rule, at most `BLOCK_BYTES` of features, so that the blocks, and
with them the last bits of every sum over them, depend on the data alone and neither on who reads them nor
on whether they come from Parquet, from memory or from the mapped copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millstream.data.schema import Field, Role, Schema
from millstream.errors import SchemaError

__all__ = ["BLOCK_BYTES", "Block", "block_dtype", "blocks_of", "column_values"]

BLOCK_BYTES = 4 << 20


@dataclass(frozen=True)
class Block:
    """Consecutive rows of one part. The arrays are read-only.

    X: (rows, features) float32 or float64, C-contiguous; a null is NaN.
    y: (rows,) or (rows, outputs), in the dtype of the column, strings as objects; None without a target.
    weight: (rows,) float64, finite and not negative; ones without a weight column.
    first_row: number of the first row within the dataset.
    """

    X: np.ndarray[Any, Any]
    y: np.ndarray[Any, Any] | None
    weight: np.ndarray[Any, np.dtype[np.float64]]
    first_row: int
    feature_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.X)


def block_dtype(schema: Schema) -> np.dtype[Any]:
    """float32 if every feature is float32 (or float16), else float64: no value is narrowed.

    An int64 beyond 2**53 is rounded to the nearest float64.
    """
    narrow = (pa.float16(), pa.float32())
    types = [schema[name].type for name in schema.features]
    elements = [t.value_type if pa.types.is_fixed_size_list(t) else t for t in types]
    return np.dtype("f4") if elements and all(t in narrow for t in elements) else np.dtype("f8")


def blocks_of(table: pa.Table, schema: Schema, first_row: int) -> Iterator[Block]:
    """Cut a table with the columns of `schema` into blocks; a table without rows has none."""
    names = schema.feature_names
    dtype = block_dtype(schema)
    rows = max(1, BLOCK_BYTES // (dtype.itemsize * max(1, len(names))))
    for start in range(0, table.num_rows, rows):
        piece = table.slice(start, rows)
        weight = schema.weight
        block = Block(
            X=_matrix(piece, schema, dtype),
            y=None if schema.target is None else _target(piece, schema[schema.target]),
            weight=np.ones(len(piece)) if weight is None else _weights(piece, weight),
            first_row=first_row + start,
            feature_names=names,
        )
        for array in (block.X, block.y, block.weight):
            if array is not None:
                array.flags.writeable = False
        yield block


def column_values(column: pa.ChunkedArray, field: Field) -> np.ndarray[Any, Any]:
    """A column as (rows,) or, for a fixed-size list, (rows, length); without a copy where Arrow allows it."""
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # combine_chunks keeps several chunks only past 2 GB of strings
        raise SchemaError(
            f"column {field.name!r} holds more than 2 GB in one block; read it in smaller parts"
        )
    if field.is_matrix:
        return _list_values(array, field)
    return np.asarray(array.to_numpy(zero_copy_only=False))


def _list_values(array: pa.FixedSizeListArray, field: Field) -> np.ndarray[Any, Any]:
    width = field.type.list_size
    if array.null_count:
        raise SchemaError(
            f"column {field.name!r} has {array.null_count} null lists; a null belongs inside the list, as NaN"
        )
    values = array.flatten()  # respects the slice; `.values` would not
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(len(array), width)


def _matrix(table: pa.Table, schema: Schema, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    fields = [schema[name] for name in schema.features]
    for field in fields:
        if not (field.is_number or field.is_matrix):
            raise SchemaError(
                f"feature {field.name!r} is of type {field.type}, and a block holds numbers: encode it first "
                "(OneHotEncoder), or leave it out of features="
            )
    if len(fields) == 1 and fields[0].is_matrix:
        return np.ascontiguousarray(column_values(table[fields[0].name], fields[0]))
    out = np.empty((table.num_rows, len(schema.feature_names)), dtype)
    at = 0
    for field in fields:
        width = len(field.feature_names)
        out[:, at : at + width] = _numbers(table[field.name], field).reshape(table.num_rows, width)
        at += width
    return out


def _numbers(column: pa.ChunkedArray, field: Field) -> np.ndarray[Any, Any]:
    if field.is_matrix:
        return column_values(column, field)
    if pa.types.is_floating(field.type):
        return column_values(column, field)
    # Integers with nulls, Booleans, decimals: through float64, where a null can be NaN.
    if pa.types.is_boolean(field.type):
        column = pc.cast(column, pa.uint8())
    return column_values(pc.cast(column, pa.float64(), safe=False), field)


def _target(table: pa.Table, field: Field) -> np.ndarray[Any, Any]:
    column = table[field.name]
    if column.null_count and not pa.types.is_floating(field.type):
        raise SchemaError(
            f"target {field.name!r} has {column.null_count} nulls in {len(column)} rows; drop or fill them"
        )
    return column_values(column, field)


def _weights(table: pa.Table, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    values = np.array(
        column_values(pc.cast(table[name], pa.float64()), Field(name, pa.float64(), Role.WEIGHT))
    )
    if not (np.isfinite(values) & (values >= 0)).all():
        bad = values[~(np.isfinite(values) & (values >= 0))][0]
        raise SchemaError(f"weight {name!r} holds {bad}; a weight is finite and not negative")
    return values
