"""One BLAS thread a worker.

The last bits of a matrix product depend on how many threads computed it, so a fit limits BLAS to one thread
at every width, in `local` and in `update`, and restores the former number when the last fit ends. The limit
belongs to the process and not to a thread; hence the count of leases.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

__all__ = ["one_blas_thread"]


class _Lease:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._limits: threadpool_limits | None = None

    def take(self) -> None:
        with self._lock:
            if self._limits is None:
                # SciPy brings its own OpenBLAS; loaded later, inside a worker, it would escape the limit.
                importlib.import_module("scipy.linalg")
                self._limits = threadpool_limits(limits=1, user_api="blas")
            self._count += 1

    def give_back(self) -> None:
        with self._lock:
            self._count -= 1
            if self._count == 0 and self._limits is not None:
                self._limits.restore_original_limits()
                self._limits = None


_lease = _Lease()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Within the context every BLAS library of the process computes with one thread; nests and overlaps."""
    _lease.take()
    try:
        yield
    finally:
        _lease.give_back()
