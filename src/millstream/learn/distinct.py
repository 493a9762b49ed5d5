"""The distinct values of columns of categories, sorted, found in one read of the rows.

A null string is taken as the empty string, which is what the ONNX form of a model is fed for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from millstream.data import Part
from millstream.errors import InputError
from millstream.parallel import Context, Done, Meta, Op

__all__ = ["UNION", "Distinct", "category_column"]


def _union(left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    return np.union1d(left, right)


UNION = Op("UNION", _union)


def category_column(name: str, column: pa.Array) -> pa.Array:
    """A column of categories as string, int64 or float64, without nulls among the strings.

    Raises `InputError` for any other type, and for floats that are not finite.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(pa.string())
    if pa.types.is_null(column.type):
        column = column.cast(pa.string())
    if pa.types.is_string(column.type):
        return pc.fill_null(column, "")
    if pa.types.is_integer(column.type):
        return column.cast(pa.int64())
    if pa.types.is_floating(column.type):
        return _finite(name, column.cast(pa.float64()))
    raise InputError(
        f"column {name!r} is of type {column.type}; categories are strings or numbers: cast it to one of them"
    )


def _finite(name: str, column: pa.Array) -> pa.Array:
    values = column.to_numpy(zero_copy_only=False)
    if not np.isfinite(values).all():
        raise InputError(
            f"column {name!r} holds {'NaN' if np.isnan(values).any() else 'inf'} among its categories; "
            "cast it to string, where null is a category of its own, or fill it"
        )
    return column


@dataclass(frozen=True)
class Distinct:
    """An algorithm of one step: ``Done.params[name]`` holds the sorted values of a column (objects, int64, float64)."""

    columns: tuple[str, ...]
    single_pass = True

    @property
    def combine(self) -> Mapping[str, Op]:
        return dict.fromkeys(self.columns, UNION)

    def init(self, meta: Meta, rng: np.random.Generator) -> dict[str, Any]:
        return {}

    def local(self, params: Mapping[str, Any], part: Part, ctx: Context) -> dict[str, NDArray[Any]]:
        table = part.to_table(self.columns)
        found = {}
        for name in self.columns:
            column = category_column(name, table[name].combine_chunks())
            if column.null_count:
                raise InputError(
                    f"column {name!r} has {column.null_count} nulls among its integers; "
                    "cast it to string, where null is a category of its own, or fill it"
                )
            values = pc.unique(column)
            found[name] = np.sort(values.to_numpy(zero_copy_only=False))
        return found

    def update(self, state: Mapping[str, Any], statistic: Mapping[str, NDArray[Any]]) -> Done:
        return Done(dict(statistic))
