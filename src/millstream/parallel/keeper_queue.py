"""Parts go to the worker that keeps something of them, while nobody is idle for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

__all__ = ["KeeperQueue"]


class KeeperQueue:
    """A queue for each worker, and one for the parts of nobody. A worker draws from its own, then from that of nobody,
    then the last part of whoever has most left.

    keeper: the worker that keeps something of a part, where there is one.

    >>> queue = KeeperQueue([0, 1, 2, 3], workers=[5, 6], keeper={0: 6, 1: 5, 2: 6})
    >>> queue.draw(6), queue.draw(5), queue.draw(5), queue.draw(5), queue.draw(5)
    (0, 1, 3, 2, None)
    """

    paced = False

    def __init__(self, order: Sequence[int], workers: Sequence[int], keeper: Mapping[int, int]) -> None:
        self._kept: dict[int, deque[int]] = {worker: deque() for worker in workers}
        self._of_nobody: deque[int] = deque()
        for index in order:
            self._kept.get(keeper.get(index, -1), self._of_nobody).append(index)

    def draw(self, worker: int) -> int | None:
        for queue in (self._kept[worker], self._of_nobody):
            if queue:
                return queue.popleft()
        longest = max(self._kept.values(), key=len)
        return longest.pop() if longest else None

    def put_back(self, index: int) -> None:
        self._of_nobody.appendleft(index)

    def finish(self, index: int) -> None:
        pass

    def lose(self, worker: int) -> None:
        self._of_nobody.extend(self._kept.pop(worker))

    def __len__(self) -> int:
        return len(self._of_nobody) + sum(map(len, self._kept.values()))
