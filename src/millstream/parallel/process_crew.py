"""A crew of worker processes: who is hired, what each is sent, and what happens when one is lost."""

from __future__ import annotations

import mmap
import os
import selectors
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from time import monotonic, perf_counter
from typing import Any

import numpy as np

from millstream.errors import DeadlineExceeded, WorkerLost
from millstream.parallel.arena import ArenaView
from millstream.parallel.channel import Channel
from millstream.parallel.engine import Work
from millstream.parallel.fault import Fault
from millstream.parallel.fork_server import START, ForkServer
from millstream.parallel.keeper_queue import KeeperQueue
from millstream.parallel.local import Local, Prepared, Setting
from millstream.parallel.parcel import Origin, Parcel, pack, unpack
from millstream.parallel.part_queue import Dynamic, MakeQueue
from millstream.parallel.runs import Run, guided_runs
from millstream.parallel.schedule import Schedule
from millstream.parallel.shared_memory import segment
from millstream.parallel.worker_process import WorkerTraceback

__all__ = ["ProcessCrew"]

LOOKS = 4  # times within a deadline that the driver looks whether workers get on


@dataclass
class _Worker:
    number: int
    pid: int
    channel: Channel
    run: Run | None = None  # what it is at
    task_of: int = 0  # the call of `run` whose task it has
    seen: tuple[int, int] = (0, 0)  # its row of the progress, as last looked at
    answers: ArenaView = field(default_factory=ArenaView)


@dataclass
class _Call:
    """One call of `run`."""

    number: int
    step: int
    task: Parcel
    prepared: Prepared | None
    combines: bool
    accept: Callable[..., None]
    runs: Sequence[Run]
    schedule: Schedule
    keeper: np.ndarray[Any, np.dtype[np.int64]]
    compute: float = 0.0
    combine: float = 0.0
    began: float = field(default_factory=monotonic)
    lost: list[int] = field(default_factory=list)


