"""Speedup and efficiency of the same work on more workers.

``S(p) = T(1) / T(p)`` is the speedup on p workers, ``E(p) = S(p) / p`` the efficiency. What keeps E below one is
summed up by the serial fraction that the measurement itself shows (Karp and Flatt 1990, "Measuring parallel
processor performance", eq. 2), and Amdahl's law turns that fraction into a forecast:
``S(p) = 1 / (f + (1 - f) / p)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from millstream.clock import Clock, SystemClock
from millstream.errors import InputError

__all__ = ["Scaling", "measure", "serial_fraction"]


def serial_fraction(speedup: float, workers: int) -> float:
    """The share of the work that did not run in parallel, between 0 and 1, seen from a measured speedup.

    Superlinear speedup (a cache that suddenly fits) would make it negative and counts as 0.

    >>> round(serial_fraction(speedup=1.6, workers=2), 3)
    0.25
    """
    if workers < 2:
        raise InputError(f"workers={workers}: a serial fraction needs a run on two or more workers")
    fraction = (1 / speedup - 1 / workers) / (1 - 1 / workers)
    return min(1.0, max(0.0, fraction))


@dataclass(frozen=True)
class Scaling:
    """Seconds by number of workers; one worker must be among them.

    >>> scaling = Scaling({1: 8.0, 2: 5.0})
    >>> scaling.speedup(2), scaling.efficiency(2)
    (1.6, 0.8)
    >>> round(scaling.forecast(8), 2)
    2.91
    """

    seconds: Mapping[int, float]

    def __post_init__(self) -> None:
        if 1 not in self.seconds:
            raise InputError(f"measured workers {sorted(self.seconds)}: one worker, the baseline, is missing")
        if any(second <= 0 for second in self.seconds.values()):
            raise InputError(f"seconds must be positive, got {dict(self.seconds)}")

    @property
    def widest(self) -> int:
        """The largest number of workers measured."""
        return max(self.seconds)

    def speedup(self, workers: int) -> float:
        """T(1) / T(workers)."""
        return self.seconds[1] / self.seconds[workers]

    def efficiency(self, workers: int) -> float:
        """Speedup divided by the number of workers."""
        return self.speedup(workers) / workers

    def forecast(self, workers: int) -> float:
        """The speedup that Amdahl's law gives for `workers`, from the serial fraction of the widest run."""
        if self.widest == 1:
            raise InputError("a forecast needs a run on two or more workers; measure with workers=(1, 2)")
        serial = serial_fraction(self.speedup(self.widest), self.widest)
        return 1 / (serial + (1 - serial) / workers)


def measure(
    work: Callable[[int], object],
    workers: Sequence[int] = (1, 2),
    *,
    repeat: int = 3,
    clock: Clock | None = None,
) -> Scaling:
    """Run ``work(p)`` for every p, `repeat` times in turn, and keep the median seconds of each.

    Taking turns (1, 2, 1, 2, ...) spreads the drift of a shared machine over all widths.

    >>> clock = __import__("millstream").ManualClock(auto=True)
    >>> from datetime import timedelta
    >>> measure(lambda p: clock.sleep(timedelta(seconds=6 / p)), clock=clock).seconds
    {1: 6.0, 2: 3.0}
    """
    clock = clock or SystemClock()
    seen: dict[int, list[float]] = {p: [] for p in workers}
    for _ in range(repeat):
        for p in workers:
            start = clock.monotonic()
            work(p)
            seen[p].append(clock.monotonic() - start)
    return Scaling({p: median(seconds) for p, seconds in seen.items()})
