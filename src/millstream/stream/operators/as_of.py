"""Two-input operators that ask what was known at each left row's moment: `LookbackOperator`, `LatestOperator`.

A left row at t is final when both watermarks have passed t: then every right row on time with time <= t is here. Rows
leave in the order (time, partition, offset), so what leaves, and in which order, is a function of the rows on time.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.errors import StreamError
from millstream.kernels import windows
from millstream.stream import plan
from millstream.stream.aggregates import Aggregate, Kind, column_of_numbers, from_numbers
from millstream.stream.event_time import MAX_TIME, MIN_TIME
from millstream.stream.frame import Batch, Frame, Watermark
from millstream.stream.operators.keyed_rows import KeyedRows
from millstream.stream.operators.operator import Operator, Snapshot
from millstream.stream.operators.pending import PendingRows

__all__ = ["LatestOperator", "LookbackOperator"]

Ints = npt.NDArray[np.int64]
LEFT, RIGHT = 0, 1


class _AsOfOperator(Operator):
    """What lookback and latest share: a left row waits, then meets the right rows of its key."""

    def __init__(self, node: plan.Lookback | plan.Latest, columns: list[str], reach: int | None) -> None:
        # configuration
        self._keys = node.keys
        self._schema = node.schema
        self._reach = reach
        # rebuilt on restart
        self._watermarks = [MIN_TIME, MIN_TIME]
        # checkpointed
        self._left = PendingRows(node.left.schema)
        rows = node.right.schema
        held = pa.schema([rows.field(name) for name in dict.fromkeys(columns)])
        self._right = KeyedRows([rows.field(key).type for key in node.keys], node.keys, held)

    @abstractmethod
    def _added(self, lo: Ints, hi: Ints) -> list[pa.Array]:
        """The new columns, one value for each run ``[lo, hi)`` of right rows."""

    def batch(self, port: int, batch: Batch) -> Iterable[Frame]:
        (self._left if port == LEFT else self._right).add(batch)
        return ()

    def watermark(self, port: int, watermark: Watermark) -> Iterable[Frame]:
        before = min(self._watermarks)
        self._watermarks[port] = watermark.time
        now = min(self._watermarks)
        if now <= before:
            return
        final = self._left.take_below(now)
        if now < MAX_TIME:
            self.concluded = now
        elif final is not None:
            self.concluded = max(self.concluded, int(final.time[-1]) + 1)
        if final is not None:
            yield self._answered(final)
        self._right.evict(self.concluded, self._reach)
        yield Watermark(now)

    def _answered(self, left: Batch) -> Batch:
        since = np.full(len(left), MIN_TIME) if self._reach is None else left.time - self._reach
        lo, hi = self._right.ranges([left.rows.column(key) for key in self._keys], left.time, since)
        columns = [*left.rows.columns, *self._added(lo, hi)]
        return left.with_rows(pa.RecordBatch.from_arrays(columns, schema=self._schema))

    def snapshot(self) -> Snapshot:
        return {"left": self._left.snapshot(), "right": self._right.snapshot()}

    def restore(self, snapshot: Snapshot) -> None:
        self._left.restore(snapshot["left"])
        self._right.restore(snapshot["right"])


class LookbackOperator(_AsOfOperator):
    """Aggregates of each run of right rows, summed directly: O(rows in the run) for each left row.

    Differences of running sums would be cheaper for long runs, but their last bits depend on where the running sum
    started, and they cancel.
    """

    def __init__(self, node: plan.Lookback) -> None:
        super().__init__(node, [a.column for _, a in node.aggregates if a.column is not None], node.over)
        rows = node.right.schema
        self._aggregates = [(name, a, a.result_type(rows, "lookback")) for name, a in node.aggregates]

    def _added(self, lo: Ints, hi: Ints) -> list[pa.Array]:
        rows = self._right.rows
        numbers = {name: column_of_numbers(rows.column(name)) for name in rows.schema.names}
        return [self._aggregate(name, a, kind, numbers, lo, hi) for name, a, kind in self._aggregates]

    @staticmethod
    def _aggregate(
        name: str, aggregate: Aggregate, kind: pa.DataType, numbers: dict[str, _Numbers], lo: Ints, hi: Ints
    ) -> pa.Array:
        if aggregate.column is None:
            return pa.array(hi - lo)
        values, valid = numbers[aggregate.column]
        before = np.concatenate([[0], np.cumsum(valid)])
        n = before[hi] - before[lo]
        return from_numbers(_RANGES[aggregate.kind](name, values, valid, lo, hi, n), n > 0, kind)


class LatestOperator(_AsOfOperator):
    """The last row of each run."""

    def __init__(self, node: plan.Latest) -> None:
        super().__init__(node, list(node.columns), node.within)

    def _added(self, lo: Ints, hi: Ints) -> list[pa.Array]:
        last = pa.array(hi - 1, mask=hi == lo)
        return [column.take(last) for column in self._right.rows.columns]


_Numbers = tuple[npt.NDArray[np.int64 | np.float64], npt.NDArray[np.bool_]]
_Range = Callable[..., npt.NDArray[np.int64 | np.float64]]


def _sums(
    name: str, values: Ints, valid: npt.NDArray[np.bool_], lo: Ints, hi: Ints, n: Ints
) -> npt.NDArray[np.int64 | np.float64]:
    if values.dtype == np.float64:
        sums: npt.NDArray[np.float64] = windows.range_sums_floats(values, valid, lo, hi)
        return sums
    totals, overflow = windows.range_sums_integers(values, valid, lo, hi)
    if overflow:
        raise StreamError(
            f"sum {name!r} left the range of int64; cast its column to float64 with map_batches"
        )
    whole: Ints = totals
    return whole


def _means(
    name: str,
    values: npt.NDArray[np.int64 | np.float64],
    valid: npt.NDArray[np.bool_],
    lo: Ints,
    hi: Ints,
    n: Ints,
) -> npt.NDArray[np.float64]:
    sums = windows.range_sums_floats(values.astype(np.float64), valid, lo, hi)
    means: npt.NDArray[np.float64] = sums / np.maximum(n, 1)
    return means


def _minima(
    name: str,
    values: npt.NDArray[np.int64 | np.float64],
    valid: npt.NDArray[np.bool_],
    lo: Ints,
    hi: Ints,
    n: Ints,
) -> npt.NDArray[np.int64 | np.float64]:
    least: npt.NDArray[np.int64 | np.float64] = windows.range_minima(values, valid, lo, hi)
    return least


def _maxima(
    name: str,
    values: npt.NDArray[np.int64 | np.float64],
    valid: npt.NDArray[np.bool_],
    lo: Ints,
    hi: Ints,
    n: Ints,
) -> npt.NDArray[np.int64 | np.float64]:
    greatest: npt.NDArray[np.int64 | np.float64] = windows.range_maxima(values, valid, lo, hi)
    return greatest


_RANGES: dict[Kind, _Range] = {Kind.SUM: _sums, Kind.MEAN: _means, Kind.MIN: _minima, Kind.MAX: _maxima}
