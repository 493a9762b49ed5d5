"""Where statistics meet: a pairwise tree over part indices, fixed by their number alone.

::

    level 2              0-4
                    ┌─────┴─────┐
    level 1        0-1         2-3      4
                  ┌─┴─┐       ┌─┴─┐     │
    level 0       0   1       2   3     4        parts

Node k of level l covers the parts ``k * 2**l`` to ``(k + 1) * 2**l - 1`` that exist; a node without a right
neighbour moves up as it is. Floating-point addition is not associative, so the order of a sum decides its
last bits; here the order is the tree's, whoever computed what and whoever was first. Rounding error grows
with log2(parts) instead of parts (Higham, "The accuracy of floating point summation", SIAM J. Sci. Comput.
1993).

Whoever brings the second of two neighbours combines them at once, on its own thread. Workers that take
parts in order therefore hold at most workers x log2(parts) statistics together.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

import numpy as np

from millstream.errors import TrainingError
from millstream.parallel.operation import SUM, Op

__all__ = ["PairwiseTree", "Reduction", "Statistic", "combined", "pairwise"]

Statistic = Mapping[str, np.ndarray[Any, Any]]
R = TypeVar("R")


class Reduction(Protocol):
    """Takes the statistic of every part, in any order, and gives their combination.

    Laws: `insert` may be called from several threads, and for one part twice (the second call changes nothing);
    `result` after every part was inserted depends on the statistics alone, not on who brought them when.
    """

    def insert(self, index: int, statistic: Statistic, level: int = 0, /) -> None:
        """`statistic` is of part `index`, or of ``2**level`` parts from there on, combined as `pairwise` does."""
        ...

    def result(self) -> Statistic: ...


class PairwiseTree:
    """The fixed tree.

    >>> tree = PairwiseTree(3, {})
    >>> for part in (2, 0, 1):
    ...     tree.insert(part, {"n": np.array(10**part)})
    >>> tree.result()
    {'n': array(111)}
    """

    def __init__(self, n_parts: int, operations: Mapping[str, Op]) -> None:
        self._widths = _widths(n_parts)
        self._operations = operations
        self._lock = threading.Lock()
        self._inserted: set[int] = set()
        self._nodes: dict[tuple[int, int], Statistic] = {}
        self.most_held = 0

    def insert(self, index: int, statistic: Statistic, level: int = 0) -> None:
        with self._lock:
            if index in self._inserted:
                return
            self._inserted.add(index)
            pair = self._place(level, index >> level, statistic)
        self._climb(pair)

    def result(self) -> Statistic:
        """The root. Completes what a worker that was lost while combining has left undone."""
        for level, width in enumerate(self._widths[:-1]):
            for left in range(0, width, 2):
                self._climb((level, left))
        return self._nodes[len(self._widths) - 1, 0]

    def _place(self, level: int, k: int, statistic: Statistic) -> tuple[int, int] | None:
        """Put a node in its place; returns the left node of the pair it completes, if it does."""
        while level + 1 < len(self._widths) and k == self._widths[level] - 1 and k % 2 == 0:
            level, k = level + 1, k // 2  # no right neighbour: up as it is
        self._nodes[level, k] = statistic
        self.most_held = max(self.most_held, len(self._nodes))
        left = k - k % 2
        return (level, left) if (level, left) in self._nodes and (level, left + 1) in self._nodes else None

    def _climb(self, pair: tuple[int, int] | None) -> None:
        while pair is not None:
            level, k = pair
            with self._lock:
                left, right = self._nodes.get((level, k)), self._nodes.get((level, k + 1))
            if left is None or right is None:
                return
            both = combined(left, right, self._operations)
            with self._lock:
                if self._nodes.get((level, k)) is not left:  # someone else has done it meanwhile
                    return
                del self._nodes[level, k], self._nodes[level, k + 1]
                pair = self._place(level + 1, k // 2, both)


def _widths(n_parts: int) -> list[int]:
    widths = [n_parts]
    while widths[-1] > 1:
        widths.append((widths[-1] + 1) // 2)
    return widths


def pairwise(results: Iterable[R], combine: Callable[[R, R], R]) -> R:
    """Combine neighbours as the tree does, holding log2 of them; of an aligned run of parts this is the tree's node.

    >>> pairwise(["0", "1", "2", "3", "4"], lambda left, right: f"({left} {right})")
    '(((0 1) (2 3)) 4)'
    """
    held: list[tuple[int, R]] = []  # levels fall from left to right
    for result in results:
        level = 0
        while held and held[-1][0] == level:
            result, level = combine(held.pop()[1], result), level + 1
        held.append((level, result))
    while len(held) > 1:
        right = held.pop()[1]
        held.append((0, combine(held.pop()[1], right)))
    return held[0][1]


def combined(left: Statistic, right: Statistic, operations: Mapping[str, Op]) -> Statistic:
    """Field by field."""
    if left.keys() != right.keys():
        raise TrainingError(
            f"one part returned the fields {sorted(left)} and another {sorted(right)}; "
            "return the same fields from every part, also from one without rows"
        )
    return {name: operations.get(name, SUM)(left[name], right[name]) for name in left}
