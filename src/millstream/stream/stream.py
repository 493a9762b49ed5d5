"""The stream as a user writes it: `as_stream`, and methods that add a node to the plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pyarrow as pa

from millstream.clock import microseconds
from millstream.data import Dataset
from millstream.errors import PlanError
from millstream.log import Topic
from millstream.log.one_text_type import ArrowStream, as_table, plain_schema, plain_table
from millstream.log.snapshot import Snapshot
from millstream.stream import plan as nodes
from millstream.stream.aggregates import Aggregate
from millstream.stream.collect import collect
from millstream.stream.plan import Mask, Node, Rowwise, Source, positive
from millstream.stream.predictor import Predictor
from millstream.stream.sources.binding import Binding, ReplayBinding, TableBinding
from millstream.stream.sources.topic import TopicBinding
from millstream.stream.windows import Tumbling

__all__ = ["KeyedStream", "Output", "Stream", "WindowedStream", "as_stream"]

REPLAY_COLUMNS = ("_partition", "_offset", "_timestamp")
"""What `read_topic` adds: the replay uses it and hides it, so live and replayed rows have one schema."""


def as_stream(
    source: Topic | Dataset | pa.Table | pa.RecordBatch | ArrowStream,
    *,
    event_time: str,
    delay: timedelta | None = None,
    name: str | None = None,
    bounded: bool | None = None,
    idle: timedelta | None = None,
) -> Stream:
    """Rows in event time.

    source: a Topic, read as its records come; a Dataset of ``read_topic``, replayed with the partition and offset of
    every row; a ``pa.Table``, or a pandas DataFrame.
    event_time: the column that says when, a timestamp or int64 microseconds since 1970-01-01 UTC.
    delay: how far a row may lie behind the latest one of its partition and still be on time. A table without one is
    taken in event-time order and nothing in it is late; the rows of a topic need one.
    name: what reports, checkpoints and plans call the source; if left out the topic's own, for its replay too, and
    else "table", so of several tables in one plan all but one need a name.
    bounded: True stops a topic at the end it has when the job first starts; a restart keeps that end until the job has
    reached it, and then goes on to the end of its own time (see `run`).
    idle: a partition of a live topic that shows nothing for so long holds no window up any more. When rows come back in
    it, those behind what has been concluded without it are late, so live and replay may then differ; None waits.

    >>> from millstream.stream import mean
    >>> readings = pa.table({"at": [0, 1_000_000, 61_000_000], "room": ["hall"] * 3, "temp": [20.0, 22.0, 25.0]})
    >>> stream = as_stream(readings, event_time="at")
    >>> minute = Tumbling(timedelta(minutes=1))
    >>> stream.key_by("room").window(minute).aggregate(temp=mean("temp")).collect().to_pylist()
    [{'room': 'hall', 'window_start': 0, 'window_end': 60000000, 'temp': 21.0},
     {'room': 'hall', 'window_start': 60000000, 'window_end': 120000000, 'temp': 25.0}]
    """
    if delay is not None and not isinstance(delay, timedelta):
        raise PlanError(f"as_stream: delay={delay!r}; expected a timedelta, such as timedelta(seconds=5)")
    late_after = None if delay is None else microseconds(delay)
    schema, binding = _bound(source, bounded, idle)
    if late_after is None and not isinstance(binding, TableBinding):
        raise PlanError(
            "as_stream: the rows of a topic need delay=, the disorder to allow; timedelta(0) allows none"
        )
    if bounded is False and binding.bounded:
        raise PlanError(
            f"as_stream: bounded=False, but a {type(source).__name__} has an end; leave bounded out"
        )
    if idle is not None:
        positive(idle, "idle")
        if binding.bounded:
            raise PlanError("as_stream: idle= is for live topics; a source with an end waits for its rows")
    node = Source(name or _own_name(source), _plain(schema), event_time, late_after)
    return Stream(node, {node: binding})


def _own_name(source: object) -> str:
    """A topic and its replay bear one name, so that their plans are equal."""
    if isinstance(source, Topic):
        return source.name
    return source.topic if isinstance(source, Snapshot) else "table"


def _plain(schema: pa.Schema) -> pa.Schema:
    """Names and types alone, so that a live topic, its replay and a table of the same columns have one schema."""
    return pa.schema([pa.field(field.name, field.type) for field in schema])


def _bound(source: object, bounded: bool | None, idle: timedelta | None) -> tuple[pa.Schema, Binding]:
    """The columns of a source as a user sees them, and what opens it."""
    if isinstance(source, Topic):
        return source.schema, TopicBinding(source, bool(bounded), idle)
    if isinstance(source, pa.Table | pa.RecordBatch) or hasattr(source, "__arrow_c_stream__"):
        table = plain_table(as_table(source, "as_stream takes a table"))
        return table.schema, TableBinding(table, source)
    if isinstance(source, Dataset):
        schema: pa.Schema = source.schema.arrow
        if "_partition" in schema.names and "_offset" in schema.names:
            visible = [field for field in schema if field.name not in REPLAY_COLUMNS]
            return pa.schema(visible), ReplayBinding(source)
        table = plain_table(source.to_table())
        return table.schema, TableBinding(table, source)
    raise PlanError(
        f"as_stream: a {type(source).__name__} is no source; expected a Topic, a Dataset, a pa.Table or a data "
        "frame; hand in rows as pa.table(...), or a topic as log[name]"
    )


@dataclass(frozen=True)
class Stream:
    """A plan and where its rows come from. Methods give a new stream and never change this one."""

    plan: Node
    bindings: Mapping[Source, Binding]

    @property
    def schema(self) -> pa.Schema:
        """The columns of the stream's rows."""
        return self.plan.schema

    @property
    def late(self) -> Stream:
        """The late rows of the stream's own source, the left one where streams met; with that source's columns."""
        source = self._source
        return Stream(nodes.Late(source), {source: self.bindings[source]})

    @property
    def _source(self) -> Source:
        """The source at the far left of the plan."""
        node = self.plan
        while not isinstance(node, Source):
            node = node.inputs[0]
        return node

    def filter(self, predicate: Mask) -> Stream:
        """The rows for which `predicate(batch)`, a Boolean array of the batch's length, is true; null is false."""
        return self._then(nodes.Filter(self.plan, predicate))

    def map_batches(self, function: Rowwise, schema: pa.Schema) -> Stream:
        """Each batch replaced by `function(batch)`: as many rows, in their order, in `schema`.

        Text in any layout of Arrow's (large, view, dictionary) goes on as strings.
        """
        return self._then(nodes.MapBatches(self.plan, function, plain_schema(schema)))

    def select(self, *columns: str) -> Stream:
        """These columns, in this order. Rows keep their event time even where its column goes."""
        return self._then(nodes.Select(self.plan, columns))

    def predict(self, predictor: Predictor) -> Stream:
        """The rows with a model's predictions beside them."""
        return self._then(nodes.Predict(self.plan, predictor))

    def key_by(self, *columns: str) -> KeyedStream:
        """The stream by key: what follows happens for each key on its own. A null is a key like any other."""
        return KeyedStream(self, columns)

    def window(self, window: Tumbling) -> WindowedStream:
        """Windows over all rows, without a key."""
        return KeyedStream(self, ()).window(window)

    def lookback(
        self, other: Stream, *, on: str | Sequence[str], over: timedelta, **aggregates: Aggregate
    ) -> Stream:
        """Aggregates of `other`'s rows with the same key and t - over < time <= t, for each row at t.

        Counts are 0 and the rest null where there are none; a key that holds a null matches nothing. Direct sums: the
        cost is in proportion to the rows within `over`, and equal rows give equal bits, whatever the batching.

        >>> from millstream.stream import count, mean
        >>> gone = pa.table({"at": [10, 20, 70], "origin": ["JFK"] * 3, "delay": [4.0, 8.0, 60.0]})
        >>> plans = pa.table({"at": [9, 69], "origin": ["JFK"] * 2})
        >>> departures = as_stream(gone, event_time="at", name="departures")
        >>> rows = as_stream(plans, event_time="at", name="plans").lookback(
        ...     departures, on="origin", over=timedelta(microseconds=55), n=count(), delay=mean("delay")
        ... )
        >>> rows.collect().to_pylist()
        [{'at': 9, 'origin': 'JFK', 'n': 0, 'delay': None}, {'at': 69, 'origin': 'JFK', 'n': 1, 'delay': 8.0}]
        """
        node = nodes.Lookback(
            self.plan, other.plan, _keys(on), positive(over, "over"), tuple(aggregates.items())
        )
        return self._then(node, other)

    def latest(
        self,
        other: Stream,
        *,
        on: str | Sequence[str],
        within: timedelta | None = None,
        columns: Sequence[str] | None = None,
    ) -> Stream:
        """`columns` of `other`'s last row with the same key and time <= t (and > t - within), for each row at t.

        Last means the greatest (time, partition, offset). Columns are null where there is no such row. Without
        `columns` all but the key and the source's event time are taken.

        >>> hourly = pa.table({"at": [0, 60], "origin": ["JFK"] * 2, "wind": [12.0, 30.0]})
        >>> plans = pa.table({"at": [59, 60], "origin": ["JFK"] * 2})
        >>> weather = as_stream(hourly, event_time="at", name="weather")
        >>> rows = as_stream(plans, event_time="at", name="plans").latest(weather, on="origin")
        >>> rows.collect()["wind"].to_pylist()
        [12.0, 30.0]
        """
        keys = _keys(on)
        if columns is None:
            own_times = {source.event_time for source in nodes.sources(other.plan)}
            columns = [name for name in other.schema.names if name not in keys and name not in own_times]
        span = None if within is None else positive(within, "within")
        return self._then(nodes.Latest(self.plan, other.plan, keys, tuple(columns), span), other)

    def to(self, sink: Topic | str | Path) -> Output:
        """Send the rows on, to a topic or into a directory of Parquet files. Hand the result to `ms.run`."""
        return Output(self, sink)

    def collect(self) -> pa.Table:
        """Run to the end of the sources and return every row; PlanError if a source has no end."""
        return collect(self.plan, self.bindings)

    def _then(self, node: Node, other: Stream | None = None) -> Stream:
        return Stream(node, self.bindings if other is None else merged(self.bindings, other.bindings))


