"""Lateness, windows, lookbacks and as-of joins against loops over sorted events, under any cut into batches.

Rows come over up to three partitions with disorder; batch sizes, the interleaving of partitions and the pace of sources
are drawn by hypothesis. The oracle knows the rows and nothing of batches.
"""

import math
import random
from collections.abc import Mapping, Sequence
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import millstream.stream as ms
from millstream.stream.graph import Graph
from millstream.stream.intake import Intake
from millstream.stream.plan import sources
from millstream.stream.sources.reader import Chunk
from millstream.stream.sources.table import TableReader, replay

DELAY = 4
OVER = 12


SCHEMA = pa.schema([("at", pa.int64()), ("key", pa.string()), ("x", pa.float64()), ("i", pa.int64())])

Event = tuple[int, int, str | None, float | None, int | None]  # partition, at, key, x, i


class AnyOrder:
    """A reader that gives any partition next and any number of rows: what a broker may do."""

    def __init__(self, inner: TableReader, chance: random.Random) -> None:
        self._inner = inner
        self._chance = chance

    @property
    def partitions(self) -> Sequence[int]:
        return self._inner.partitions

    @property
    def ends(self) -> Mapping[int, int] | None:
        return self._inner.ends

    @property
    def finished(self) -> set[int]:
        return self._inner.finished

    @property
    def positions(self) -> Mapping[int, int]:
        return self._inner.positions

    def poll(self, limit: int, timeout: timedelta, order: Sequence[int]) -> list[Chunk]:
        order = self._chance.sample(list(order), len(order))
        return self._inner.poll(self._chance.randint(1, limit), timeout, order)

    def close(self) -> None:
        self._inner.close()


def table(events: list[Event]) -> pa.Table:
    """Events as read_topic gives them."""
    offsets: dict[int, int] = {}
    rows = []
    for partition, at, key, x, i in events:
        offset = offsets.setdefault(partition, 0)
        offsets[partition] += 1
        rows.append({"at": at, "key": key, "x": x, "i": i, "_partition": partition, "_offset": offset})
    schema = pa.schema([*SCHEMA, pa.field("_partition", pa.int32()), pa.field("_offset", pa.int64())])
    return pa.Table.from_pylist(rows, schema)


def stream(name: str) -> ms.Stream:
    return ms.as_stream(SCHEMA.empty_table(), event_time="at", delay=timedelta(microseconds=DELAY), name=name)


def run_anyhow(output: ms.Stream, rows: dict[str, pa.Table], seed: int) -> list[dict[str, object]]:
    """The output's rows under a batching, an interleaving and a pace that `seed` draws."""
    chance = random.Random(seed)
    found: list[dict[str, object]] = []
    graph = Graph([output.plan], lambda _, batch: found.extend(batch.to_pylist()))
    intakes = [
        Intake(source, AnyOrder(replay(rows[source.name], SCHEMA, None), chance))
        for source in sources(output.plan)
    ]
    while left := [intake for intake in intakes if not intake.finished]:
        chance.choice(left).poll(graph, 7, timedelta(0))
        if chance.random() < 0.7:
            for intake in intakes:
                intake.tell_watermark(graph)
    for intake in intakes:
        intake.tell_watermark(graph)
        counts = intake.counts
        assert counts.rows_in == counts.used + counts.late + counts.filtered == len(rows[intake.source.name])
    return found


def split(events: list[Event]) -> tuple[list[tuple[int, int, int, Event]], list[Event]]:
    """(time, partition, offset, event) of the rows on time, sorted; and the late rows."""
    highest: dict[int, int] = {}
    offsets: dict[int, int] = {}
    on_time, late = [], []
    for event in events:
        partition, at = event[:2]
        offset = offsets.get(partition, 0)
        offsets[partition] = offset + 1
        highest[partition] = max(at, highest.get(partition, at))
        if at < highest[partition] - DELAY:
            late.append(event)
        else:
            on_time.append((at, partition, offset, event))
    return sorted(on_time, key=lambda row: row[:3]), late


def folded(events: list[Event]) -> dict[str, object]:
    """The aggregates of some events, each by Python's own function."""
    x = [e[3] for e in events if e[3] is not None]
    i = [e[4] for e in events if e[4] is not None]
    return {
        "n": len(events),
        "total": math.fsum(x) if x else None,
        "whole": sum(i) if i else None,
        "mean": math.fsum(x) / len(x) if x else None,
        "low": min(x, default=None),
        "high": max(i, default=None),
    }


