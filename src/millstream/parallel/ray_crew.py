"""A crew of Ray actors: who is hired, what each is sent, and what happens when one is lost.

The decisions are those of a crew of processes: runs of neighbouring parts, the keeper's queue, the schedule.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from time import monotonic, perf_counter
from typing import Any

import numpy as np

from millstream.errors import DeadlineExceeded, Refused, WorkerLost
from millstream.parallel.engine import Work
from millstream.parallel.fault import Fault
from millstream.parallel.fork_server import START
from millstream.parallel.keeper_queue import KeeperQueue
from millstream.parallel.local import Local, Setting
from millstream.parallel.part_queue import Dynamic, MakeQueue
from millstream.parallel.ray_cluster import import_ray
from millstream.parallel.ray_worker import Packet, Probe, RayWorker
from millstream.parallel.runs import Run, guided_runs
from millstream.parallel.schedule import Schedule
from millstream.parallel.shared_memory import new_segment
from millstream.parallel.worker_process import WorkerTraceback

__all__ = ["RayCrew"]

LOOKS = 4  # times within a deadline that the driver asks whether actors get on
HIRED_WITHIN = timedelta(minutes=2)


@dataclass
class _Worker:
    number: int
    actor: Any
    pid: int
    near: bool  # on this machine
    run: Run | None = None  # what it is at
    at: int = -1  # its number in the schedule
    answer: Any = None  # the reference to what it will answer
    asked: Any = None  # the reference to its progress
    task_of: int = 0  # the call of `run` whose task it has
    run_of: int = 0  # the call its run is of
    seen: tuple[int, int] = (0, -1)  # its progress, as last told


@dataclass
class _Call:
    """One call of `run`."""

    number: int
    step: int
    tasks: Mapping[bool, Any]  # references to the task, for actors near and far
    combines: bool
    accept: Callable[..., None]
    runs: Sequence[Run]
    schedule: Schedule
    keeper: np.ndarray[Any, np.dtype[np.int64]]
    compute: float = 0.0
    combine: float = 0.0
    began: float = field(default_factory=monotonic)
    lost: list[int] = field(default_factory=list)


class RayCrew:
    """Hires `n_workers` with the first call of `run`; resources: what each asks of the cluster."""

    def __init__(
        self, n_workers: int, resources: Mapping[str, float], deadline: timedelta, faults: Sequence[Fault]
    ) -> None:
        self._ray = import_ray()
        # configuration
        self._n_workers, self._resources = n_workers, dict(resources)
        self._deadline, self._faults = deadline, tuple(faults)
        # the workers
        self._actors: list[Any] | None = None
        self._workers: dict[int, _Worker] = {}
        # what they know and what is known of them
        self._n_calls = 0
        self._settings: dict[int, tuple[int, Setting]] = {}  # by id, which the setting here keeps its own
        self._keepers: dict[str, np.ndarray[Any, np.dtype[np.int64]]] = {}  # who computed a part last
        self._part_seconds: float | None = None

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
        if not n_tasks:
            return Work(0.0, 0.0, 0.0, ())
        if self._actors is None:
            self._hire()
        lost = self._tell_setting(task.setting) if isinstance(task, Local) else []
        tasks = self._put((task, combine), {key: number for key, (number, _) in self._settings.items()})
        runs, schedule, keeper = self._plan(task, n_tasks, queue)
        self._n_calls += 1
        call = _Call(
            self._n_calls, step, tasks, combine is not None, accept, runs, schedule, keeper, lost=lost
        )
        workers = len(self._workers)
        self._attend(call)
        self._part_seconds = call.compute / n_tasks
        wait = max(0.0, (perf_counter() - started) * workers - call.compute - call.combine)
        return Work(call.compute, call.combine, wait, tuple(call.lost))

    def close(self) -> None:
        """Kill the actors, whatever they are at."""
        self._workers = {}
        for actor in self._actors or ():
            self._ray.kill(actor)
        self._actors = []

    def _hire(self) -> None:
        asked = {name: amount for name, amount in self._resources.items() if name not in ("CPU", "GPU")}
        actor = self._ray.remote(concurrency_groups={"progress": 1})(RayWorker).options(
            num_cpus=self._resources.get("CPU", 0),
            num_gpus=self._resources.get("GPU", 0),
            resources=asked,
            max_restarts=0,
        )
        given = self._faults, sys.path, os.getcwd()
        self._actors = [actor.remote(number, *given) for number in range(self._n_workers)]
        handle = new_segment()
        try:
            probe = Probe.of(handle)
            hired = [actor.hired.remote(probe) for actor in self._actors]
            _, missing = self._ray.wait(hired, num_returns=len(hired), timeout=HIRED_WITHIN.total_seconds())
            if missing:
                raise Refused(
                    f"{len(missing)} of {self._n_workers} actors found no place within {HIRED_WITHIN}: each asks for "
                    f"{self._resources}, and the cluster has {self._ray.cluster_resources()}; ask for fewer"
                )
            answers = self._ray.get(hired, timeout=HIRED_WITHIN.total_seconds())
        finally:
            os.close(handle)
        for number, (actor, (pid, near)) in enumerate(zip(self._actors, answers, strict=True)):
            self._workers[number] = _Worker(number, actor, pid, near)

    def _put(self, content: Any, settings: Mapping[int, int] | None = None) -> dict[bool, Any]:
        """Into the object store: once for the actors near, once for those far, if there are any."""
        ways = {worker.near for worker in self._workers.values()}
        return {near: self._ray.put(Packet.of(content, settings, near=near)) for near in ways}

    def _tell_setting(self, setting: Setting) -> list[int]:
        """Send what lasts to the workers, if they don't have it; returns who died of it."""
        if id(setting) in self._settings:
            return []
        packets = self._put(setting)
        number = len(self._settings)
        told = {
            worker.number: worker.actor.setting.remote(number, packets[worker.near])
            for worker in self._workers.values()
        }
        lost = []
        for worker, reference in told.items():
            answer = self._got(reference, max(self._deadline, START))
            if answer is _LOST:
                self._dismiss(self._workers[worker])
                lost.append(worker)
            elif answer is not None:
                self._raise(answer)
        self._settings[id(setting)] = number, setting
        return lost

    def _plan(
        self, task: Any, n_tasks: int, queue: MakeQueue
    ) -> tuple[Sequence[Run], Schedule, np.ndarray[Any, np.dtype[np.int64]]]:
        """The runs, who gets which, and the note of who had which."""
        nobody = np.full(n_tasks, -1)
        keeper = self._keepers.setdefault(task.view, nobody) if isinstance(task, Local) else nobody
        if queue is Dynamic:
            runs = guided_runs(n_tasks, self._n_workers, self._part_seconds)
            queue = partial(KeeperQueue, keeper={at: int(keeper[run.first]) for at, run in enumerate(runs)})
        else:  # made for single parts
            runs = [Run(index, 1, 0) for index in range(n_tasks)]
        deadline = self._deadline.total_seconds()
        return runs, Schedule(range(len(runs)), sorted(self._workers), deadline, monotonic(), queue), keeper

    def _attend(self, call: _Call) -> None:
        """Hand out runs and take results until the call is done or can't be."""
        look = self._deadline.total_seconds() / LOOKS
        next_look = monotonic() + look
        self._give_all(call)
        while not call.schedule.done:
            self._refuse_stranded(call)
            waited = [reference for w in self._workers.values() for reference in (w.answer, w.asked)]
            ready, _ = self._ray.wait(
                [reference for reference in waited if reference is not None],
                timeout=max(0.0, next_look - monotonic()),
            )
            for worker in list(self._workers.values()):
                if worker.asked in ready:
                    self._take_progress(call, worker)
                if worker.answer in ready:
                    self._take(call, worker)
            if monotonic() >= next_look:
                self._look_around(call)
                next_look = monotonic() + look

    def _give_all(self, call: _Call) -> None:
        for worker in list(self._workers.values()):
            self._give(call, worker)

    def _give(self, call: _Call, worker: _Worker) -> None:
        """The next run for a worker that has time, if there is one."""
        if worker.answer is not None or worker.number not in self._workers:
            return
        assignment = call.schedule.take(worker.number, monotonic())
        if assignment is None:
            return
        run = worker.run = call.runs[assignment.index]
        worker.at, worker.run_of = assignment.index, call.number
        news = call.tasks[worker.near] if worker.task_of != call.number else None
        worker.task_of = call.number
        worker.answer = worker.actor.run.remote(
            call.number, call.step, run.first, run.count, assignment.attempt, news
        )

    def _take(self, call: _Call, worker: _Worker) -> None:
        """The answer of a worker, or its end."""
        answer = self._got(worker.answer, self._deadline)
        run, worker.run, worker.answer = worker.run, None, None
        if answer is _LOST:
            self._lose(call, worker)
            return
        if answer[0] == "error":
            self._raise(answer)
        assert run is not None
        worker.seen = worker.seen[0], worker.run_of
        _, compute, combine, packet = answer
        current = worker.run_of == call.number  # or of a call that ended with an error
        if current:
            call.compute += compute
            call.combine += combine
            call.keeper[run.first : run.first + run.count] = worker.number
            call.schedule.finish(worker.number, worker.at)
        self._give(call, worker)  # so that it works while the result is combined here
        if call.schedule.paced:
            self._give_all(call)
        if not current:
            return
        result = packet.writable()
        if call.combines:
            call.accept(run.first, result, run.level)
            return
        for offset, one in enumerate(result):
            call.accept(run.first + offset, one)

    def _take_progress(self, call: _Call, worker: _Worker) -> None:
        seen = self._got(worker.asked, self._deadline)
        worker.asked = None
        if seen is not _LOST and seen != worker.seen:  # a death shows in the answer
            worker.seen = seen
            call.schedule.renew(worker.number, monotonic())

    def _look_around(self, call: _Call) -> None:
        """Ask who is busy how far they are; lose who is stuck, and hand on what they held."""
        for number in call.schedule.overdue(monotonic()):
            # The first task may take long to load: modules are imported, a script is run.
            worker = self._workers[number]
            if worker.seen[1] == -1 and monotonic() - call.began < START.total_seconds():
                continue
            self._lose(call, worker)
            if call.schedule.stranded:
                raise DeadlineExceeded(
                    f"step {call.step}: no actor is left of {self._n_workers}, and the last was at one part for "
                    f"longer than {self._deadline}; raise Ray(deadline=), or make parts smaller"
                )
        for worker in self._workers.values():
            if worker.answer is not None and worker.asked is None:
                worker.asked = worker.actor.progress.options(concurrency_group="progress").remote()

    def _refuse_stranded(self, call: _Call) -> None:
        if call.schedule.stranded:
            raise WorkerLost(
                f"step {call.step}: all {self._n_workers} actors died; if memory ran out (see `ray status` and dmesg), "
                "use fewer workers or smaller parts, else fit again"
            )

    def _got(self, reference: Any, within: timedelta) -> Any:
        """What a reference stands for, or `_LOST` if its actor died or the object is nowhere any more."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference, timeout=within.total_seconds())
        except errors.RayTaskError:  # raised outside of what a task may raise: not the actor's death
            raise
        except errors.RayError:
            return _LOST

    def _raise(self, answer: tuple[Any, ...]) -> None:
        _, text, packet = answer
        error: BaseException = packet.writable()
        raise error from WorkerTraceback(text)

    def _lose(self, call: _Call, worker: _Worker) -> None:
        if worker.number not in self._workers:
            return
        self._dismiss(worker)
        call.lost.append(worker.number)
        call.schedule.lose(worker.number)
        self._give_all(call)

    def _dismiss(self, worker: _Worker) -> None:
        del self._workers[worker.number]
        self._ray.kill(worker.actor)
        if worker.near:  # a stopped process does not hear Ray
            with suppress(ProcessLookupError, PermissionError):
                os.kill(worker.pid, signal.SIGKILL)


_LOST = object()
