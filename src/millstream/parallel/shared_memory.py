"""Memory that processes share and that can't be left behind.

A segment is an anonymous file (memfd_create(2)). It has no name in /dev/shm or anywhere else, lives as long as a
process holds its descriptor or maps it, and is gone with the last of them, also if that was killed. So there is
nothing to unlink, no resource tracker, and a /dev/shm that is small or full does not matter.

A segment is written once, with write(2), by the process that makes it, and mapped by those it is sent to. Want of
memory therefore is an error of the writer, never a SIGBUS of a reader.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence

from millstream.errors import TrainingError

__all__ = ["ALIGNMENT", "mapped", "new_segment", "segment", "write"]

ALIGNMENT = 64  # bytes: a cache line, and every vector register


def new_segment() -> int:
    """The descriptor of a segment without bytes."""
    return os.memfd_create("millstream", os.MFD_CLOEXEC)


def write(handle: int, buffers: Sequence[memoryview]) -> list[tuple[int, int]]:
    """Write buffers (contiguous bytes) into a segment from its beginning; where each lies: (offset, bytes).

    Raises `TrainingError` where memory is short; what the segment then holds is not told.
    """
    spans: list[tuple[int, int]] = []
    offset = 0
    try:
        for buffer in buffers:
            done = 0
            while done < buffer.nbytes:  # one call writes 2 GB at most
                done += os.pwrite(handle, buffer[done:], offset + done)
            spans.append((offset, buffer.nbytes))
            offset += -(-buffer.nbytes // ALIGNMENT) * ALIGNMENT
    except OSError as error:
        size = sum(buffer.nbytes for buffer in buffers)
        raise TrainingError(
            f"no shared memory for {size:,} bytes ({error.strerror}): free memory or raise the limit, ship less in "
            "one step or statistic, or use Threads(), which shares the memory it has"
        ) from error
    return spans


def segment(buffers: Sequence[memoryview]) -> tuple[int, list[tuple[int, int]]]:
    """A new segment that holds the buffers; its descriptor, and where each lies."""
    handle = new_segment()
    try:
        return handle, write(handle, buffers)
    except BaseException:
        os.close(handle)
        raise


def mapped(handle: int) -> memoryview:
    """All bytes of a segment; closes the descriptor. Writing changes a private copy and not the segment."""
    try:
        return memoryview(mmap.mmap(handle, 0, access=mmap.ACCESS_COPY))
    finally:
        os.close(handle)
