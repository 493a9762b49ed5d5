"""The laws of `Operator`, for every operator of the table `OPERATORS`; and that each law can be broken."""

from collections.abc import Iterable
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import millstream.stream as ms
from millstream.stream import plan
from millstream.stream.event_time import MAX_TIME
from millstream.stream.frame import Batch, Frame, Watermark
from millstream.stream.operators import OPERATORS, Operator, Snapshot

SCHEMA = pa.schema([("at", pa.int64()), ("key", pa.string()), ("x", pa.float64()), ("day", pa.date32())])
LEFT = ms.as_stream(SCHEMA.empty_table(), event_time="at", delay=timedelta(microseconds=30), name="left")
RIGHT = ms.as_stream(SCHEMA.empty_table(), event_time="at", delay=timedelta(microseconds=30), name="right")
US = timedelta(microseconds=1)


class Doubling:
    version = "1"

    def output_schema(self, schema: pa.Schema) -> pa.Schema:
        return schema.append(pa.field("twice", pa.float64()))

    def predict(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return batch.append_column("twice", pc.multiply(batch.column("x"), 2.0))

    def refresh(self) -> None:
        pass


def rounded(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.set_column(2, SCHEMA.field("x"), pc.round(batch.column("x")))


AGGREGATES = {
    "n": ms.count(),
    "s": ms.sum("x"),
    "m": ms.mean("x"),
    "first": ms.min("day"),
    "last": ms.max("at"),
    "whole": ms.sum("at"),
}
EXAMPLES = [
    LEFT.filter(lambda rows: pc.greater(rows.column("x"), 0.0)),
    LEFT.select("x", "key"),
    LEFT.map_batches(rounded, SCHEMA),
    LEFT.predict(Doubling()),
    LEFT.key_by("key", "day").window(ms.Tumbling(50 * US)).aggregate(**AGGREGATES),
    LEFT.lookback(RIGHT, on=("key", "day"), over=70 * US, **AGGREGATES),
    LEFT.select("at", "key").latest(RIGHT, on="key", within=90 * US, columns=["x", "day"]),
]
NODES = {type(example.plan): example.plan for example in EXAMPLES}


def test_every_operator_has_an_example() -> None:
    assert set(NODES) == set(OPERATORS)


def frames(ports: int, seed: int) -> list[tuple[int, Frame]]:
    """Rows for each port in batches of one, with watermarks that keep their promise."""
    rng = np.random.default_rng(seed)
    result: list[tuple[int, Frame]] = []
    for offset in range(120):
        for port in range(ports):
            at = 4 * offset + int(rng.integers(0, 30))
            row = {
                "at": at,
                "key": "abc"[rng.integers(3)],
                "x": float(rng.normal(0, 1e3)),
                "day": int(rng.integers(2)),
            }
            rows = pa.RecordBatch.from_pylist([row], SCHEMA)
            one = np.ones(1, np.int64)
            result.append((port, Batch(rows, one * at, np.zeros(1, np.int32), one * offset, one * 0)))
            if rng.random() < 0.2:
                result.append((port, Watermark(4 * offset + 4)))
    return result + [(port, Watermark(MAX_TIME)) for port in range(ports)]


def shaped(node: plan.Node, port: int, frame: Frame) -> Frame:
    """The frame with the columns of the node's input."""
    if isinstance(frame, Watermark):
        return frame
    return frame.with_rows(frame.rows.select(node.inputs[port].schema.names))


def merged(stream: list[tuple[int, Frame]]) -> list[tuple[int, Frame]]:
    """The same rows in batches as large as the watermarks allow."""
    result: list[tuple[int, Frame]] = []
    waiting: dict[int, list[Batch]] = {}
    for port, frame in stream:
        if isinstance(frame, Batch):
            waiting.setdefault(port, []).append(frame)
            continue
        result += [(p, Batch.concat(batches)) for p, batches in waiting.items()]
        waiting = {}
        result.append((port, frame))
    return result


def give(operator: Operator, node: plan.Node, stream: Iterable[tuple[int, Frame]]) -> list[Frame]:
    out: list[Frame] = []
    for port, frame in stream:
        frame = shaped(node, port, frame)
        out += (
            operator.watermark(port, frame) if isinstance(frame, Watermark) else operator.batch(port, frame)
        )
    return out


def rows(out: list[Frame]) -> list[tuple[object, ...]]:
    found = []
    for frame in out:
        if isinstance(frame, Batch):
            origin = zip(frame.time.tolist(), frame.partition.tolist(), frame.offset.tolist(), strict=True)
            found += [(*o, *r.values()) for o, r in zip(origin, frame.rows.to_pylist(), strict=True)]
    return found


def batching_does_not_matter(make: type[Operator], node: plan.Node) -> bool:
    stream = frames(len(node.inputs), seed=3)
    return rows(give(make(node), node, stream)) == rows(give(make(node), node, merged(stream)))


def restore_goes_on(make: type[Operator], node: plan.Node) -> bool:
    stream = frames(len(node.inputs), seed=4)
    whole = rows(give(make(node), node, stream))
    for cut in (0, 1, 77, 160, len(stream)):
        before = make(node)
        out = give(before, node, stream[:cut])
        snapshot = {
            name: pa.Table.from_batches(t.to_batches(), t.schema) for name, t in before.snapshot().items()
        }
        give(before, node, stream[cut : cut + 9])  # what comes after a snapshot must not reach into it
        after = make(node)
        after.restore(snapshot)
        told = [(port, frame) for port, frame in stream[:cut] if isinstance(frame, Watermark)]
        out += give(after, node, told) + give(after, node, stream[cut:])
        if rows(out) != whole:
            return False
    return True


def watermarks_hold(make: type[Operator], node: plan.Node) -> bool:
    told = -1
    for frame in give(make(node), node, frames(len(node.inputs), seed=5)):
        if isinstance(frame, Watermark):
            if frame.time < told:
                return False
            told = frame.time
        elif (frame.time < told).any():
            return False
    return told == MAX_TIME


LAWS = [batching_does_not_matter, restore_goes_on, watermarks_hold]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("node", NODES.values(), ids=lambda node: type(node).__name__)
def test_law(law, node) -> None:
    assert law(OPERATORS[type(node)], node)


class Impostor(Operator):
    """Breaks every law: counts batches, forgets, and lets a watermark overtake its rows."""

    def __init__(self, node: plan.Node) -> None:
        self._batches = 0
        self._held: list[Batch] = []

    def batch(self, port: int, batch: Batch) -> Iterable[Frame]:
        self._batches += 1
        column = pa.array(np.full(len(batch), self._batches))
        self._held.append(batch.with_rows(pa.RecordBatch.from_arrays([column], names=["batches"])))
        return ()

    def watermark(self, port: int, watermark: Watermark) -> Iterable[Frame]:
        held, self._held = self._held, []
        return (watermark, *held)

    def restore(self, snapshot: Snapshot) -> None:
        self._held = []


@pytest.mark.parametrize("law", LAWS)
def test_law_rejects_an_impostor(law) -> None:
    assert not law(Impostor, LEFT.select("x").plan)
