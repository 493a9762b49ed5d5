"""Aggregates by SQL's rules: nulls are skipped, the sum, mean, minimum and maximum of nothing are null.

`count` counts rows. The sum of integers is int64 and exact, of floats float64; a mean is float64; minimum and maximum
keep the column's type. NaN is a number greater than all others.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.errors import PlanError

__all__ = ["Aggregate", "Kind", "column_of_numbers", "count", "from_numbers", "max", "mean", "min", "sum"]


class Kind(StrEnum):
    COUNT = "count"
    SUM = "sum"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"


@dataclass(frozen=True, slots=True)
class Aggregate:
    """What to compute of which column; `column` is None for the count of rows."""

    kind: Kind
    column: str | None = None

    def __str__(self) -> str:
        return f"{self.kind}({self.column or ''})"

    def result_type(self, schema: pa.Schema, where: str) -> pa.DataType:
        """The type of the result over rows of `schema`; PlanError where the column is missing or not numeric."""
        if self.column is None:
            return pa.int64()
        if self.column not in schema.names:
            raise PlanError(f"{where}: {self} needs a column that is one of {', '.join(schema.names)}")
        kind = schema.field(self.column).type
        ordered = _is_integer(kind) or pa.types.is_floating(kind)
        if self.kind in (Kind.MIN, Kind.MAX):
            if ordered or _is_moment(kind):
                return kind
        elif ordered:
            return pa.int64() if self.kind is Kind.SUM and _is_integer(kind) else pa.float64()
        raise PlanError(
            f"{where}: {self} of a column of type {kind}; expected an integer of at most 64 bits signed or a float"
            + (", a timestamp or a date" if self.kind in (Kind.MIN, Kind.MAX) else "")
            + "; cast it with map_batches first"
        )


def count() -> Aggregate:
    """The number of rows, int64.

    >>> str(count())
    'count()'
    """
    return Aggregate(Kind.COUNT)


def sum(column: str) -> Aggregate:
    """The sum of a column; null if it has no value."""
    return Aggregate(Kind.SUM, column)


def mean(column: str) -> Aggregate:
    """The arithmetic mean of a column, float64; null if it has no value.

    >>> str(mean("dep_delay"))
    'mean(dep_delay)'
    """
    return Aggregate(Kind.MEAN, column)


def min(column: str) -> Aggregate:
    """The least value of a column; null if it has none."""
    return Aggregate(Kind.MIN, column)


def max(column: str) -> Aggregate:
    """The greatest value of a column; null if it has none."""
    return Aggregate(Kind.MAX, column)


def column_of_numbers(column: pa.Array) -> tuple[npt.NDArray[np.int64 | np.float64], npt.NDArray[np.bool_]]:
    """Values (n,) int64 or float64, writable, 0 where null; and which are not null (n,)."""
    valid = np.array(column.is_valid().to_numpy(zero_copy_only=False), dtype=np.bool_)
    if pa.types.is_floating(column.type):
        column = column.cast(pa.float64())
    else:
        column = column.cast(pa.int32() if pa.types.is_date32(column.type) else pa.int64()).cast(pa.int64())
    return np.array(column.fill_null(0).to_numpy(zero_copy_only=False)), valid


def from_numbers(
    values: npt.NDArray[np.int64 | np.float64], valid: npt.NDArray[np.bool_], kind: pa.DataType
) -> pa.Array:
    """The inverse of `column_of_numbers`: null where not valid."""
    column = pa.array(values, mask=~valid)
    if pa.types.is_date32(kind):
        column = column.cast(pa.int32())
    return column.cast(kind)


def _is_integer(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind)) and not pa.types.is_uint64(kind)


def _is_moment(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))
