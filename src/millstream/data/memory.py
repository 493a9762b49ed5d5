"""Datasets over what is in memory already: an Arrow table, NumPy arrays. Nothing is copied."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from millstream.data.dataset import Dataset
from millstream.data.part import Part, TableReader, even_rows
from millstream.data.schema import Field, Role, Schema
from millstream.data.table import as_table
from millstream.errors import InputError

__all__ = ["from_arrow", "from_numpy"]


def from_arrow(
    table: Any,
    features: Sequence[str] | None = None,
    target: str | None = None,
    weight: str | None = None,
    part_rows: int | Sequence[int] | None = None,
) -> Dataset:
    """A dataset over an Arrow table, a record batch, or a data frame (of pandas or polars), whose index is left out.

    features, target, weight: names of columns; without `features` every other column is one.
    part_rows: rows in a part, or the rows of each part (zeros allowed); by default about 4 MB.

    >>> table = pa.table({"fare": [7.5, 9.0, 3.25], "tip": [1, 0, 1]})
    >>> from_arrow(table, target="tip", part_rows=[2, 0, 1])
    Dataset(3 rows, 3 parts, features fare, target tip)
    """
    table = as_table(table)
    schema = Schema.of(table.schema, features=features, target=target, weight=weight)
    return _in_parts(table, schema, part_rows)


def from_numpy(
    X: Any,
    y: Any = None,
    weight: Any = None,
    part_rows: int | Sequence[int] | None = None,
) -> Dataset:
    """A dataset over arrays.

    X: (rows, features); float32 and float64 are used as they lie if they are C-contiguous, other numbers
        become
        float64. The features are called x0, x1, ... and form one column "X".
    y: (rows,) numbers, Booleans or strings, or (rows, outputs) floats, called "y".
    weight: (rows,) numbers, called "weight".
    part_rows: as in `from_arrow`.

    >>> from_numpy(np.ones((4, 2)), y=["a", "b", "a", "a"]).schema.targets
    ('y',)
    """
    matrix = _floats(X)
    n_rows, n_features = matrix.shape
    names = tuple(f"x{i}" for i in range(n_features))
    columns: list[tuple[Field, pa.Array]] = [_matrix_column("X", matrix, Role.FEATURE, names)]
    if y is not None:
        target = np.asarray(y)
        _same_length("y", target, n_rows)
        columns.append(
            _matrix_column("y", _floats(target), Role.TARGET)
            if target.ndim == 2
            else _column("y", target, Role.TARGET)
        )
    if weight is not None:
        weights = np.asarray(weight)
        _same_length("weight", weights, n_rows)
        columns.append(_column("weight", weights, Role.WEIGHT))
    schema = Schema(tuple(field for field, _ in columns))
    table = pa.Table.from_arrays([array for _, array in columns], schema=schema.arrow)
    return _in_parts(table, schema, part_rows)


def _in_parts(table: pa.Table, schema: Schema, part_rows: int | Sequence[int] | None) -> Dataset:
    sizes = _sizes(table, part_rows)
    starts = [0, *itertools.accumulate(sizes)]
    parts = [
        Part(index, start, size, schema, TableReader(table.slice(start, size)), resident=True)
        for index, (start, size) in enumerate(zip(starts, sizes, strict=False))
    ]
    return Dataset(schema, parts)


def _sizes(table: pa.Table, part_rows: int | Sequence[int] | None) -> list[int]:
    if part_rows is None:
        part_rows = even_rows(table.num_rows, table.nbytes)
    if isinstance(part_rows, int | np.integer):
        if part_rows < 1:
            raise InputError(f"part_rows={part_rows}; a part has at least one row: pass a positive number")
        full, rest = divmod(table.num_rows, int(part_rows))
        return [int(part_rows)] * full + ([rest] if rest or not full else [])
    sizes = [int(size) for size in part_rows]
    if sum(sizes) != table.num_rows or min(sizes, default=0) < 0:
        raise InputError(
            f"part_rows sums to {sum(sizes)} for {table.num_rows} rows; "
            "give the rows of every part, none negative"
        )
    return sizes


def _floats(X: Any) -> np.ndarray[Any, Any]:
    matrix = np.asarray(X)
    if matrix.ndim != 2 or matrix.shape[1] == 0:
        raise InputError(
            f"X has shape {matrix.shape}; expected (rows, features): reshape it to two dimensions"
        )
    if matrix.dtype.kind not in "fiub":
        raise InputError(f"X is of dtype {matrix.dtype}; expected numbers: use from_arrow for named columns")
    narrow = matrix.dtype in (np.dtype("f4"), np.dtype("f2"))
    return np.ascontiguousarray(matrix, dtype="f4" if narrow else "f8")


def _matrix_column(
    name: str, matrix: np.ndarray[Any, Any], role: Role, names: tuple[str, ...] = ()
) -> tuple[Field, pa.Array]:
    array = pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])
    return Field(name, array.type, role, names), array


def _column(name: str, values: np.ndarray[Any, Any], role: Role) -> tuple[Field, pa.Array]:
    array = pa.array(values)
    return Field(name, array.type, role), array


def _same_length(name: str, values: np.ndarray[Any, Any], n_rows: int) -> None:
    if values.ndim == 0 or len(values) != n_rows:
        raise InputError(f"{name} has shape {values.shape} and X has {n_rows} rows; give one value a row")
