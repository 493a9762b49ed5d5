"""Workers as threads of this process: nothing is copied, nothing is shipped.

NumPy, BLAS, Arrow and numba's nogil kernels release the interpreter lock, so threads scale where the time
is spent in them; for Python code that holds the lock they don't. Threads are daemons: a thread can't be
ended from outside, so one that is stuck is left behind, its part is computed by another, and what it
delivers later changes nothing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from time import monotonic, perf_counter
from typing import Any

from millstream.errors import DeadlineExceeded, InputError, WorkerLost
from millstream.parallel.engine import Engine, Work
from millstream.parallel.fault import Fault, fault_at
from millstream.parallel.part_queue import Dynamic, MakeQueue
from millstream.parallel.schedule import Assignment, Schedule

__all__ = ["Threads"]

# How long a closing crew waits for parts being computed; after that their threads are left behind.
FAREWELL = timedelta(seconds=5)


class Threads(Engine):
    """`n` threads, by default one for each core this process may use.

    deadline: how long one call of `local` may take before its worker counts as stuck and is lost.
    faults: injected deaths and hangs, for tests.
    """

    prepares = True

    def __init__(
        self, n: int | None = None, deadline: timedelta = timedelta(minutes=10), faults: Sequence[Fault] = ()
    ) -> None:
        self.n_workers = len(os.sched_getaffinity(0)) if n is None else n
        if self.n_workers < 1:
            raise InputError(f"Threads({n}); there is at least one worker")
        if deadline <= timedelta(0):
            raise InputError(f"Threads(deadline={deadline!r}); a deadline is positive")
        self.deadline = deadline
        self.faults = tuple(faults)

    @contextmanager
    def crew(self) -> Iterator[_ThreadCrew]:
        crew = _ThreadCrew(self)
        try:
            crew.start()
            yield crew
        finally:
            crew.close()

    def __repr__(self) -> str:
        return f"Threads({self.n_workers})"


@dataclass
class _Run:
    """One step as the workers see it. Guarded by the crew's condition, but for `compute` and `combine`, where each
    worker writes its own entry alone."""

    task: Callable[[int, int], Any]
    accept: Callable[[int, Any], None]
    step: int
    schedule: Schedule
    compute: dict[int, float]
    combine: dict[int, float]
    finished: dict[int, int]
    lost: list[int] = field(default_factory=list)
    error: BaseException | None = None
    over: threading.Event = field(default_factory=threading.Event)


class _ThreadCrew:
    def __init__(self, engine: Threads) -> None:
        self._engine = engine
        self._changed = threading.Condition()
        # guarded by _changed
        self._run: _Run | None = None
        self._closed = False
        self._alive = set(range(engine.n_workers))
        self._threads = [
            threading.Thread(
                target=self._work, args=(worker,), name=f"millstream-worker-{worker}", daemon=True
            )
            for worker in range(engine.n_workers)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

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
        started = perf_counter()
        deadline = self._engine.deadline.total_seconds()
        with self._changed:
            workers = sorted(self._alive)
            schedule = Schedule(range(n_tasks), workers, deadline, monotonic(), queue)
            none, idle = dict.fromkeys(workers, 0), dict.fromkeys(workers, 0.0)
            run = _Run(task, accept, step, schedule, compute=idle.copy(), combine=idle, finished=none)
            self._run = run
            self._changed.notify_all()
            try:
                self._attend(run)
            finally:
                self._run = None
                run.over.set()
        if run.error is not None:
            raise run.error
        computing, combining = sum(run.compute.values()), sum(run.combine.values())
        wait = max(0.0, (perf_counter() - started) * len(workers) - computing - combining)
        return Work(computing, combining, wait, tuple(run.lost))

    def close(self) -> None:
        """Let every thread end after the part it is at; wait for that no longer than `FAREWELL`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            alive = [
                self._threads[worker] for worker in self._alive if self._threads[worker].ident is not None
            ]
        until = monotonic() + FAREWELL.total_seconds()
        for thread in alive:
            thread.join(max(0.0, until - monotonic()))

    def _attend(self, run: _Run) -> None:
        """Wait, on the driver and holding the condition, until the run is done or can't be."""
        while not run.schedule.done and run.error is None:
            for worker in run.schedule.overdue(monotonic()):
                self._lose(run, worker)
                if run.schedule.stranded:
                    raise DeadlineExceeded(
                        f"step {run.step}: no worker is left of {self._engine.n_workers}, and the last was at one part "
                        f"for longer than {self._engine.deadline}; raise Threads(deadline=), or make parts smaller"
                    )
            if run.schedule.stranded:
                raise WorkerLost(
                    f"step {run.step}: all {self._engine.n_workers} workers died; fit again with more workers"
                )
            wake_at = run.schedule.wake_at()
            # Without a part held there is a worker about to take one; it notifies.
            self._changed.wait(
                self._engine.deadline.total_seconds() if wake_at is None else wake_at - monotonic()
            )

    def _lose(self, run: _Run, worker: int) -> None:
        run.schedule.lose(worker)
        run.lost.append(worker)
        self._alive.discard(worker)
        self._changed.notify_all()

    def _work(self, worker: int) -> None:
        while (taken := self._take(worker)) is not None:
            run, assignment = taken
            fault = fault_at(self._engine.faults, run.step, worker, run.finished[worker])
            if fault is not None and fault.kind == "die":
                with self._changed:
                    self._lose(run, worker)
                return
            if fault is not None:
                run.over.wait(2 * self._engine.deadline.total_seconds())
            self._perform(worker, run, assignment)

    def _take(self, worker: int) -> tuple[_Run, Assignment] | None:
        """The next part for a worker; waits for one, until the crew closes or the worker is lost."""
        with self._changed:
            while not self._closed and worker in self._alive:
                run = self._run
                assignment = None if run is None else run.schedule.take(worker, monotonic())
                if run is not None and assignment is not None:
                    return run, assignment
                self._changed.wait()
            return None

    def _perform(self, worker: int, run: _Run, assignment: Assignment) -> None:
        started = perf_counter()
        try:
            result = run.task(assignment.index, assignment.attempt)
            computed = perf_counter()
            run.accept(assignment.index, result)
        except BaseException as error:  # noqa: BLE001 - carried to the driver, which raises it
            with self._changed:
                if worker in self._alive and run.error is None:
                    run.error = error
                self._changed.notify_all()
            return
        run.compute[worker] += computed - started
        run.combine[worker] += perf_counter() - computed
        with self._changed:
            run.finished[worker] += 1
            run.schedule.finish(worker, assignment.index)
            if run.schedule.done or run.schedule.paced:
                self._changed.notify_all()
