"""Who works on which part: decisions only, no threads, no clock of its own.

Parts are handed out in order, one at a time, to whoever asks. The first round is fixed (worker i gets the
i-th part), so that every worker takes part in a step that has enough of them. A worker that holds a part
for longer than the deadline is overdue; whoever is lost gives its part back, to be handed out next.

::

                 take                finish
    waiting ────────────> held ─────────────────> finished
       ^                   │
       └───────────────────┘  lose (died, or overdue)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from millstream.parallel.part_queue import Dynamic, MakeQueue

__all__ = ["Assignment", "Schedule"]


@dataclass(frozen=True)
class Assignment:
    """A part handed to a worker; `attempt` counts how often it was handed out before."""

    index: int
    attempt: int


@dataclass
class _Held:
    index: int
    since: float
    taken: bool


class Schedule:
    """One step's parts.

    order: the part indices in the order of handing out.
    workers: those that live.
    deadline: seconds a worker may hold a part.
    queue: which part a worker gets.

    >>> schedule = Schedule([0, 1, 2], workers=[0, 1], deadline=60.0, now=0.0)
    >>> schedule.take(1, now=0.0), schedule.take(0, now=0.0)
    (Assignment(index=1, attempt=0), Assignment(index=0, attempt=0))
    >>> schedule.finish(1, 1)
    >>> schedule.overdue(now=61.0)
    [0]
    >>> schedule.lose(0)
    >>> schedule.take(1, now=61.0)
    Assignment(index=0, attempt=1)
    """

    def __init__(
        self,
        order: Sequence[int],
        workers: Sequence[int],
        deadline: float,
        now: float,
        queue: MakeQueue = Dynamic,
    ) -> None:
        self._deadline = deadline
        self._alive = set(workers)
        self._attempts = dict.fromkeys(order, 0)
        self._waiting = queue(order, workers)
        self._held: dict[int, _Held] = {}
        for worker in workers:
            self._draw(worker, now)

    def take(self, worker: int, now: float) -> Assignment | None:
        """The next part for a worker, or None while there is none."""
        if worker not in self._alive:
            return None
        held = self._held.get(worker) or self._draw(worker, now)
        if held is None:
            return None
        held.since, held.taken = now, True
        return Assignment(held.index, self._attempts[held.index])

    def _draw(self, worker: int, now: float) -> _Held | None:
        index = self._waiting.draw(worker)
        if index is None:
            return None
        held = self._held[worker] = _Held(index, now, taken=False)
        return held

    def renew(self, worker: int, now: float) -> None:
        """The worker was seen to get on with what it holds: its time begins anew."""
        if worker in self._held:
            self._held[worker].since = now

    def finish(self, worker: int, index: int) -> None:
        """The part is done. From a worker that was lost this changes nothing: its part is someone else's by now."""
        if worker in self._alive and worker in self._held and self._held[worker].index == index:
            del self._held[worker]
            self._waiting.finish(index)

    def lose(self, worker: int) -> None:
        """The worker is gone; its part is handed out next."""
        if worker not in self._alive:
            return
        self._alive.discard(worker)
        self._waiting.lose(worker)
        held = self._held.pop(worker, None)
        if held is not None:
            self._attempts[held.index] += held.taken
            self._waiting.put_back(held.index)

    def overdue(self, now: float) -> list[int]:
        """Workers that have held a part for longer than the deadline."""
        return [worker for worker, held in self._held.items() if now - held.since > self._deadline]

    def wake_at(self) -> float | None:
        """When the next worker becomes overdue, or None if no one holds a part."""
        return min((held.since + self._deadline for held in self._held.values()), default=None)

    @property
    def paced(self) -> bool:
        """True if a part that is finished may make others ready, so that idle workers must be told."""
        return self._waiting.paced

    @property
    def done(self) -> bool:
        return not self._waiting and not self._held

    @property
    def stranded(self) -> bool:
        """Parts are left and no worker lives."""
        return not self.done and not self._alive