class ProcessCrew:
    """Hires `n_workers` with the first call of `run`."""

    def __init__(self, n_workers: int, deadline: timedelta, faults: Sequence[Fault]) -> None:
        # configuration
        self._n_workers, self._deadline, self._faults = n_workers, deadline, tuple(faults)
        # the workers
        self._server: ForkServer | None = None
        self._workers: dict[int, _Worker] = {}
        self._hired: list[int] = []  # pids
        self._selector = selectors.DefaultSelector()
        self._progress = np.zeros(
            (n_workers, 2), np.int64
        )  # parts finished; the last call whose task is loaded
        # what they know and what is known of them
        self._n_calls = 0
        self._settings: dict[int, tuple[int, Setting]] = {}  # by id, which the setting here keeps its own
        self._keepers: dict[
            str, np.ndarray[Any, np.dtype[np.int64]]
        ] = {}  # by view: who computed a part last
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
        parcel = self._prepare(task, combine)
        try:
            runs, schedule, keeper = self._plan(task, n_tasks, queue)
            self._n_calls += 1
            prepared = task if isinstance(task, Prepared) else None
            call = _Call(
                self._n_calls, step, parcel, prepared, combine is not None, accept, runs, schedule, keeper
            )
            workers = len(self._workers)
            self._attend(call)
        finally:
            parcel.close()
        self._part_seconds = call.compute / n_tasks
        wait = max(0.0, (perf_counter() - started) * workers - call.compute - call.combine)
        return Work(call.compute, call.combine, wait, tuple(call.lost))

    def close(self) -> None:
        """Kill the workers, whatever they are at, and wait until they are gone."""
        for worker in self._workers.values():
            worker.channel.close()
        self._workers = {}
        self._selector.close()
        if self._server is not None:
            self._server.end(self._hired)

    def _prepare(self, task: Any, combine: Any) -> Parcel:
        """Hire workers if there are none yet, and send them what lasts; returns the task, packed."""
        setting = task.setting if isinstance(task, Local | Prepared) else None
        lasting = None
        if setting is not None and id(setting) not in self._settings:
            lasting = pack(setting)
            self._settings[id(setting)] = len(self._settings), setting
        try:
            sent = None if isinstance(task, Prepared) else task  # what is prepared is sent with its part
            parcel = pack((sent, combine), self._known)
            if self._server is None:
                self._hire({**parcel.origins, **(lasting.origins if lasting else {})})
            if lasting is not None:
                about = "setting", self._settings[id(setting)][0], lasting.about
                for worker in self._workers.values():
                    self._send(worker, about, lasting)
        finally:
            if lasting is not None:
                lasting.close()
        return parcel

    @property
    def _known(self) -> dict[int, int]:
        """The settings that the workers have, by id."""
        return {key: number for key, (number, _) in self._settings.items()}

    def _hire(self, origins: Mapping[str, Origin]) -> None:
        self._server = ForkServer.shared()
        ours = [name for name in origins if name.startswith("millstream.")]
        workers = self._server.fork(self._n_workers, ours)
        self._hired = [pid for pid, _ in workers]
        handle, _ = segment([memoryview(self._progress.tobytes())])
        try:
            self._progress = np.frombuffer(mmap.mmap(handle, 0), np.int64).reshape(-1, 2)
            for number, (pid, channel) in enumerate(workers):
                channel.socket.settimeout(self._deadline.total_seconds())
                worker = self._workers[number] = _Worker(number, pid, channel)
                self._selector.register(channel, selectors.EVENT_READ, data=worker)
                progress = Parcel(b"", (), (handle,), frozenset([handle]))
                self._send(worker, ("hire", number, self._faults, sys.path, os.getcwd()), progress)
        finally:
            os.close(handle)

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
        self._give_all(call)
        while not call.schedule.done:
            for key, _ in self._selector.select(look if self._workers else 0):
                self._take(call, key.data)
            if not call.schedule.done:
                self._look_around(call)

    def _give_all(self, call: _Call) -> None:
        for worker in list(self._workers.values()):
            self._give(call, worker)

    def _give(self, call: _Call, worker: _Worker) -> None:
        """The next run for a worker that has time, if there is one."""
        if worker.run is not None or worker.number not in self._workers:
            return
        assignment = call.schedule.take(worker.number, monotonic())
        if assignment is None:
            return
        run = worker.run = call.runs[assignment.index]
        about = "run", call.number, call.step, assignment.index, run.first, run.count, assignment.attempt
        news = call.task if worker.task_of != call.number else Parcel(b"")
        if call.prepared is not None:
            news = pack((call.prepared.prepare(run.first), None), self._known)
        worker.task_of = call.number
        sent = self._send(worker, (*about, worker.answers.released(), news.about), news)
        if call.prepared is not None:
            news.close()
        if not sent:
            self._lose(call, worker)

    def _take(self, call: _Call, worker: _Worker) -> None:
        """A message of a worker, or its end."""
        if worker.number not in self._workers:
            return
        try:
            message = worker.channel.receive()
        except (EOFError, OSError):
            self._lose(call, worker)
            return
        kind, number, *about = message.about
        run, worker.run = worker.run, None
        if kind == "error":
            text, parcel = about
            error: BaseException = unpack(message.stream, parcel, message.descriptors)
            raise error from WorkerTraceback(text)
        index, compute, combine, parcel = about
        if number == call.number:
            assert run is not None
            call.compute += compute
            call.combine += combine
            call.keeper[run.first : run.first + run.count] = worker.number
            if call.prepared is not None:  # the next part is prepared from what this one changes
                (one,) = unpack(message.stream, parcel, message.descriptors, view=worker.answers)
                call.accept(run.first, one)
            call.schedule.finish(worker.number, index)
        self._give(call, worker)  # so that it works while the result is combined here
        if call.schedule.paced:
            self._give_all(call)
        if call.prepared is not None:
            return
        result = unpack(message.stream, parcel, message.descriptors, view=worker.answers)
        if number != call.number:  # of a call that ended with an error
            return
        assert run is not None
        if call.combines:
            call.accept(run.first, result, run.level)
            return
        for offset, one in enumerate(result):
            call.accept(run.first + offset, one)

    def _look_around(self, call: _Call) -> None:
        """Lose who is stuck; hand on what they held."""
        now = monotonic()
        for worker in self._workers.values():
            row = self._progress[worker.number]
            seen = int(row[0]), int(row[1])
            if seen != worker.seen:
                worker.seen = seen
                call.schedule.renew(worker.number, now)
        for number in call.schedule.overdue(now):
            worker = self._workers[number]
            # The first task may take long to load: modules are imported, a script is run.
            if worker.seen[1] == 0 and now - call.began < START.total_seconds():
                continue
            assert self._server is not None
            self._server.end([worker.pid])
            self._lose(call, worker)
            if call.schedule.stranded:
                raise DeadlineExceeded(
                    f"step {call.step}: no worker is left of {self._n_workers}, and the last was at one part for "
                    f"longer than {self._deadline}; raise Processes(deadline=), or make parts smaller"
                )
        if call.schedule.stranded:
            raise WorkerLost(
                f"step {call.step}: all {self._n_workers} worker processes died; if memory ran out (see dmesg), use "
                "fewer workers or smaller parts, else fit again"
            )

    def _send(self, worker: _Worker, about: tuple[Any, ...], parcel: Parcel) -> bool:
        """False if the worker is gone, or does not take it within the deadline."""
        try:
            worker.channel.send(about, parcel.stream, parcel.descriptors)
        except OSError:
            return False
        return True

    def _lose(self, call: _Call, worker: _Worker) -> None:
        if worker.number not in self._workers:
            return
        del self._workers[worker.number]
        self._selector.unregister(worker.channel)
        worker.channel.close()
        call.lost.append(worker.number)
        call.schedule.lose(worker.number)
        self._give_all(call)
