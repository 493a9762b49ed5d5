"""The driver's hold on the process that workers are forked from: one for each driver, started when first needed."""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta

from millstream.errors import WorkerLost
from millstream.parallel.channel import Channel

__all__ = ["START", "ForkServer"]

# For starting Python and importing what the workers need; on two busy cores that took 4 s.
START = timedelta(seconds=120)

# Set before NumPy is loaded: a worker is one thread, and none of its libraries starts another or spins.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "BLIS_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}

_COMMAND = (
    "import sys; sys.path[:] = {path!r}; "
    "from millstream.parallel.fork_server_process import serve; serve({descriptor})"
)


class ForkServer:
    """Safe to use from several threads; what is asked is asked in turn."""

    _shared: ForkServer | None = None
    _starting = threading.Lock()

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            descriptor = theirs.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-c", _COMMAND.format(path=sys.path, descriptor=descriptor)],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **ONE_THREAD},
                pass_fds=[descriptor],
                start_new_session=True,  # Ctrl-C in our terminal is for us; we then end the workers
            )
        self._owner = os.getpid()
        self._channel = Channel(ours)
        ours.settimeout(START.total_seconds())
        self._asking = threading.Lock()
        self._prepared: set[str] = set()
        self._usable = True

    @classmethod
    def shared(cls) -> ForkServer:
        """The one of this process; a new one if it was lost, or belongs to the process this one was forked from."""
        with cls._starting:
            held = cls._shared
            if (
                held is None
                or not held._usable
                or held._owner != os.getpid()
                or held._process.poll() is not None
            ):
                held = cls._shared = cls()
                atexit.register(held.close)
            return held

    def fork(self, n: int, modules: Iterable[str]) -> list[tuple[int, Channel]]:
        """`n` new workers, which have `modules` imported: the pid of each and the channel to it."""
        missing = sorted(set(modules) - self._prepared)
        if missing:
            self._ask("prepare", missing)
            self._prepared.update(missing)
        pairs = [socket.socketpair() for _ in range(n)]
        try:
            pids = self._ask("fork", [], [theirs.fileno() for _, theirs in pairs])
        except BaseException:
            for ours, _ in pairs:
                ours.close()  # a worker that was forked all the same sees this and ends
            raise
        finally:
            for _, theirs in pairs:
                theirs.close()
        return [(pid, Channel(ours)) for pid, (ours, _) in zip(pids, pairs, strict=True)]

    def end(self, pids: Iterable[int]) -> None:
        """Kill these workers, also stopped ones; returns when they are gone."""
        if self._usable:
            with suppress(WorkerLost):  # if the server is lost they ended with it
                self._ask("end", list(pids))

    def close(self) -> None:
        """End the process and every worker; may be called twice. In a fork of the owner it does nothing."""
        if os.getpid() != self._owner:
            return
        atexit.unregister(self.close)
        self._usable = False
        self._channel.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, kind: str, given: list[int] | list[str], descriptors: Iterable[int] = ()) -> list[int]:
        with self._asking:
            try:
                self._channel.send((kind, given), descriptors=list(descriptors))
                (_, answer), _, _ = self._channel.receive()
            except (EOFError, OSError) as error:
                self.close()
                raise WorkerLost(
                    f"the process that worker processes are forked from does not answer ({error}); its last words "
                    "stand on standard error. Try again, or use Threads()"
                ) from error
            except (
                BaseException
            ):  # interrupted half-way through an answer: what comes next can't be told apart
                self.close()
                raise
            return list(answer)