@pytest.fixture(autouse=True)
def forget_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows out of reach leave at every watermark, not only once there are many."""
    monkeypatch.setattr("millstream.stream.operators.keyed_rows.EVICT_ABOVE", 0)


AGGREGATES = {
    "n": ms.count(),
    "total": ms.sum("x"),
    "whole": ms.sum("i"),
    "mean": ms.mean("x"),
    "low": ms.min("x"),
    "high": ms.max("i"),
}


def assert_same(found: list[dict[str, object]], expected: list[dict[str, object]]) -> None:
    assert len(found) == len(expected)
    for got, wanted in zip(found, expected, strict=True):
        assert list(got) == list(wanted)
        for name, value in wanted.items():
            if name in ("total", "mean") and value is not None:
                scale = max(
                    abs(value), 1.0
                )  # values reach 1e6: sums that cancel to nothing are held to 1e-9 absolute
                assert abs(got[name] - value) <= 1e-9 * scale, (name, got, wanted)
            else:
                assert got[name] == value, (name, got, wanted)


EVENTS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.integers(-10, 40),
        st.sampled_from(["a", "b", None]),
        st.none() | st.floats(-1e6, 1e6, allow_subnormal=False),
        st.none() | st.integers(-(10**12), 10**12),
    ),
    min_size=1,
    max_size=50,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(left=EVENTS, right=EVENTS, seed=st.integers(0, 2**32))
def test_lookback(left: list[Event], right: list[Event], seed: int) -> None:
    plan = (
        stream("left")
        .select("at", "key")
        .lookback(stream("right"), on="key", over=timedelta(microseconds=OVER), **AGGREGATES)
    )
    known, _ = split(right)
    expected = []
    for at, _, _, event in split(left)[0]:
        near = [e for t, _, _, e in known if at - OVER < t <= at and e[2] == event[2] and e[2] is not None]
        expected.append({"at": at, "key": event[2], **folded(near)})
    assert_same(run_anyhow(plan, {"left": table(left), "right": table(right)}, seed), expected)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(left=EVENTS, right=EVENTS, seed=st.integers(0, 2**32), within=st.none() | st.integers(1, 15))
def test_latest(left: list[Event], right: list[Event], seed: int, within: int | None) -> None:
    span = None if within is None else timedelta(microseconds=within)
    plan = (
        stream("left").select("at", "key").latest(stream("right"), on="key", within=span, columns=["x", "i"])
    )
    known, _ = split(right)
    expected = []
    for at, _, _, event in split(left)[0]:
        seen = [e for t, _, _, e in known if t <= at and e[2] == event[2] and e[2] is not None]
        seen = [e for e in seen if within is None or e[1] > at - within]
        x, i = seen[-1][3:] if seen else (None, None)
        expected.append({"at": at, "key": event[2], "x": x, "i": i})
    assert_same(run_anyhow(plan, {"left": table(left), "right": table(right)}, seed), expected)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=EVENTS, seed=st.integers(0, 2**32))
def test_tumbling_windows(events: list[Event], seed: int) -> None:
    size = 7
    plan = (
        stream("left").key_by("key").window(ms.Tumbling(timedelta(microseconds=size))).aggregate(**AGGREGATES)
    )
    panes: dict[tuple[int, str | None], list[Event]] = {}
    for at, _, _, event in split(events)[0]:
        panes.setdefault((at // size, event[2]), []).append(event)
    expected = [
        {"key": key, "window_start": w * size, "window_end": (w + 1) * size, **folded(rows)}
        for (w, key), rows in sorted(panes.items(), key=lambda p: (p[0][0], p[0][1] is None, p[0][1] or ""))
    ]
    assert_same(run_anyhow(plan, {"left": table(events)}, seed), expected)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=EVENTS, seed=st.integers(0, 2**32))
def test_late_rows(events: list[Event], seed: int) -> None:
    found = run_anyhow(stream("left").late, {"left": table(events)}, seed)
    rows = [tuple(row.values()) for row in found]
    assert sorted(map(repr, rows)) == sorted(repr(e[1:]) for e in split(events)[1])


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=EVENTS, seed=st.integers(0, 2**32))
def test_joins_in_a_chain_over_one_source(events: list[Event], seed: int) -> None:
    """A stream that looks back at itself twice: shared source, one watermark, one order."""
    left = stream("left")
    plan = left.lookback(left, on="key", over=timedelta(microseconds=OVER), n=ms.count()).lookback(
        left, on="key", over=timedelta(microseconds=2 * OVER), m=ms.max("i")
    )
    known = split(events)[0]
    expected = []
    for at, _, _, event in known:
        mine = [(t, e) for t, _, _, e in known if e[2] == event[2] and e[2] is not None and t <= at]
        wide = [e[4] for t, e in mine if t > at - 2 * OVER and e[4] is not None]
        row = dict(zip(SCHEMA.names, event[1:], strict=True))
        expected.append(row | {"n": sum(t > at - OVER for t, _ in mine), "m": max(wide, default=None)})
    assert run_anyhow(plan, {"left": table(events)}, seed) == expected


def test_equal_rows_give_equal_bits_of_a_lookback_however_they_come() -> None:
    rng = np.random.default_rng(5)
    events: list[Event] = [
        (int(p), int(at), "a", float(x), None)
        for p, at, x in zip(
            rng.integers(0, 3, 300), np.sort(rng.integers(0, 900, 300)), rng.normal(0, 1e6, 300), strict=True
        )
    ]
    left, right = stream("left"), stream("right")
    plan = left.lookback(right, on="key", over=timedelta(microseconds=200), s=ms.sum("x"), m=ms.mean("x"))
    rows = {"left": table(events[::7]), "right": table(events)}
    first = run_anyhow(plan, rows, 0)
    assert all(run_anyhow(plan, rows, seed) == first for seed in range(1, 6))
