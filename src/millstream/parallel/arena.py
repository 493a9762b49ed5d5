"""Segments that a worker writes its answers into, again and again.

New memory costs more than the copy: each page is found, cleared and mapped. So a segment is used again as soon as the
driver has let go of all that lies in it, and stays mapped there. `Arena` is the worker's side, `ArenaView` the
driver's::

    worker   write ──> number, spans, descriptor if new, dropped ──> view                    driver
             free  <──────────── numbers, with the next run <──────── nothing refers to it

Laws: a segment is not written while the driver can reach anything in it. What the driver holds outlives the worker.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from millstream.parallel.shared_memory import ALIGNMENT, new_segment, write

__all__ = ["Arena", "ArenaView", "Written"]


@dataclass(frozen=True)
class Written:
    """Where buffers were written. descriptor: of a segment that the driver has not seen yet, else None; the arena's.

    dropped: segments that were given up.
    """

    number: int
    spans: Sequence[tuple[int, int]]
    descriptor: int | None
    dropped: Sequence[int]


class Arena:
    """The segments of one worker."""

    def __init__(self) -> None:
        self._n_made = 0
        self._sizes: dict[int, int] = {}
        self._descriptors: dict[int, int] = {}
        self._free: set[int] = set()

    def write(self, buffers: Sequence[memoryview]) -> Written:
        """Write into the smallest free segment that is large enough, or a new one; free ones too small are dropped."""
        needed = sum(-(-buffer.nbytes // ALIGNMENT) * ALIGNMENT for buffer in buffers)
        fitting = [number for number in self._free if self._sizes[number] >= needed]
        if fitting:
            number = min(fitting, key=self._sizes.__getitem__)
            spans = write(self._descriptors[number], buffers)
            self._free.discard(number)
            return Written(number, spans, None, ())
        dropped = sorted(self._free)
        for number in dropped:
            os.close(self._descriptors.pop(number))
            del self._sizes[number]
        self._free.clear()
        number = self._n_made = self._n_made + 1
        descriptor = self._descriptors[number] = new_segment()
        self._sizes[number] = needed
        spans = write(descriptor, buffers)
        os.ftruncate(descriptor, needed)  # all that may be used later is mapped at once
        return Written(number, spans, descriptor, dropped)

    def free(self, numbers: Iterable[int]) -> None:
        """The driver has let go of them."""
        self._free.update(number for number in numbers if number in self._sizes)


class ArenaView:
    """The segments of one worker as the driver maps them."""

    def __init__(self) -> None:
        self._mapped: dict[int, mmap.mmap] = {}
        self._released: list[int] = []

    def view(self, number: int, descriptor: int | None, dropped: Iterable[int]) -> memoryview:
        """The bytes of a segment; `released` names it when nothing refers to them any more."""
        for one in dropped:
            self._mapped.pop(one, None)
        if descriptor is not None:
            self._mapped[number] = mmap.mmap(descriptor, 0)
            os.close(descriptor)
        root = np.frombuffer(self._mapped[number], np.uint8)
        weakref.finalize(root, self._released.append, number).atexit = False
        return memoryview(root.data)

    def released(self) -> list[int]:
        """Those released since the last call."""
        released = []
        while self._released:
            released.append(self._released.pop())
        return released
