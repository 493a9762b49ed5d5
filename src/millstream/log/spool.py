"""A snapshot of a topic in a cluster: read once through a consumer, kept in a temporary Arrow file by part."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from millstream.data import Part, Schema
from millstream.errors import LogError
from millstream.log.consumer import Chunk
from millstream.log.topic import Topic

__all__ = ["spool"]

_POLL_ROWS = 16_384
_QUIET = timedelta(seconds=30)


@dataclass(frozen=True)
class SpooledRows:
    """Rows of one file; the directory goes when the last of its parts does."""

    path: Path
    directory: tempfile.TemporaryDirectory[str]

    def __call__(self, columns: Sequence[str], /) -> Iterator[pa.RecordBatch]:
        with pa.memory_map(str(self.path)) as file:
            reader = pa.ipc.open_file(file)
            for i in range(reader.num_record_batches):
                yield reader.get_batch(i).select(list(columns))


def spool(topic: Topic, ranges: dict[int, tuple[int, int]], schema: Schema, part_rows: int) -> list[Part]:
    """Parts that hold the records of `ranges`; a part is `part_rows` consecutive offsets, fewer rows where the
    cluster has gaps. Raises `LogError` when the end of a range isn't reached."""
    directory = tempfile.TemporaryDirectory(prefix="millstream-snapshot-")
    parts: list[Part] = []
    first_row = 0
    for number, (start, end) in ranges.items():
        pieces = _pieces(topic, number, start, end, part_rows) if start < end else iter([[]])
        for piece in pieces:
            path = Path(directory.name) / f"{len(parts)}.arrow"
            rows = sum(batch.num_rows for batch in piece)
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema.arrow) as writer:
                for batch in piece:
                    writer.write_batch(batch)
            parts.append(Part(len(parts), first_row, rows, schema, SpooledRows(path, directory)))
            first_row += rows
    return parts


def _pieces(
    topic: Topic, number: int, start: int, end: int, part_rows: int
) -> Iterator[list[pa.RecordBatch]]:
    piece: list[pa.RecordBatch] = []
    border = (start // part_rows + 1) * part_rows
    for batch in _batches(topic, number, start, end):
        while batch.num_rows:
            offsets = batch["_offset"].to_numpy()
            inside = int(np.searchsorted(offsets, border))
            piece.append(batch.slice(0, inside))
            batch = batch.slice(inside)
            if batch.num_rows:
                yield piece
                piece, border = [], (int(offsets[inside]) // part_rows + 1) * part_rows
    yield piece


def _batches(topic: Topic, number: int, start: int, end: int) -> Iterator[pa.RecordBatch]:
    at = start
    with topic.consumer({number: start}) as consumer:
        while at < end:
            chunks = consumer.poll(_POLL_ROWS, _QUIET)
            if not chunks:
                raise LogError(
                    f"{topic.name!r} partition {number}: nothing after offset {at} within {_QUIET}, expected {end}"
                )
            for chunk in chunks:
                at = int(chunk.offsets[-1]) + 1
                yield _rows(chunk).slice(0, int(np.searchsorted(chunk.offsets, end)))


def _rows(chunk: Chunk) -> pa.RecordBatch:
    count = len(chunk.offsets)
    position = {
        "_partition": pa.array(np.full(count, chunk.partition, np.int32)),
        "_offset": pa.array(chunk.offsets),
        "_timestamp": pa.array(chunk.timestamps).cast(pa.timestamp("us", "UTC")),
    }
    names = [*chunk.batch.schema.names, *position]
    return pa.RecordBatch.from_arrays([*chunk.batch.columns, *position.values()], names=names)
