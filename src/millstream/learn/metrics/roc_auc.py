"""The area under the ROC curve, exact and mergeable.

The state is a sorted table: each distinct score with the weight of positive and of negative rows that got it. Two
tables merge by score, so the figure is that of all rows together, ties counted one half (Mann and Whitney 1947; Fawcett
2006, *An introduction to ROC analysis*, section 7). Memory is 24 bytes a distinct score.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from millstream.errors import InputError
from millstream.learn.metrics.metric import rows_of_equal_length

__all__ = ["RocAuc"]


def _empty() -> NDArray[np.float64]:
    return np.empty(0)


@dataclass
class RocAuc:
    """The chance that a random ``positive`` row scores above a random other one; ``nan`` while one side is missing.

    Example:
        >>> left = RocAuc().update([0, 1], [0.1, 0.4])
        >>> left.merge(RocAuc().update([0, 1], [0.35, 0.3])).result
        0.75
    """

    positive: Any = 1
    score: NDArray[np.float64] = field(default_factory=_empty)  # (distinct,) ascending
    positives: NDArray[np.float64] = field(default_factory=_empty)  # (distinct,) weight of positive rows
    negatives: NDArray[np.float64] = field(default_factory=_empty)  # (distinct,) weight of the others

    def update(self, y: ArrayLike, prediction: ArrayLike, weight: ArrayLike | None = None) -> Self:
        """prediction: ``(rows,)`` scores, larger for more likely positive; any monotone scale will do."""
        labels, scores, weights = rows_of_equal_length(y, prediction, weight)
        if np.isnan(scores).any():
            raise InputError(f"the score of row {int(np.isnan(scores).argmax())} is NaN; expected a number")
        is_positive = labels == self.positive
        return self._add(scores, weights * is_positive, weights * ~is_positive)

    def merge(self, other: Self) -> Self:
        return self._add(other.score, other.positives, other.negatives)

    def _add(self, score: ArrayLike, positives: NDArray[Any], negatives: NDArray[Any]) -> Self:
        together = np.concatenate([self.score, np.asarray(score, dtype=np.float64)])
        distinct, place = np.unique(together, return_inverse=True)
        self.positives = _summed(place, np.concatenate([self.positives, positives]), len(distinct))
        self.negatives = _summed(place, np.concatenate([self.negatives, negatives]), len(distinct))
        self.score = distinct
        return self

    @property
    def result(self) -> float:
        total = self.positives.sum() * self.negatives.sum()
        below = np.cumsum(self.negatives) - self.negatives
        return float(self.positives @ (below + 0.5 * self.negatives) / total) if total else float("nan")

    def curve(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """False and true positive rates as the threshold falls, ``(distinct + 1,)`` each, from (0, 0) to (1, 1)."""
        false = np.concatenate([[0.0], np.cumsum(self.negatives[::-1])])
        true = np.concatenate([[0.0], np.cumsum(self.positives[::-1])])
        return false / self.negatives.sum(), true / self.positives.sum()


def _summed(place: NDArray[np.intp], weight: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    return np.bincount(place, weight, n).astype(np.float64, copy=False)
