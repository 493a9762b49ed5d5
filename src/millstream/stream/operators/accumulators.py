"""Aggregates as columns of state, one row a pane: `Accumulator` for each kind, made by `accumulator`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.errors import StreamError
from millstream.kernels import windows
from millstream.stream.aggregates import Aggregate, Kind, column_of_numbers, from_numbers

__all__ = ["Accumulator", "accumulator"]

Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int64 | np.float64]


class Accumulator(ABC):
    """State columns over panes. `state` maps a name to a (panes,) array; all start at zero."""

    def __init__(self, name: str, aggregate: Aggregate, kind: pa.DataType, **state: type) -> None:
        self.name = name
        self._column = aggregate.column
        self._kind = kind
        self.state: dict[str, Numbers] = {key: np.zeros(0, dtype) for key, dtype in state.items()}

    def grow(self, panes: int) -> None:
        """Make room for `panes` panes in all, the new ones at zero."""
        for key, column in self.state.items():
            self.state[key] = np.concatenate([column, np.zeros(panes - len(column), column.dtype)])

    def keep(self, index: Ints) -> None:
        """Keep the panes at `index` (k,), renumbered 0 to k - 1."""
        self.state = {key: column[index] for key, column in self.state.items()}

    @abstractmethod
    def add(self, panes: Ints, rows: pa.RecordBatch) -> None:
        """Add each row to its pane; panes: (n,)."""

    @abstractmethod
    def result(self, panes: Ints) -> pa.Array:
        """The aggregate of these panes (k,)."""


class _Count(Accumulator):
    def add(self, panes: Ints, rows: pa.RecordBatch) -> None:
        windows.add_counts(panes, np.ones(len(panes), np.bool_), self.state["n"])

    def result(self, panes: Ints) -> pa.Array:
        return pa.array(self.state["n"][panes])


class _Floats(Accumulator):
    """Sum or mean in float64 with the rounding kept beside it."""

    def add(self, panes: Ints, rows: pa.RecordBatch) -> None:
        values, valid = column_of_numbers(rows.column(self._column))
        windows.add_floats(panes, values.astype(np.float64), valid, self.state["total"], self.state["lost"])
        windows.add_counts(panes, valid, self.state["n"])

    def _total(self, panes: Ints) -> npt.NDArray[np.float64]:
        total = self.state["total"][panes].astype(np.float64)
        return np.where(np.isfinite(total), total + self.state["lost"][panes], total)

    def result(self, panes: Ints) -> pa.Array:
        return from_numbers(self._total(panes), self.state["n"][panes] > 0, self._kind)


class _Mean(_Floats):
    def result(self, panes: Ints) -> pa.Array:
        n = self.state["n"][panes]
        return from_numbers(self._total(panes) / np.maximum(n, 1), n > 0, self._kind)


class _Integers(Accumulator):
    def add(self, panes: Ints, rows: pa.RecordBatch) -> None:
        values, valid = column_of_numbers(rows.column(self._column))
        if windows.add_integers(panes, values, valid, self.state["total"]):
            raise StreamError(
                f"sum {self.name!r} left the range of int64; cast its column to float64 with map_batches"
            )
        windows.add_counts(panes, valid, self.state["n"])

    def result(self, panes: Ints) -> pa.Array:
        return from_numbers(self.state["total"][panes], self.state["n"][panes] > 0, self._kind)


class _Extreme(Accumulator):
    kernel: Callable[..., None]

    def add(self, panes: Ints, rows: pa.RecordBatch) -> None:
        values, valid = column_of_numbers(rows.column(self._column))
        type(self).kernel(panes, values, valid, self.state["value"], self.state["n"])

    def result(self, panes: Ints) -> pa.Array:
        return from_numbers(self.state["value"][panes], self.state["n"][panes] > 0, self._kind)


class _Min(_Extreme):
    kernel = windows.add_minima


class _Max(_Extreme):
    kernel = windows.add_maxima


def accumulator(name: str, aggregate: Aggregate, schema: pa.Schema) -> Accumulator:
    """The accumulator of `aggregate` over rows of `schema`."""
    kind = aggregate.result_type(schema, "aggregate")
    floating = pa.types.is_floating(kind)
    match aggregate.kind:
        case Kind.COUNT:
            return _Count(name, aggregate, kind, n=np.int64)
        case Kind.SUM if not floating:
            return _Integers(name, aggregate, kind, total=np.int64, n=np.int64)
        case Kind.SUM:
            return _Floats(name, aggregate, kind, total=np.float64, lost=np.float64, n=np.int64)
        case Kind.MEAN:
            return _Mean(name, aggregate, kind, total=np.float64, lost=np.float64, n=np.int64)
        case Kind.MIN:
            return _Min(name, aggregate, kind, value=np.float64 if floating else np.int64, n=np.int64)
        case Kind.MAX:
            return _Max(name, aggregate, kind, value=np.float64 if floating else np.int64, n=np.int64)
