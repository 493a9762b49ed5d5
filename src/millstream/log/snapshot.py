"""A topic as a dataset: `read_topic` reads a snapshot by offsets.

Of an embedded log the segment files are mapped and read directly, up to the high watermark that the broker tells;
a cluster is read through a consumer into a temporary file first. A part is `PART_ROWS` consecutive offsets of one
partition, so the parts depend on the records alone, not on how producers happened to batch them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from millstream.data import Dataset, Part, Schema
from millstream.errors import InputError, LogError
from millstream.log.segment_reader import PartitionFiles, RecordColumns
from millstream.log.spool import spool
from millstream.log.store import partition_directory
from millstream.log.topic import Topic
from millstream.log.unreadable import named

__all__ = ["POSITION_COLUMNS", "Snapshot", "read_topic"]

PART_ROWS = 32_768

POSITION_COLUMNS = (
    pa.field("_partition", pa.int32()),
    pa.field("_offset", pa.int64()),
    pa.field("_timestamp", pa.timestamp("us", "UTC")),
)


class Snapshot(Dataset):
    """What `read_topic` gives: a dataset that knows the name of its topic. Datasets made from it don't."""

    def __init__(
        self, topic: str, schema: Schema, parts: Sequence[Part] | Callable[[], Sequence[Part]]
    ) -> None:
        super().__init__(schema, parts)
        self.topic = topic


def read_topic(
    topic: Topic,
    offsets: Mapping[int, tuple[int, int]] | None = None,
    *,
    features: Sequence[str] | None = None,
    target: str | None = None,
    weight: str | None = None,
) -> Snapshot:
    """A snapshot of `topic`: the topic's columns, then where each row stood.

    `offsets` are {partition: (first, after the last)}; None is everything durable at the time of the call. The added
    columns are ``_partition`` (int32), ``_offset`` (int64) and ``_timestamp`` (timestamp[us, UTC]), of no role in
    learning; `features` defaults to the topic's columns but target and weight. Rows come by partition, then offset.
    Every partition asked for has at least one part, maybe an empty one.

    Raises `InputError` for offsets outside the topic and, while reading, `SchemaError` for a record that the schema
    doesn't read and `CorruptBatch` for a damaged file.

    >>> import pyarrow as pa, tempfile
    >>> from millstream.log import Log
    >>> with tempfile.TemporaryDirectory() as directory, Log(directory) as log:
    ...     topic = log.create_topic("rides", schema=pa.schema([("fare", pa.float64())]))
    ...     topic.append(pa.table({"fare": [5.0, 7.5]}))
    ...     read_topic(topic).select(["fare", "_partition", "_offset"]).to_table().to_pylist()
    2
    [{'fare': 5.0, '_partition': 0, '_offset': 0}, {'fare': 7.5, '_partition': 0, '_offset': 1}]
    """
    ranges = _checked(topic, offsets)
    arrow = pa.schema([*topic.schema, *POSITION_COLUMNS])
    chosen = (
        [n for n in topic.schema.names if n not in (target, weight)] if features is None else list(features)
    )
    schema = Schema.of(arrow, features=chosen, target=target, weight=weight)
    if topic.log.directory is None:
        return Snapshot(topic.name, schema, spool(topic, ranges, schema, PART_ROWS))
    parts: list[Part] = []
    first_row = 0
    for number, (start, end) in ranges.items():
        files = PartitionFiles(partition_directory(topic.log.directory, topic.name, number), start, end)
        for low, high in _pieces(start, end):
            parts.append(
                Part(len(parts), first_row, high - low, schema, OffsetRange(topic, files, number, low, high))
            )
            first_row += high - low
    return Snapshot(topic.name, schema, parts)


def _checked(topic: Topic, offsets: Mapping[int, tuple[int, int]] | None) -> dict[int, tuple[int, int]]:
    ends = topic.end_offsets()
    if offsets is None:
        return {number: (0, end) for number, end in enumerate(ends)}
    for number, (start, end) in offsets.items():
        if not (0 <= number < len(ends) and 0 <= start <= end <= ends[number]):
            limits = {n: (0, e) for n, e in enumerate(ends)}
            raise InputError(
                f"topic {topic.name!r}: offsets {start} to {end} of partition {number}; there are {limits}"
            )
    return dict(sorted(offsets.items()))


def _pieces(start: int, end: int) -> Iterator[tuple[int, int]]:
    low = start
    while low < end or low == start:
        high = min(end, (low // PART_ROWS + 1) * PART_ROWS)
        yield low, high
        if high == low:
            return
        low = high


@dataclass(frozen=True)
class OffsetRange:
    """Reads the rows of [low, high) of one partition; safe to call from several threads."""

    topic: Topic
    files: PartitionFiles
    partition: int
    low: int
    high: int

    def _decode(self, records: RecordColumns, part: slice) -> pa.RecordBatch:
        return records.part(part).decode(self.topic.schema, self.topic.format)

    def __call__(self, columns: Sequence[str], /) -> Iterator[pa.RecordBatch]:
        rows = 0
        for records in self.files.records(self.low, self.high):
            decoded = named(self.topic.name, self.partition, records.offsets, partial(self._decode, records))
            count = len(records.offsets)
            rows += count
            position = [
                pa.array(np.full(count, self.partition, np.int32)),
                pa.array(records.offsets),
                pa.array(records.timestamps * 1000).cast(POSITION_COLUMNS[2].type),
            ]
            arrays = dict(
                zip(
                    [*decoded.schema.names, *(f.name for f in POSITION_COLUMNS)],
                    [*decoded.columns, *position],
                    strict=True,
                )
            )
            yield pa.RecordBatch.from_pydict({name: arrays[name] for name in columns})
        if rows != self.high - self.low:
            raise LogError(
                f"topic {self.topic.name!r} partition {self.partition}: {rows} rows in {self.low} to {self.high}; "
                "was the topic deleted or truncated while it was read?"
            )
