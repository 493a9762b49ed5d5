"""Reading a partition's segment files from outside the broker, mapped, whole batches at a time.

The caller names an end offset that the broker has told to be durable, so nothing is read that could still vanish.
A mapped segment stays readable even if the topic is deleted meanwhile.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.errors import CorruptBatch, LogError, SchemaError
from millstream.kernels.records import BATCH_COLUMNS, batch_spans, join_lines, record_spans
from millstream.log.compression import decompress
from millstream.log.json_format import decode_lines
from millstream.log.record_batch import HEADER_BYTES, check
from millstream.log.segment import segment_paths

__all__ = ["PartitionFiles", "RecordColumns"]

CHUNK_BYTES = 4 << 20
_BATCHES_AT_ONCE = 1024
_NEWLINE = 10
_OPEN_BRACE = ord("{")


class RecordColumns(NamedTuple):
    """Records as columns: `data` holds the keys and values at the given spans.

    All arrays but `data` are (n,) int64; a length of -1 is null; timestamps are in milliseconds since 1970 UTC.
    """

    data: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]
    timestamps: npt.NDArray[np.int64]
    key_starts: npt.NDArray[np.int64]
    key_lengths: npt.NDArray[np.int64]
    value_starts: npt.NDArray[np.int64]
    value_lengths: npt.NDArray[np.int64]

    def part(self, rows: slice) -> RecordColumns:
        """Some of the records, without a copy."""
        return RecordColumns(self.data, *(column[rows] for column in self[1:]))

    def decode(self, schema: pa.Schema, format: str) -> pa.RecordBatch:
        """The rows, in the topic's columns. Raises `SchemaError` for a record that isn't of the format."""
        if format == "bytes":
            columns = [
                self._binary(self.key_starts, self.key_lengths),
                self._binary(self.value_starts, self.value_lengths),
            ]
            return pa.RecordBatch.from_arrays(columns, schema=schema)
        return decode_lines(self._lines(), len(self.offsets), schema)

    def _lines(self) -> pa.Buffer:
        """The values, a line each; a null value (a tombstone) is a row of nulls."""
        starts, lengths = self.value_starts, self.value_lengths
        if (lengths < 0).any():
            spare = len(self.data)
            return RecordColumns(
                np.concatenate([self.data, np.frombuffer(b"{}", np.uint8)]),
                *self[1:5],
                np.where(lengths < 0, spare, starts),
                np.where(lengths < 0, 2, lengths),
            )._lines()
        if (lengths == 0).any() or (self.data[starts] != _OPEN_BRACE).any():
            raise SchemaError("a record's value doesn't start with '{'; expected one JSON object each")
        out, _ = _join(self.data, starts, lengths, _NEWLINE)
        return pa.py_buffer(out)

    def _binary(self, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> pa.Array:
        out, ends = _join(self.data, starts, lengths, -1)
        offsets = np.concatenate([np.zeros(1, np.int64), ends]).astype(np.int32)
        valid = pa.array(lengths >= 0).buffers()[1]
        return pa.Array.from_buffers(
            pa.binary(), len(starts), [valid, pa.py_buffer(offsets), pa.py_buffer(out)]
        )


def _join(
    data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], end_byte: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    size = int(np.maximum(lengths, 0).sum()) + (len(starts) if end_byte >= 0 else 0)
    out, ends = np.empty(size, np.uint8), np.empty(len(starts), np.int64)
    join_lines(data, starts, lengths, end_byte, ends, out)
    return out, ends


class _Mapped(NamedTuple):
    data: npt.NDArray[np.uint8]
    batches: npt.NDArray[np.int64]  # (batches, 8), columns BATCH_COLUMNS


class PartitionFiles:
    """The batches of a partition that hold offsets [start, end), found when constructed and mapped from then on.

    Raises `LogError` when the files don't reach `end`.
    """

    def __init__(self, directory: Path, start: int, end: int) -> None:
        paths = segment_paths(directory)
        bases = [int(path.stem) for path in paths]
        self._segments: list[_Mapped] = []
        for i, path in enumerate(paths):
            ends_at = bases[i + 1] if i + 1 < len(bases) else end + 1
            if bases[i] < end and ends_at > start:
                self._segments.append(_map(path, end))
        reached = max((int(s.batches[-1, 6]) for s in self._segments if len(s.batches)), default=start)
        if reached < end:
            raise LogError(
                f"{directory} holds records up to {reached}, expected {end}; is it the broker's directory?"
            )

    def records(self, low: int, high: int) -> Iterator[RecordColumns]:
        """The records of offsets [low, high), in pieces of about `CHUNK_BYTES`. Raises `CorruptBatch`."""
        for segment in self._segments:
            batches = segment.batches
            first = int(np.searchsorted(batches[:, 6], low, side="right"))
            last = int(np.searchsorted(batches[:, 2], high, side="left"))
            at = first
            while at < last:
                sizes = np.cumsum(batches[at:last, 1])
                until = at + max(1, int(np.searchsorted(sizes, CHUNK_BYTES, side="right")))
                yield from _columns(segment.data, batches[at:until], low, high)
                at = until


def _map(path: Path, end: int) -> _Mapped:
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        if not size:
            return _Mapped(np.empty(0, np.uint8), np.empty((0, len(BATCH_COLUMNS)), np.int64))
        data = np.frombuffer(mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ), np.uint8)
    pieces, at = [], 0
    while True:
        out = np.empty((_BATCHES_AT_ONCE, len(BATCH_COLUMNS)), np.int64)
        found, at = batch_spans(data, at, end, out)
        pieces.append(out[:found])
        if found < len(out):
            return _Mapped(data, np.concatenate(pieces))


def _columns(
    data: npt.NDArray[np.uint8], batches: npt.NDArray[np.int64], low: int, high: int
) -> Iterator[RecordColumns]:
    """Neighbouring uncompressed batches together; each compressed one on its own."""
    plain = batches[:, 5] == 0
    at = 0
    while at < len(batches):
        until = at + 1
        while plain[at] and until < len(batches) and plain[until]:
            until += 1
        yield from _clipped(
            _plain_columns(data, batches[at:until]) if plain[at] else _unpacked(data, batches[at]), low, high
        )
        at = until


def _plain_columns(data: npt.NDArray[np.uint8], batches: npt.NDArray[np.int64]) -> RecordColumns:
    spans = np.empty((int(batches[:, 3].sum()), 6), np.int64)
    row = 0
    for position, size, base, count, base_timestamp, _, _, append_time in batches.tolist():
        check(data[position : position + size].data)
        out = spans[row : row + count]
        start, end = position + HEADER_BYTES, position + size
        if not record_spans(data, start, end, count, base, base_timestamp, append_time, out):
            raise CorruptBatch(
                f"the records of the batch at offset {base} don't fill it; its producer wrote nonsense"
            )
        row += count
    return RecordColumns(data, *np.ascontiguousarray(spans.T))


def _unpacked(data: npt.NDArray[np.uint8], batch: npt.NDArray[np.int64]) -> RecordColumns:
    position, size, base, count, base_timestamp, codec, _, append_time = batch.tolist()
    check(data[position : position + size].data)
    body = np.frombuffer(
        decompress(codec, data[position + HEADER_BYTES : position + size].tobytes()), np.uint8
    )
    spans = np.empty((count, 6), np.int64)
    if not record_spans(body, 0, len(body), count, base, base_timestamp, append_time, spans):
        raise CorruptBatch(
            f"the records of the batch at offset {base} don't fill it; its producer wrote nonsense"
        )
    return RecordColumns(body, *np.ascontiguousarray(spans.T))


def _clipped(records: RecordColumns, low: int, high: int) -> Iterator[RecordColumns]:
    first, last = np.searchsorted(records.offsets, [low, high])
    if first < last:
        yield RecordColumns(records.data, *(column[first:last] for column in records[1:]))
