"""Event times far apart, and durations as long as they come: right, or refused, and never wrapped around int64."""

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

import millstream.stream as ms
from millstream.errors import PlanError, SchemaError

US = timedelta(microseconds=1)
DAY = timedelta(days=1)
LONGEST = timedelta(microseconds=2**62)


def windows_of(table: pa.Table, size: timedelta) -> pa.Table:
    stream = ms.as_stream(table, event_time="at").key_by("k").window(ms.Tumbling(size))
    return stream.aggregate(n=ms.count()).collect()


def test_many_keys_and_one_row_in_the_year_9999() -> None:
    far = 253_402_300_799_000_000
    at = np.append(np.arange(40_000), far)
    found = windows_of(pa.table({"at": at, "k": np.arange(40_001) % 40_000}), timedelta(milliseconds=1))
    assert found["window_start"].to_numpy().tolist() == (at // 1000 * 1000).tolist()


def test_windows_that_are_equal_modulo_int64_stay_two() -> None:
    at = [0] * 64 + [2**58] * 64
    found = windows_of(pa.table({"at": at, "k": [*range(64), *range(64)]}), US)
    assert found["window_start"].to_pylist() == at
    assert set(found["n"].to_pylist()) == {1}


@pytest.mark.parametrize("at", [-(2**62) + 1, 2**62 - 1])
def test_the_longest_window_over_the_farthest_times(at: int) -> None:
    """Window [-2**62, 0) or [0, 2**62): neither end leaves int64."""
    (row,) = windows_of(pa.table({"at": [at], "k": [1]}), LONGEST).to_pylist()
    assert row["window_start"] == (0 if at > 0 else -(2**62))
    assert row["window_end"] - row["window_start"] == 2**62


@pytest.mark.parametrize(
    ("unit", "value"), [("s", 2**58), ("s", -(2**58)), ("ms", 2**61), ("s", -(2**63) + 1)]
)
def test_a_moment_that_microseconds_cannot_hold_is_named(unit: str, value: int) -> None:
    table = pa.table({"at": pa.array([0, value], pa.int64()).cast(pa.timestamp(unit)), "k": [1, 1]})
    with pytest.raises(SchemaError, match=rf"event time 'at' is {value} {unit}, outside .*check its unit"):
        windows_of(table, DAY)


@pytest.mark.parametrize(("unit", "factor"), [("s", 10**6), ("ms", 1000), ("us", 1)])
def test_the_farthest_moment_of_each_unit(unit: str, factor: int) -> None:
    far = (2**62 - 1) // factor
    table = pa.table({"at": pa.array([far], pa.int64()).cast(pa.timestamp(unit)), "k": [1]})
    assert len(windows_of(table, timedelta(seconds=1))) == 1


def two() -> tuple[ms.Stream, ms.Stream]:
    left = pa.table({"at": [-(2**61), 2**61], "k": [1, 1]})
    right = pa.table({"at": [-(2**61) - 5, 0], "k": [1, 1]})
    streams = [ms.as_stream(t, event_time="at", name=n) for t, n in ((left, "left"), (right, "right"))]
    return streams[0], streams[1]


def test_the_longest_lookback_over_the_farthest_times() -> None:
    left, right = two()
    assert left.lookback(right, on="k", over=LONGEST, n=ms.count()).collect()["n"].to_pylist() == [1, 1]


@pytest.mark.parametrize("length", [60_000_000 * DAY, timedelta.max])
def test_durations_longer_than_that_are_refused(length: timedelta) -> None:
    left, right = two()
    with pytest.raises(PlanError, match=r"over is \d+ us long; expected at most 2\*\*62 us, 53375995 days"):
        left.lookback(right, on="k", over=length, n=ms.count())
    with pytest.raises(PlanError, match="within is"):
        left.latest(right, on="k", within=length, columns=["at"])
    with pytest.raises(PlanError, match="the window is"):
        left.window(ms.Tumbling(length)).aggregate(n=ms.count())
    with pytest.raises(PlanError, match="source 'late': delay is"):
        ms.as_stream(pa.table({"at": [1]}), event_time="at", delay=length, name="late")
