"""The process that worker processes are forked from.

It has one thread and one BLAS thread, has imported what workers need, and does nothing but wait. So forking it is
safe (fork after BLAS, OpenMP or numba threads deadlocks) and takes milliseconds. It is not multiprocessing's fork
server because that one runs the user's script again in every worker, so that a script without
``if __name__ == "__main__"`` starts itself over and over, and because only a parent that is always idle sees at
once that the driver is gone.

::

    driver ──socket──> fork server ──fork──> worker        requests: prepare, fork, end

Who ends whom: the server ends when the driver's end of the socket is closed, which the kernel does however the driver
ended; the kernel kills a worker, busy or stopped, when the server has ended (PR_SET_PDEATHSIG, prctl(2)).
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import selectors
import signal
import socket

import numpy as np

from millstream.data import from_numpy
from millstream.parallel.blas import one_blas_thread
from millstream.parallel.channel import Channel
from millstream.parallel.worker_process import work

__all__ = ["serve"]

PR_SET_PDEATHSIG = 1
LOOK_SECONDS = (
    2.0  # how often to look whether the driver is still the parent, should its socket have been inherited
)


def serve(descriptor: int) -> None:
    """Serve the driver at the other end of the socket until it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's affair
    _rehearse()
    with one_blas_thread():  # which every worker inherits
        _Server(Channel(socket.socket(fileno=descriptor))).serve()


def _rehearse() -> None:
    """Read a row as `local` does: Arrow imports pandas with its first conversion (0.4 s), which is better done once."""
    for part in from_numpy(np.zeros((1, 1))).parts:
        for block in part.blocks():
            block.X.sum()


class _Server:
    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._children: dict[int, int] = {}  # pid: pidfd
        self._selector = selectors.DefaultSelector()
        self._selector.register(channel, selectors.EVENT_READ)

    def serve(self) -> None:
        driver = os.getppid()
        while os.getppid() == driver:
            for key, _ in self._selector.select(LOOK_SECONDS):
                if key.data in self._children:
                    self._reap(key.data)
                elif key.data is not None:
                    continue  # ended by request a moment ago
                elif not self._answer():
                    return

    def _answer(self) -> bool:
        """Answer one request; False if the driver is gone."""
        try:
            (kind, given), _, descriptors = self._channel.receive()
            if kind == "prepare":
                answer: list[int] = []
                for module in given:
                    importlib.import_module(module)
            elif kind == "fork":
                answer = [self._fork(one, descriptors[at + 1 :]) for at, one in enumerate(descriptors)]
            else:
                answer = [self._end(pid) for pid in given if pid in self._children]
            self._channel.send((kind, answer))
        except (EOFError, OSError):
            return False
        return True

    def _fork(self, descriptor: int, of_others: list[int]) -> int:
        gc.freeze()
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                for other in of_others:  # or the end of another worker would not be seen while this one lives
                    os.close(other)
                self._become_worker(descriptor, server)
                status = 0
            finally:
                os._exit(status)
        os.close(descriptor)
        self._children[pid] = os.pidfd_open(pid)
        self._selector.register(self._children[pid], selectors.EVENT_READ, data=pid)
        return pid

    def _become_worker(self, descriptor: int, server: int) -> None:
        self._channel.close()
        self._selector.close()
        for handle in self._children.values():
            os.close(handle)
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == server:  # or it ended before the kernel was asked
            work(Channel(socket.socket(fileno=descriptor)))

    def _end(self, pid: int) -> int:
        os.kill(pid, signal.SIGKILL)
        self._reap(pid)
        return pid

    def _reap(self, pid: int) -> None:
        os.waitpid(pid, 0)
        handle = self._children.pop(pid)
        self._selector.unregister(handle)
        os.close(handle)
