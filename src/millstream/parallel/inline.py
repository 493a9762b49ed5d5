"""One thread, workers in name only: the test bed.

Which worker starts or finishes next, and in which order parts are handed out, is drawn from the seed. So
one seed is one history, and any order of arrival that workers could produce can be produced again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import numpy as np

from millstream.errors import InputError, WorkerLost
from millstream.parallel.engine import Engine, Work
from millstream.parallel.fault import Fault, fault_at
from millstream.parallel.part_queue import Dynamic, MakeQueue
from millstream.parallel.schedule import Schedule

__all__ = ["Inline"]


class Inline(Engine):
    """Runs everything on the calling thread, in an order drawn from `seed`.

    workers: how many workers are played. faults: which of them die or hang, and when; a hanging worker is lost at once
    and delivers its result at the end of the step.
    """

    prepares = True

    def __init__(self, seed: int = 0, faults: Sequence[Fault] = (), workers: int = 3) -> None:
        if workers < 1:
            raise InputError(f"Inline(workers={workers}); there is at least one worker")
        self.seed = seed
        self.faults = tuple(faults)
        self.n_workers = workers

    @contextmanager
    def crew(self) -> Iterator[_InlineCrew]:
        yield _InlineCrew(self)

    def __repr__(self) -> str:
        return f"Inline(seed={self.seed}, workers={self.n_workers})"


class _InlineCrew:
    def __init__(self, engine: Inline) -> None:
        self._engine = engine
        self._alive = list(range(engine.n_workers))

    def run(
        self,
        task: Callable[[int, int], Any],
        accept: Callable[..., None],
        n_tasks: int,
        *,
        step: int,
        combine: Callable[[Any, Any], Any] | None = None,
        queue: MakeQueue = Dynamic,
    ) -> Work:
        rng = np.random.default_rng([self._engine.seed, step])
        order = rng.permutation(n_tasks).tolist()
        schedule = Schedule(order, self._alive, deadline=float("inf"), now=0.0, queue=queue)
        play = _Play(schedule, task, accept, rng, step, self._engine.faults)
        started = perf_counter()
        while not schedule.done:
            if schedule.stranded:
                raise WorkerLost(
                    f"all {self._engine.n_workers} workers were lost by step {step}; play more of them"
                )
            lost = play.move(self._alive)
            if lost is not None:
                self._alive.remove(lost)
        play.deliver_late()
        seconds = perf_counter() - started
        wait = seconds * self._engine.n_workers - play.compute - play.combine
        return Work(play.compute, play.combine, wait, tuple(play.lost))


class _Play:
    """One run: each move starts or finishes a part on one worker."""

    def __init__(
        self,
        schedule: Schedule,
        task: Callable[[int, int], Any],
        accept: Callable[[int, Any], None],
        rng: np.random.Generator,
        step: int,
        faults: Sequence[Fault],
    ) -> None:
        self._schedule, self._task, self._accept, self._rng = schedule, task, accept, rng
        self._step, self._faults = step, faults
        self._computed: dict[int, tuple[int, Any]] = {}
        self._finished: dict[int, int] = {}
        self._late: list[tuple[int, Any]] = []
        self.compute = self.combine = 0.0
        self.lost: list[int] = []

    def move(self, alive: Sequence[int]) -> int | None:
        """Let a worker drawn at random act; returns it if it was lost."""
        worker = alive[int(self._rng.integers(len(alive)))]
        if worker in self._computed:
            index, result = self._computed.pop(worker)
            self._hand_over(index, result)
            self._finished[worker] = self._finished.get(worker, 0) + 1
            self._schedule.finish(worker, index)
            return None
        assignment = self._schedule.take(worker, now=0.0)
        if assignment is None:
            return None
        fault = fault_at(self._faults, self._step, worker, self._finished.get(worker, 0))
        if fault is None or fault.kind == "hang":
            started = perf_counter()
            result = self._task(assignment.index, assignment.attempt)
            self.compute += perf_counter() - started
            if fault is None:
                self._computed[worker] = assignment.index, result
                return None
            self._late.append((assignment.index, result))
        self._schedule.lose(worker)
        self.lost.append(worker)
        return worker

    def deliver_late(self) -> None:
        for index, result in self._late:
            self._hand_over(index, result)

    def _hand_over(self, index: int, result: Any) -> None:
        started = perf_counter()
        self._accept(index, result)
        self.combine += perf_counter() - started
