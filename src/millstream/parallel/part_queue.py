"""Which of the parts that wait a worker gets next.

"dynamic": the next in order, whoever asks, so a slow worker gets fewer. "pinned": each worker has parts of its own,
by part index, as where the data lie with the workers; a lost worker's parts go to the others in turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

__all__ = ["Dynamic", "MakeQueue", "PartQueue", "Pinned"]


class PartQueue(Protocol):
    """The parts that no worker holds. Laws: a part drawn comes back by `put_back` or ends by `finish`; while parts are
    left and none is held, some living worker's `draw` gives one.

    paced: True if `finish` may make parts ready that `draw` held back.
    """

    paced: bool

    def draw(self, worker: int) -> int | None: ...

    def put_back(self, index: int) -> None: ...

    def finish(self, index: int) -> None: ...

    def lose(self, worker: int) -> None: ...

    def __len__(self) -> int: ...


MakeQueue = Callable[[Sequence[int], Sequence[int]], PartQueue]


class Dynamic:
    """One queue for all.

    >>> queue = Dynamic([4, 2], workers=[0, 1])
    >>> queue.draw(1), queue.draw(1), queue.draw(0)
    (4, 2, None)
    """

    paced = False

    def __init__(self, order: Sequence[int], workers: Sequence[int]) -> None:
        self._waiting = deque(order)

    def draw(self, worker: int) -> int | None:
        return self._waiting.popleft() if self._waiting else None

    def put_back(self, index: int) -> None:
        self._waiting.appendleft(index)

    def finish(self, index: int) -> None:
        pass

    def lose(self, worker: int) -> None:
        pass

    def __len__(self) -> int:
        return len(self._waiting)


class Pinned:
    """A queue for each worker: part i is of the worker in place i modulo the number of workers.

    >>> queue = Pinned([0, 1, 2], workers=[5, 6])
    >>> queue.draw(5), queue.draw(5), queue.draw(5)
    (0, 2, None)
    >>> queue.lose(6)
    >>> queue.draw(5)
    1
    """

    paced = True  # the parts of a lost worker become ready for others

    def __init__(self, order: Sequence[int], workers: Sequence[int]) -> None:
        self._queues: dict[int, deque[int]] = {worker: deque() for worker in workers}
        self._owner = {index: workers[index % len(workers)] for index in order} if workers else {}
        for index in order if workers else ():
            self._queues[self._owner[index]].append(index)
        self._orphans = 0 if workers else len(order)

    def draw(self, worker: int) -> int | None:
        queue = self._queues[worker]
        return queue.popleft() if queue else None

    def put_back(self, index: int) -> None:
        if self._queues:
            self._queues[self._owner[index]].appendleft(index)
        else:
            self._orphans += 1

    def finish(self, index: int) -> None:
        pass

    def lose(self, worker: int) -> None:
        left = self._queues.pop(worker)
        living = list(self._queues)
        for turn, index in enumerate(i for i, owner in self._owner.items() if owner == worker and living):
            self._owner[index] = living[turn % len(living)]
        for index in left:
            self.put_back(index)

    def __len__(self) -> int:
        return self._orphans + sum(map(len, self._queues.values()))
