"""Parsing Kafka record batches (v2) without an object per record.

`batch_spans` finds the batches in a buffer, `record_spans` the records of uncompressed batches, and `join_lines`
copies chosen spans behind one another. All bounds are checked: a buffer of any bytes gives a status, never a read
outside it. Format: :mod:`millstream.log.record_batch`, which is also the reference these kernels are tested against.
"""

from __future__ import annotations

from typing import TypeAlias

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["BATCH_COLUMNS", "batch_spans", "join_lines", "record_spans"]

Bytes: TypeAlias = npt.NDArray[np.uint8]
Ints: TypeAlias = npt.NDArray[np.int64]

BATCH_COLUMNS = (
    "position",
    "size",
    "base_offset",
    "count",
    "base_timestamp",
    "codec",
    "next_offset",
    "append_time",
)
_HEADER = 61


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _big_endian(data: Bytes, at: int, width: int) -> np.int64:
    value = np.int64(0)
    for i in range(width):
        value = (value << np.int64(8)) | np.int64(data[at + i])
    if width == 4 and value >= np.int64(1) << 31:
        value -= np.int64(1) << 32
    return value


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def batch_spans(data: Bytes, start: int, end_offset: int, out: Ints) -> tuple[int, int]:
    """Headers of the whole batches in ``data[start:]`` that start before `end_offset`.

    `out`: (capacity, 8) int64, filled with a row of `BATCH_COLUMNS` a batch (append_time: the batch's own timestamp
    when the broker stamped it, else -1). Returns (batches found, position after the last): call again from there
    when `out` is full.
    """
    found, at, size = 0, start, len(data)
    while found < len(out) and at + _HEADER <= size:
        length = _big_endian(data, at + 8, 4) + 12
        if length < _HEADER or at + length > size or data[at + 16] != 2:
            break
        base = _big_endian(data, at, 8)
        next_offset = base + _big_endian(data, at + 23, 4) + 1
        if base >= end_offset:
            break
        attributes = np.int64(data[at + 22])
        out[found, 0] = at
        out[found, 1] = length
        out[found, 2] = base
        out[found, 3] = _big_endian(data, at + 57, 4)
        out[found, 4] = _big_endian(data, at + 27, 8)
        out[found, 5] = attributes & 7
        out[found, 6] = next_offset
        out[found, 7] = _big_endian(data, at + 35, 8) if attributes & 8 else -1
        if attributes & 32:  # a control batch holds markers, no rows
            out[found, 3] = 0
        found += 1
        at += length
    return found, at


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _varint(data: Bytes, at: int, end: int) -> tuple[np.int64, int]:
    """(value, position after), position -1 when it runs past `end`."""
    value, shift = np.uint64(0), np.uint64(0)
    while at < end and shift < np.uint64(70):
        byte = np.uint64(data[at])
        at += 1
        value |= (byte & np.uint64(0x7F)) << shift
        if byte < np.uint64(0x80):
            return np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1)), at
        shift += np.uint64(7)
    return np.int64(0), -1


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def record_spans(
    data: Bytes,
    start: int,
    end: int,
    count: int,
    base_offset: int,
    base_timestamp: int,
    append_time: int,
    out: Ints,
) -> bool:
    """The `count` records that fill ``data[start:end]`` exactly; False if they don't.

    `out`: (count, 6) int64, filled with offset, timestamp (ms), key start, key length, value start, value length;
    a length of -1 is null.
    """
    at = start
    for row in range(count):
        length, at = _varint(data, at, end)
        if at < 0 or length < 1 or length > end - at:
            return False
        stop = at + length
        at += 1  # attributes, unused
        timestamp_delta, at = _varint(data, at, stop)
        if at < 0:
            return False
        offset_delta, at = _varint(data, at, stop)
        if at < 0:
            return False
        out[row, 0] = base_offset + offset_delta
        out[row, 1] = append_time if append_time >= 0 else base_timestamp + timestamp_delta
        for field in range(2):
            size, at = _varint(data, at, stop)
            if at < 0 or size > stop - at:
                return False
            out[row, 2 + 2 * field] = at
            out[row, 3 + 2 * field] = size if size >= 0 else -1
            at += max(size, 0)
        at = stop  # headers
    return at == end


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def join_lines(data: Bytes, starts: Ints, lengths: Ints, end_byte: int, ends: Ints, out: Bytes) -> None:
    """Copy span after span into `out`, each followed by `end_byte` unless that is negative; a null span is empty.

    `ends`: (len(starts),) int64, filled with the end of each span in `out`, the end byte included. `out` must hold
    them all.
    """
    at = 0
    for row in range(len(starts)):
        start, length = starts[row], lengths[row]
        for i in range(length):
            out[at + i] = data[start + i]
        at += max(length, 0)
        if end_byte >= 0:
            out[at] = end_byte
            at += 1
        ends[row] = at
