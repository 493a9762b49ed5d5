"""The parts of many rounds at once, handed out as far as the bound of staleness allows.

Task ``round * n_parts + part`` is a part in a round. A part's rounds go in order; a round may begin on one part while
another is up to `bound` rounds behind. So whoever draws may read at once, and no worker blocks while it holds a part.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from millstream.parallel.vector_clock import VectorClock

__all__ = ["RoundQueue"]


class RoundQueue:
    """The least round first; within a round, in the order given.

    bound: None for none. pinned: whether each worker has parts of its own.

    >>> queue = RoundQueue(range(6), workers=[0, 1], n_parts=2, bound=1, pinned=False)
    >>> queue.draw(0), queue.draw(1)
    (0, 1)
    >>> queue.finish(0)
    >>> queue.draw(0)  # round 1 of part 0, while part 1 is in round 0
    2
    >>> queue.finish(2)
    >>> queue.draw(0)  # round 2 of it would be two ahead
    >>> queue.finish(1)
    >>> queue.draw(0)
    3
    """

    paced = True

    def __init__(
        self, order: Sequence[int], workers: Sequence[int], n_parts: int, bound: int | None, pinned: bool
    ) -> None:
        self._n_parts, self._bound, self._pinned = n_parts, bound, pinned
        self._place = {index: place for place, index in enumerate(order)}
        self._clocks = VectorClock(n_parts)
        self._n_left = len(order)
        self._ready: dict[int, list[tuple[int, int, int]]] = {worker: [] for worker in workers}
        self._owner = [workers[part % len(workers)] for part in range(n_parts)] if workers else []
        for part in range(n_parts if workers else 0):
            self._enter(part)

    def draw(self, worker: int) -> int | None:
        ready = self._ready[self._heap_of(worker)]
        if not ready or not self._clocks.admits(ready[0][0], self._bound):
            return None
        self._n_left -= 1
        return heapq.heappop(ready)[2]

    def put_back(self, index: int) -> None:
        self._n_left += 1
        if self._ready:
            self._enter(index)

    def finish(self, index: int) -> None:
        self._clocks.advance(index % self._n_parts)
        if index + self._n_parts in self._place:
            self._enter(index + self._n_parts)

    def lose(self, worker: int) -> None:
        heap_before = self._heap_of(worker)
        left = self._ready.pop(worker)
        living = list(self._ready)
        orphans = (part for part, owner in enumerate(self._owner) if owner == worker and living)
        for turn, part in enumerate(orphans):
            self._owner[part] = living[turn % len(living)]
        if living and (self._pinned or heap_before == worker):
            for _, _, index in left:
                self._enter(index)

    def __len__(self) -> int:
        return self._n_left

    def _enter(self, index: int) -> None:
        ready = self._ready[self._heap_of(self._owner[index % self._n_parts])]
        heapq.heappush(ready, (index // self._n_parts, self._place[index], index))

    def _heap_of(self, worker: int) -> int:
        """Whose heap a worker draws from: its own, or the one heap of all, that of the first who lives."""
        return worker if self._pinned else next(iter(self._ready))
