"""What a crash can leave at the end of a segment, told from damage.

A crash stops the writer in its last batches, so behind the first batch that isn't whole no whole one follows. Where
one does, records that were acknowledged stand behind the bad place: it is damage, and nothing may be cut.
"""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from millstream.errors import CorruptBatch
from millstream.log.record_batch import HEADER_BYTES, LENGTH_FIELD_END, check

__all__ = ["whole_batch_after"]

CHUNK_BYTES = 4 << 20
_LENGTH_AT, _MAGIC_AT = 8, 16
_OFFSETS_A_SEGMENT = 1 << 32


def whole_batch_after(fd: int, position: int, end: int, offset: int) -> int | None:
    """Where, past `position` and before `end`, a whole batch with a right CRC begins whose first offset may follow
    `offset`; None if there is none."""
    for at in range(position + 1, end - HEADER_BYTES + 1, CHUNK_BYTES):
        data = np.frombuffer(os.pread(fd, min(CHUNK_BYTES + HEADER_BYTES - 1, end - at), at), np.uint8)
        for begins, size in _headers(data, end - at, offset):
            try:
                check(memoryview(os.pread(fd, size, at + begins)))
            except CorruptBatch:
                continue
            return at + begins
    return None


def _headers(data: npt.NDArray[np.uint8], room: int, offset: int) -> list[tuple[int, int]]:
    """(position, size) of what could be a header of a batch that fits into `room` bytes from the start of `data`."""
    starts = np.flatnonzero(data[_MAGIC_AT : len(data) - HEADER_BYTES + 1 + _MAGIC_AT] == 2)
    offsets = _integers(data, starts, ">i8")
    sizes = _integers(data, starts + _LENGTH_AT, ">i4") + LENGTH_FIELD_END
    fits = (sizes >= HEADER_BYTES) & (starts + sizes <= room)
    fits &= (offsets >= offset) & (offsets < offset + _OFFSETS_A_SEGMENT)
    return list(zip(starts[fits].tolist(), sizes[fits].tolist(), strict=True))


def _integers(data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], kind: str) -> npt.NDArray[np.int64]:
    width = np.dtype(kind).itemsize
    return np.asarray(data[starts[:, None] + np.arange(width)].view(kind).ravel(), np.int64)
