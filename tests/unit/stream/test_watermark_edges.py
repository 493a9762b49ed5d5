"""A row exactly at the watermark is still to come: nothing may be concluded for that moment yet."""

from datetime import timedelta

import numpy as np
import pyarrow as pa

import millstream.stream as ms
from millstream.stream.event_time import MAX_TIME
from millstream.stream.frame import Batch
from millstream.stream.graph import Graph

US = timedelta(microseconds=1)
ROWS = pa.table({"at": pa.array([], pa.int64()), "key": pa.array([], pa.string())})
LEFT = ms.as_stream(ROWS, event_time="at", delay=5 * US, name="left")
RIGHT = ms.as_stream(ROWS, event_time="at", delay=5 * US, name="right")


class Bench:
    """A graph whose frames the test hands in."""

    def __init__(self, output: ms.Stream) -> None:
        self.out: list[dict[str, object]] = []
        self._graph = Graph([output.plan], lambda _, rows: self.out.extend(rows.to_pylist()))
        self._offset = 0

    def row(self, stream: ms.Stream, at: int) -> None:
        rows = pa.RecordBatch.from_pylist([{"at": at, "key": "a"}], ROWS.schema)
        one = np.ones(1, np.int64)
        self._graph.push(stream.plan, Batch(rows, one * at, np.zeros(1, np.int32), one * self._offset))
        self._offset += 1

    def watermark(self, stream: ms.Stream, time: int) -> None:
        self._graph.watermark(stream.plan, time)


def test_a_lookback_waits_for_the_watermark_to_pass() -> None:
    bench = Bench(LEFT.lookback(RIGHT, on="key", over=5 * US, n=ms.count()))
    bench.row(LEFT, 10)
    bench.watermark(LEFT, MAX_TIME)
    bench.watermark(RIGHT, 10)
    assert bench.out == []
    bench.row(RIGHT, 10)
    bench.watermark(RIGHT, 11)
    assert bench.out == [{"at": 10, "key": "a", "n": 1}]


def test_a_window_waits_for_the_watermark_to_reach_its_end() -> None:
    bench = Bench(LEFT.window(ms.Tumbling(10 * US)).aggregate(n=ms.count()))
    bench.row(LEFT, 9)
    bench.watermark(LEFT, 9)
    assert bench.out == []
    bench.row(LEFT, 9)
    bench.watermark(LEFT, 10)
    assert bench.out == [{"window_start": 0, "window_end": 10, "n": 2}]


def test_the_slower_input_decides() -> None:
    bench = Bench(LEFT.lookback(RIGHT, on="key", over=5 * US, n=ms.count()))
    bench.row(LEFT, 10)
    bench.watermark(RIGHT, MAX_TIME)
    assert bench.out == []
    bench.watermark(LEFT, 11)
    assert [row["n"] for row in bench.out] == [0]
