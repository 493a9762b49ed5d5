"""What a worker process does: wait for parts, compute them, answer. It ends when the driver's end is closed.

::

    from the driver                                        from the worker
    hire      number, faults, sys.path, cwd, progress      -
    setting   number; the setting                          -
    run       run, first, count, attempt; the task         done   run, first, seconds; the result
              if it is another than before                 error  run, first; what was raised

The worker counts the parts it has finished in a word of memory that it shares with the driver, so that one that goes
on slowly can be told from one that is stuck.
"""

from __future__ import annotations

import io
import mmap
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import Any, Literal

import numpy as np

from millstream.errors import MillstreamError, Refused, TrainingError
from millstream.parallel.arena import Arena
from millstream.parallel.channel import Channel, Message
from millstream.parallel.fault import Fault, fault_at
from millstream.parallel.local import Setting
from millstream.parallel.parcel import pack, unpack
from millstream.parallel.tree import pairwise

__all__ = ["Place", "WorkerTraceback", "compute", "enter", "in_other_words", "nested", "place", "work"]

Place = Literal["driver", "worker loading its task", "worker"]

_place: Place = "driver"


def place() -> Place:
    """Where this code runs."""
    return _place


def enter(where: Place) -> None:
    """From now on the code runs there."""
    global _place
    _place = where


def nested() -> bool:
    """True on a worker, where an engine of processes starts no more of them.

    Raises `Refused` where a worker is loading a script that starts a fit.
    """
    if _place == "worker loading its task":
        raise Refused(
            "this script starts processes while a worker process loads it: put what runs under "
            "`if __name__ == '__main__':`, or define the algorithm in a module of its own and import it"
        )
    return _place == "worker"


def compute(
    task: Callable[[int, int], Any],
    combine: Callable[[Any, Any], Any] | None,
    parts: range,
    attempt: int,
    before: Callable[[], None],
    after: Callable[[], None],
) -> tuple[Any, float]:
    """The results of neighbouring parts, combined if there is a `combine`, and the seconds in `task`.

    before, after: called around each part.
    """
    computing = 0.0

    def results() -> Iterator[Any]:
        nonlocal computing
        for index in parts:
            before()
            started = perf_counter()
            result = task(index, attempt)
            computing += perf_counter() - started
            after()
            yield result

    answer = pairwise(results(), combine) if combine else list(results())
    return answer, computing


def in_other_words(error: BaseException) -> TrainingError:
    """For an error that can't be pickled."""
    what = TrainingError(f"{type(error).__name__} in a worker process: {error}")
    for note in getattr(error, "__notes__", ()):
        what.add_note(note)
    return what


class WorkerTraceback(Exception):
    """Where in a worker process an error was raised, as text: the cause of the error as the driver raises it."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0]}"


def work(channel: Channel) -> None:
    """Do what the driver at the other end says, until it is gone."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # a worker is killed in the end; what it printed is not lost
        sys.stdout.reconfigure(line_buffering=True)
    worker = _Worker(channel)
    while True:
        try:
            worker.handle(channel.receive())
        except (EOFError, ConnectionError):
            return


class _Worker:
    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        # given once
        self._number = 0
        self._faults: Sequence[Fault] = ()
        self._progress: np.ndarray[Any, np.dtype[np.int64]] = np.zeros((1, 2), np.int64)
        self._settings: dict[int, Setting] = {}
        self._arena = Arena()
        # of the run that was worked on last
        self._run = -1
        self._step = -1
        self._task: Callable[[int, int], Any]
        self._combine: Callable[[Any, Any], Any] | None = None
        self._finished = 0

    def handle(self, message: Message) -> None:
        kind, *about = message.about
        if kind == "hire":
            self._number, self._faults, sys.path[:], folder = about
            os.chdir(folder)
            self._progress = _counters(message.descriptors[0])
            return
        try:
            enter("worker loading its task")
            if kind == "setting":
                self._settings[about[0]] = self._load(message, about[1])
                return
            run, step, index, first, count, attempt, released, parcel = about
            self._arena.free(released)
            if run != self._run:
                self._run, self._step, self._finished = run, step, 0
            if message.stream:
                self._task, self._combine = self._load(message, parcel)
                self._progress[self._number, 1] = run
            enter("worker")
            self._perform(index, first, count, attempt)
        except BaseException as error:  # noqa: BLE001 - carried to the driver, which raises it
            self._tell(error)
        finally:
            enter("driver")

    def _load(self, message: Message, about: tuple[Any, ...]) -> Any:
        return unpack(message.stream, about, message.descriptors, self._settings)

    def _perform(self, number: int, first: int, count: int, attempt: int) -> None:
        started = perf_counter()
        parts = range(first, first + count)
        answer, computing = compute(self._task, self._combine, parts, attempt, self._suffer, self._count)
        parcel = pack(answer, arena=self._arena)
        combining = perf_counter() - started - computing
        self._send(("done", self._run, number, computing, combining, parcel.about), parcel)

    def _count(self) -> None:
        self._finished += 1
        self._progress[self._number, 0] += 1

    def _suffer(self) -> None:
        fault = fault_at(self._faults, self._step, self._number, self._finished)
        if fault is not None:
            os.kill(os.getpid(), signal.SIGKILL if fault.kind == "die" else signal.SIGSTOP)

    def _tell(self, error: BaseException) -> None:
        text = "".join(traceback.format_exception(error))
        try:
            parcel = pack(error)
            unpack(parcel.stream, parcel.about, [os.dup(handle) for handle in parcel.descriptors])
        except (MillstreamError, TypeError, ValueError, AttributeError, IndexError):
            parcel = pack(in_other_words(error))
        self._send(("error", self._run, text, parcel.about), parcel)

    def _send(self, about: tuple[Any, ...], parcel: Any) -> None:
        try:
            self._channel.send(about, parcel.stream, parcel.descriptors)
        finally:
            parcel.close()


def _counters(descriptor: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    memory = mmap.mmap(descriptor, 0)
    os.close(descriptor)
    return np.frombuffer(memory, np.int64).reshape(-1, 2)
