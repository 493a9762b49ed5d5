"""What went over a parameter server."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Meter", "Traffic"]


@dataclass(frozen=True)
class Traffic:
    """Counters of a parameter server.

    pushes, duplicates, pulls, unchanged: deltas that were new; that had been there before; reads; and of these, reads
    answered with "you have it". pushed_bytes, pulled_bytes: what the messages would take on a wire. waited: seconds
    that readers waited for slower sources, summed over them. recovered: shards that were lost and recovered.
    staleness: how many reads found the slowest source so many rounds behind the reader.
    """

    pushes: int = 0
    duplicates: int = 0
    pulls: int = 0
    unchanged: int = 0
    pushed_bytes: int = 0
    pulled_bytes: int = 0
    waited: float = 0.0
    recovered: int = 0
    staleness: Mapping[int, int] = field(default_factory=dict)

    @property
    def most_stale(self) -> int:
        """Rounds that the slowest source was behind the reader, at most; 0 before the first read."""
        return max(self.staleness, default=0)

    def __str__(self) -> str:
        behind = ", ".join(f"{rounds}: {reads}" for rounds, reads in self.staleness.items())
        return (
            f"{self.pushes} pushes of {self.pushed_bytes / 1e6:.3g} MB, {self.pulls} pulls of "
            f"{self.pulled_bytes / 1e6:.3g} MB, rounds behind the reader: {behind or 'none read'}"
        )


class Meter:
    """Adds up a `Traffic`; called from several threads.

    >>> meter = Meter()
    >>> meter.count(pulls=1, waited=0.5, stale=2)
    >>> meter.traffic.pulls, meter.traffic.staleness
    (1, {2: 1})
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: dict[str, float] = {}
        self._staleness: dict[int, int] = {}

    def count(self, stale: int | None = None, **amounts: float) -> None:
        """Add to the counters named."""
        with self._lock:
            for name, amount in amounts.items():
                self._sums[name] = self._sums.get(name, 0) + amount
            if stale is not None:
                self._staleness[stale] = self._staleness.get(stale, 0) + 1

    @property
    def traffic(self) -> Traffic:
        """The counters as they are now."""
        with self._lock:
            sums = {name: amount if name == "waited" else int(amount) for name, amount in self._sums.items()}
            return Traffic(**sums, staleness=dict(sorted(self._staleness.items())))  # type: ignore[arg-type]
