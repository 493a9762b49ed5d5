"""How many neighbouring parts a worker is handed at once.

Long runs cost few messages and few statistics; short runs at the end keep the workers busy until the last moment.
Guided self-scheduling (Polychronopoulos and Kuck, IEEE Trans. Computers 1987) takes a fixed share of what is left.
Each run is a node of the pairwise tree: 2**level parts, the first at a multiple of that.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Run", "guided_runs"]

# A message there and back takes about 0.1 ms; a run shorter than SHORTEST is mostly message, and one of LONGEST
# would gain nothing by being longer.
SHORTEST, LONGEST = 0.001, 0.1  # seconds


@dataclass(frozen=True)
class Run:
    """The parts ``first`` to ``first + count``; all that exist of a node at `level` of the tree."""

    first: int
    count: int
    level: int


def guided_runs(n_parts: int, n_workers: int, seconds: float | None) -> list[Run]:
    """Cut the parts into runs; seconds: what one part is thought to take, or None where nothing is known.

    >>> [run.count for run in guided_runs(19, 2, seconds=0.01)]
    [4, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1]
    >>> [run.count for run in guided_runs(16, 2, seconds=1e-6)]
    [8, 8]
    >>> [run.count for run in guided_runs(3, 5, seconds=None)]
    [1, 1, 1]
    """
    least, most = 0, 0
    if seconds is not None:
        most = _level(LONGEST / max(seconds, 1e-9))
        least = min(_level(2 * SHORTEST / max(seconds, 1e-9)), _level(n_parts / n_workers))
    runs: list[Run] = []
    first = 0
    while first < n_parts:
        level = min(most, max(least, _level((n_parts - first) / (2 * n_workers))))
        while first % (1 << level):
            level -= 1
        count = min(1 << level, n_parts - first)
        runs.append(Run(first, count, level))
        first += count
    return runs


def _level(parts: float) -> int:
    """The greatest level whose runs are no longer than so many parts; at least 0."""
    return max(1, min(int(parts), 1 << 30)).bit_length() - 1
