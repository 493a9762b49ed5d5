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

__all__ = ["ALIGNMENT", "mapped", "segment"]

ALIGNMENT = 64  # bytes: a cache line, and every vector register


def segment(buffers: Sequence[memoryview]) -> tuple[int, list[tuple[int, int]]]:
    """A new segment that holds the buffers (contiguous bytes); its descriptor, and where each lies (offset, bytes)."""
    handle = os.memfd_create("millstream", os.MFD_CLOEXEC)
    spans: list[tuple[int, int]] = []
    offset = 0
    try:
        for buffer in buffers:
            _write(handle, buffer, offset)
            spans.append((offset, buffer.nbytes))
            offset += -(-buffer.nbytes // ALIGNMENT) * ALIGNMENT
    except OSError as error:
        os.close(handle)
        size = sum(buffer.nbytes for buffer in buffers)
        raise TrainingError(
            f"no shared memory for {size:,} bytes ({error.strerror}): free memory or raise the limit, ship less in "
            "one step or statistic, or use Threads(), which shares the memory it has"
        ) from error
    except BaseException:
        os.close(handle)
        raise
    return handle, spans


def mapped(handle: int) -> memoryview:
    """All bytes of a segment; closes the descriptor. Writing changes a private copy and not the segment."""
    try:
        return memoryview(mmap.mmap(handle, 0, access=mmap.ACCESS_COPY))
    finally:
        os.close(handle)


def _write(handle: int, buffer: memoryview, offset: int) -> None:
    done = 0
    while done < buffer.nbytes:  # one call writes 2 GB at most
        done += os.pwrite(handle, buffer[done:], offset + done)