@dataclass(frozen=True)
class KeyedStream:
    """A stream by key."""

    stream: Stream
    keys: tuple[str, ...]

    def window(self, window: Tumbling) -> WindowedStream:
        """Cut each key's rows into windows of event time."""
        return WindowedStream(self, window)


@dataclass(frozen=True)
class WindowedStream:
    """A stream by key and window."""

    keyed: KeyedStream
    windows: Tumbling

    def aggregate(self, **aggregates: Aggregate) -> Stream:
        """One row for each key and window that has rows: the keys, window_start, window_end, and the aggregates.

        A row comes when the watermark reaches its window's end, in the order (window_end, key), with that as its event
        time.
        """
        stream = self.keyed.stream
        source = stream._source
        node = nodes.TumblingAggregate(
            stream.plan,
            self.keyed.keys,
            microseconds(self.windows.size),
            tuple(aggregates.items()),
            source.schema.field(source.event_time).type,
        )
        return stream._then(node)


@dataclass(frozen=True)
class Output:
    """A stream and where its rows go."""

    stream: Stream
    sink: Topic | str | Path


def merged(*several: Mapping[Source, Binding]) -> dict[Source, Binding]:
    """One mapping; PlanError if one name stands for two sources."""
    result: dict[Source, Binding] = {}
    for bindings in several:
        for source, binding in bindings.items():
            twin = next((s for s in result if s.name == source.name), None)
            if twin is not None and (twin != source or result[twin] != binding):
                raise PlanError(
                    f"two sources are called {source.name!r}, with other rows, columns or times; "
                    "pass name= to as_stream"
                )
            result[source] = binding
    return result


def _keys(on: str | Sequence[str]) -> tuple[str, ...]:
    return (on,) if isinstance(on, str) else tuple(on)
