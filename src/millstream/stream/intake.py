"""One source of a running job: reads, tells late from on time, counts, and feeds the graph."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa

from millstream.clock import Clock, SystemClock
from millstream.errors import SchemaError
from millstream.stream.event_time import MIN_TIME, NoEventTime, SourceClock, to_microseconds
from millstream.stream.frame import Batch
from millstream.stream.graph import Graph
from millstream.stream.plan import Source
from millstream.stream.report import SourceCounts
from millstream.stream.sources.reader import Chunk, Reader

__all__ = ["Intake"]


class Intake:
    """The runtime's end of a source. Rows in = used + late + filtered at every moment."""

    def __init__(
        self,
        source: Source,
        reader: Reader,
        *,
        idle: timedelta | None = None,
        clock: Clock | None = None,
        highest: dict[int, int] | None = None,
        reached: int = MIN_TIME,
        concluded: int = MIN_TIME,
        counts: SourceCounts | None = None,
    ) -> None:
        # configuration
        self.source = source
        self._idle = None if idle is None else idle.total_seconds()
        self._clock = clock or SystemClock()
        # rebuilt on restart
        self.reader = reader
        self._told = MIN_TIME
        self._seen = dict.fromkeys(reader.partitions, self._clock.monotonic())
        # checkpointed
        self.times = SourceClock(reader.partitions, source.delay or 0, highest=highest or {}, reached=reached)
        self.counts = counts or SourceCounts()
        self._concluded = concluded

    @property
    def finished(self) -> bool:
        return self.reader.finished >= set(self.reader.partitions)

    def poll(self, graph: Graph, limit: int, timeout: timedelta) -> int:
        """Take in what has come, at most about `limit` rows; returns how many."""
        order = sorted(self.reader.partitions, key=self.times.partition_watermark)
        chunks = self.reader.poll(limit, timeout, order)
        for chunk in chunks:
            self._take_in(graph, chunk)
            self._seen[chunk.partition] = self._clock.monotonic()
        return sum(len(chunk.offsets) for chunk in chunks)

    def tell_watermark(self, graph: Graph) -> None:
        """Hand the source's watermark to the graph if it has moved."""
        for partition in self.reader.finished:
            self.times.finish(partition)
        if self._idle is not None:
            self._look_for_idle(self._idle)
        self.times.advance()
        if self.times.reached > self._told:
            self._told = self.times.reached
            graph.watermark(self.source, self._told)

    def concluded(self, graph: Graph) -> int:
        """Rows with event time below this would come too late for an operator that waits for the watermark."""
        self._concluded = max(self._concluded, graph.concluded(self.source))
        return self._concluded

    def keep_open(self, graph: Graph) -> None:
        """The job has ended, and a later run may find further rows: late are those behind what the end concluded."""
        self.times.reached = self.concluded(graph)

    def _look_for_idle(self, after: float) -> None:
        """A partition is idle when nothing has come for `after` seconds and nothing waits to be read."""
        now = self._clock.monotonic()
        quiet = {p for p, seen in self._seen.items() if now - seen > after}
        self.times.idle &= quiet
        new = quiet - self.times.idle
        if new:
            idle = new & self.reader.caught_up()
            self.times.idle |= idle
            self._seen |= dict.fromkeys(new - idle, now)

    def _take_in(self, graph: Graph, chunk: Chunk) -> None:
        source = self.source
        try:
            times = to_microseconds(chunk.rows.column(source.event_time), source.event_time)
        except NoEventTime as error:
            where = f"{self.reader.origin}, partition {chunk.partition}, offset {chunk.offsets[error.row]}"
            raise SchemaError(
                f"source {source.name!r}, {where}: {error}; leave such rows out before as_stream (a topic can be "
                "copied without them by read_topic(topic).filter), or name another column as event_time"
            ) from error
        late = self.times.observe(chunk.partition, times)
        batch = _batch(chunk, source.schema, times)
        on_time = batch.keep(~late)
        used = graph.push(source, on_time) if len(on_time) else 0
        if late.any():
            graph.push_late(source, batch.keep(late))
        self.counts = self.counts.plus(rows_in=len(batch), used=used, late=int(late.sum()))


def _batch(chunk: Chunk, schema: pa.Schema, times: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Batch:
    rows = pa.RecordBatch.from_arrays([chunk.rows.column(name) for name in schema.names], schema=schema)
    return Batch(rows, times, np.full(len(times), chunk.partition, np.int32), chunk.offsets)
