"""What one core of this machine can do: the yardstick of a report.

Two bounds decide how fast `local` can be (Williams, Waterman, Patterson, "Roofline", CACM 2009): arithmetic, for which
a float32 matrix product stands, and reading memory, for which a dot product of arrays larger than the caches stands.
Both are measured with one BLAS thread, as a worker computes, in about half a second together, and kept in the user's
cache directory, so that a machine is measured once. On a busy machine they come out too low, and shares too high:
remove the file to measure again.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from millstream.parallel.blas import one_blas_thread

__all__ = ["Limits", "measure_limits"]

_SECONDS = 0.12  # for each of the two, after one round that warms up
_ORDER = 768  # of the product: 7 MB of operands, about 10 ms a product on one core
_BYTES = 256 << 20  # of the array that is read: more than most sockets' caches hold


@dataclass(frozen=True)
class Limits:
    """Rates of one core with one BLAS thread.

    sgemm: float32 operations a second in a matrix product. bandwidth: bytes read from memory a second.
    """

    sgemm: float
    bandwidth: float

    def __str__(self) -> str:
        return (
            f"one core: sgemm {self.sgemm / 1e9:.0f} GFLOP/s, reading memory {self.bandwidth / 1e9:.1f} GB/s"
        )


def measure_limits(cache: Path | None = None) -> Limits:
    """The limits of this machine: from the cache where they are known, else measured and written there.

    cache: a directory, by default ``$XDG_CACHE_HOME/millstream`` or ``~/.cache/millstream``. A file there that can't
    be read or written costs a measurement and nothing else.
    """
    path = (_cache_directory() if cache is None else cache) / f"limits-{_machine()}.json"
    found = _read(path)
    if found is not None:
        return found
    with one_blas_thread():
        limits = Limits(_sgemm(), _bandwidth())
    _write(path, limits)
    return limits


def _sgemm() -> float:
    A = np.full((_ORDER, _ORDER), 0.5, "f4")
    out = np.empty_like(A)
    return 2 * _ORDER**3 / _best_of(lambda: np.matmul(A, A, out=out))


def _bandwidth() -> float:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    array = np.full(min(_BYTES, memory // 16) // 4, 0.5, "f4")
    return array.nbytes / _best_of(lambda: np.dot(array, array))


def _best_of(call: Callable[[], object]) -> float:
    """The shortest of the calls that fit into `_SECONDS`, at least two."""
    call()
    until = perf_counter() + _SECONDS
    best = float("inf")
    while True:
        started = perf_counter()
        call()
        ended = perf_counter()
        best = min(best, ended - started)
        if ended > until:
            return best


def _machine() -> str:
    """Distinguishes machines that share a home directory, and the libraries that do the work."""
    name = f"{platform.node()}-{platform.machine()}-{os.cpu_count()}-numpy{np.__version__}"
    return "".join(c if c.isalnum() or c in "-._" else "_" for c in name)


def _cache_directory() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "millstream"


def _read(path: Path) -> Limits | None:
    try:
        record = json.loads(path.read_text())
        limits = Limits(float(record["sgemm"]), float(record["bandwidth"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return limits if 0 < limits.sgemm < np.inf and 0 < limits.bandwidth < np.inf else None


def _write(path: Path, limits: Limits) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(asdict(limits)))
        beside.replace(path)
    except OSError:  # a read-only home: measured again next time
        with suppress(OSError):
            beside.unlink()
