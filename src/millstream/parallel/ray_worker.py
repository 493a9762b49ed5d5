"""What a Ray actor does, and what travels between it and the driver.

An actor does what a worker process does (`worker_process`); only the way there is another. Ray takes the place of the
channel, and its object store that of shared memory: a `Packet` is put there once, and read where it lies by every
actor of a machine. A row-major copy has no name; actors of the driver's machine open it through the driver's
descriptor, others are sent its bytes.
"""

from __future__ import annotations

import mmap
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from millstream.errors import MillstreamError
from millstream.parallel.blas import one_blas_thread
from millstream.parallel.fault import Fault, fault_at
from millstream.parallel.local import Setting
from millstream.parallel.parcel import Origin, Pickled, unpickled
from millstream.parallel.shared_memory import segment
from millstream.parallel.worker_process import compute, enter, in_other_words

__all__ = ["Packet", "Probe", "RayWorker"]

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True)
class Packet:
    """Content on its way; Ray leaves the arrays where the object store has them.

    buffers, order: as in `Pickled`. files: of each mapped file the path under /proc, or all its bytes.
    """

    stream: bytes
    buffers: tuple[Bytes, ...]
    order: tuple[int, ...]
    files: tuple[str | Bytes, ...]
    origins: Mapping[str, Origin]

    @classmethod
    def of(cls, content: Any, settings: Mapping[int, int] | None = None, *, near: bool) -> Packet:
        """near: the receiver is on this machine. Raises `Refused` for what can't be sent."""
        pickled = Pickled.of(content, settings)
        buffers = tuple(np.frombuffer(buffer, np.uint8) for buffer in pickled.buffers)
        files = tuple(_path(handle) if near else _content(handle) for handle in pickled.files)
        return cls(pickled.stream, buffers, tuple(pickled.order), files, pickled.origins)

    def content(self, settings: Mapping[int, Setting] | None = None) -> Any:
        """What was packed; its large arrays lie in the object store and can't be written."""
        return self._content(self.buffers, settings)

    def writable(self) -> Any:
        """What was packed, copied out of the object store."""
        return self._content([bytearray(buffer) for buffer in self.buffers], None)

    def _content(self, buffers: Sequence[Any], settings: Mapping[int, Setting] | None) -> Any:
        files = [_opened(file) for file in self.files]
        return unpickled(self.stream, [buffers[at] for at in self.order], files, self.origins, settings)


def _path(descriptor: int) -> str:
    return f"/proc/{os.getpid()}/fd/{descriptor}"


def _content(descriptor: int) -> Bytes:
    return np.frombuffer(mmap.mmap(descriptor, 0, prot=mmap.PROT_READ), np.uint8)


def _opened(file: str | Bytes) -> int:
    if isinstance(file, str):
        return os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    return segment([file.data])[0]


@dataclass(frozen=True)
class Probe:
    """A file of the driver: who can read the same bytes under its path is on its machine."""

    path: str
    secret: bytes

    @classmethod
    def of(cls, descriptor: int) -> Probe:
        secret = os.urandom(16)
        os.pwrite(descriptor, secret, 0)
        return cls(_path(descriptor), secret)

    def near(self) -> bool:
        try:
            with open(self.path, "rb") as file:
                return file.read(len(self.secret)) == self.secret
        except OSError:
            return False


class RayWorker:
    """The actor. One call of `setting` or `run` at a time; `progress` answers meanwhile."""

    def __init__(self, number: int, faults: Sequence[Fault], path: Sequence[str], folder: str) -> None:
        # given once
        self._number, self._faults = number, faults
        self._settings: dict[int, Setting] = {}
        sys.path[:] = [*path, *(entry for entry in sys.path if entry not in path)]
        if os.path.isdir(folder):  # on the driver's machine
            os.chdir(folder)
        self._one_blas_thread = one_blas_thread()  # for as long as the actor lives
        self._one_blas_thread.__enter__()
        # of the call that was worked on last
        self._call = self._loaded = self._step = -1
        self._task: Callable[[int, int], Any]
        self._combine: Callable[[Any, Any], Any] | None = None
        self._finished = self._finished_ever = 0

    def hired(self, probe: Probe) -> tuple[int, bool]:
        """The process, and whether it is on the driver's machine."""
        return os.getpid(), probe.near()

    def progress(self) -> tuple[int, int]:
        """Parts finished; the last call whose task is loaded, or -1."""
        return self._finished_ever, self._loaded

    def setting(self, number: int, packet: Packet) -> tuple[Any, ...] | None:
        """Keep the setting under that number; returns an error, or None."""
        try:
            enter("worker loading its task")
            self._settings[number] = packet.content()
        except BaseException as error:  # noqa: BLE001 - carried to the driver, which raises it
            return _told(error)
        return None

    def run(
        self, call: int, step: int, first: int, count: int, attempt: int, packet: Packet | None
    ) -> tuple[Any, ...]:
        """Compute a run of parts: ("done", seconds in the task, others, packet) or ("error", traceback, packet).

        packet: task and combine, where the call is another than before.
        """
        started = perf_counter()
        try:
            if packet is not None:
                enter("worker loading its task")
                self._call, self._step, self._finished = call, step, 0
                self._task, self._combine = packet.content(self._settings)
                self._loaded = call
            enter("worker")
            parts = range(first, first + count)
            answer, computing = compute(self._task, self._combine, parts, attempt, self._suffer, self._count)
            result = Packet.of(answer, near=False)
        except BaseException as error:  # noqa: BLE001 - carried to the driver, which raises it
            return _told(error)
        return "done", computing, perf_counter() - started - computing, result

    def _count(self) -> None:
        self._finished += 1
        self._finished_ever += 1

    def _suffer(self) -> None:
        fault = fault_at(self._faults, self._step, self._number, self._finished)
        if fault is not None:
            os.kill(os.getpid(), signal.SIGKILL if fault.kind == "die" else signal.SIGSTOP)


def _told(error: BaseException) -> tuple[Any, ...]:
    text = "".join(traceback.format_exception(error))
    try:
        packet = Packet.of(error, near=False)
        packet.content()
    except (MillstreamError, pickle.PicklingError, TypeError, ValueError, AttributeError, IndexError):
        packet = Packet.of(in_other_words(error), near=False)
    return "error", text, packet
