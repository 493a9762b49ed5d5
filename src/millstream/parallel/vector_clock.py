"""How far each source of updates is, and who may read what.

A source's clock counts the rounds it has finished. Under stale synchronous parallel (Ho et al., "More effective
distributed ML via a stale synchronous parallel parameter server", NIPS 2013, section 3) with bound s, a source at
clock c may read once every source has finished the rounds below c - s: it then sees all their updates, and may see
later ones too. Bound 0 is a barrier between rounds; no bound at all is asynchronous.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["VectorClock"]


class VectorClock:
    """The clocks of `n` sources.

    >>> clocks = VectorClock(2)
    >>> clocks.advance(0)
    >>> clocks[0], clocks.slowest, clocks.admits(1, bound=0), clocks.admits(1, bound=1)
    (1, 0, False, True)
    """

    def __init__(self, n: int, at: Sequence[int] | None = None) -> None:
        self._clocks = [0] * n if at is None else list(at)
        self._slowest = min(self._clocks)
        self._behind = self._clocks.count(self._slowest)

    def __getitem__(self, source: int) -> int:
        return self._clocks[source]

    def __len__(self) -> int:
        return len(self._clocks)

    @property
    def slowest(self) -> int:
        """Rounds that every source has finished."""
        return self._slowest

    def advance(self, source: int) -> None:
        """The source has finished a round."""
        was_slowest = self._clocks[source] == self._slowest
        self._clocks[source] += 1
        if was_slowest:
            self._behind -= 1
            if not self._behind:
                self._slowest = min(self._clocks)
                self._behind = self._clocks.count(self._slowest)

    def admits(self, clock: int, bound: int | None) -> bool:
        """True if a source at `clock` may read now."""
        return bound is None or clock - bound <= self._slowest

    def snapshot(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """The clocks as (n,) int64."""
        return np.array(self._clocks, dtype=np.int64)
