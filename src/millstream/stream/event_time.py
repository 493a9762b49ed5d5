"""Event time: when a thing happened, as int64 microseconds since 1970-01-01 UTC.

`SourceClock` keeps the running watermark of every partition of a source. A row is late against the cumulative
maximum of its own partition minus the delay, row by row in offset order, so neither batching nor the pace of the
other partitions decides what is late (the reason Flink's per-split and Spark's global watermark give other late
sets on replay). The watermark W of a source says: no row on time with event time below W will come.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millstream.errors import PlanError, SchemaError

__all__ = [
    "LONGEST",
    "MAX_TIME",
    "MIN_TIME",
    "NoEventTime",
    "SourceClock",
    "check_event_time",
    "from_microseconds",
    "to_microseconds",
]

MIN_TIME = -(2**62)
"""Before every event: the watermark of a partition that has shown no row."""
MAX_TIME = 2**62
"""After every event: the watermark of a partition that has ended."""
LONGEST = 2**62
"""The longest delay, window or look back, microseconds: a moment and one of these add up to an int64."""
_MICROSECONDS = {"s": 1_000_000, "ms": 1_000}


class NoEventTime(SchemaError):
    """A row without a usable event time; `row` is its number in the column."""

    def __init__(self, row: int, message: str) -> None:
        super().__init__(message)
        self.row = row


def check_event_time(schema: pa.Schema, column: str, source: str) -> None:
    """Raise PlanError unless `column` is a timestamp or int64 microseconds."""
    if column not in schema.names:
        raise PlanError(
            f"event_time={column!r} is not a column of {source!r}; choose one of {', '.join(schema.names)}"
        )
    kind = schema.field(column).type
    if not (pa.types.is_timestamp(kind) or pa.types.is_int64(kind)):
        raise PlanError(
            f"event_time={column!r} of {source!r} is {kind}; expected a timestamp, or int64 microseconds since "
            "1970-01-01 UTC; cast the column first"
        )


def to_microseconds(column: pa.Array, name: str) -> npt.NDArray[np.int64]:
    """Event times (n,) int64 of a timestamp or int64 column; `NoEventTime` for a null or out-of-range time."""
    if column.null_count:
        raise NoEventTime(
            pc.index(column.is_null(), True).as_py(),
            f"event time {name!r} is null; expected a moment in every row",
        )
    unit = column.type.unit if pa.types.is_timestamp(column.type) else "us"
    given = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
    farthest = (MAX_TIME - 1) // _MICROSECONDS.get(unit, 1)
    outside = (given < -farthest) | (given > farthest)
    if unit != "ns" and outside.any():
        row = int(outside.argmax())
        raise NoEventTime(
            row, f"event time {name!r} is {given[row]} {unit}, outside ±2**62 microseconds; check its unit"
        )
    if unit != "us":
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64())
        given = column.to_numpy(zero_copy_only=False)
    return np.array(given, dtype=np.int64)


def from_microseconds(times: npt.NDArray[np.int64], kind: pa.DataType) -> pa.Array:
    """The inverse of `to_microseconds`: int64 microseconds as a column of `kind`."""
    column = pa.array(times, pa.int64())
    if pa.types.is_timestamp(kind):
        return column.cast(pa.timestamp("us", kind.tz)).cast(kind)
    return column


@dataclass(slots=True)
class SourceClock:
    """The running watermarks of one source.

    >>> clock = SourceClock([0, 1], delay=10)
    >>> clock.observe(0, np.array([100, 95, 89, 120, 109]))
    array([False, False,  True, False,  True])
    >>> clock.advance()    # partition 1 has shown nothing
    False
    >>> clock.finish(1)
    >>> clock.advance(), clock.reached
    (True, 110)
    """

    # configuration
    partitions: Iterable[int]
    delay: int
    # rebuilt on restart
    finished: set[int] = field(default_factory=set)
    idle: set[int] = field(default_factory=set)
    # checkpointed
    highest: dict[int, int] = field(default_factory=dict)
    reached: int = MIN_TIME

    def __post_init__(self) -> None:
        self.highest = dict.fromkeys(self.partitions, MIN_TIME) | self.highest

    def observe(self, partition: int, times: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Advance by the next rows of a partition, (n,) int64 in offset order; True marks the late ones.

        A partition that comes back from idleness may lie behind what the source has promised; only then does `reached`
        decide.
        """
        if not len(times):
            return np.zeros(0, np.bool_)
        running = np.maximum(np.maximum.accumulate(times), self.highest[partition])
        self.highest[partition] = int(running[-1])
        return (times < running - self.delay) | (times < self.reached)

    def finish(self, partition: int) -> None:
        """No row of this partition will come any more."""
        self.finished.add(partition)

    def partition_watermark(self, partition: int) -> int:
        if partition in self.finished:
            return MAX_TIME
        highest = self.highest[partition]
        return highest if highest == MIN_TIME else max(MIN_TIME, highest - self.delay)

    def advance(self) -> bool:
        """Move `reached`, the source's watermark, to the least of its partitions'; whether it moved.

        Idle partitions hold nothing up; if all are idle, the one furthest on leads. MAX_TIME when all have finished.
        """
        open_ones = {p: self.partition_watermark(p) for p in self.highest if p not in self.finished}
        active = [watermark for p, watermark in open_ones.items() if p not in self.idle]
        before = self.reached
        furthest = max(open_ones.values(), default=MAX_TIME)
        self.reached = max(before, min(active, default=furthest))
        return self.reached > before
