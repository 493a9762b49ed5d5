"""Accuracy, precision and recall: figures of the two-by-two table of truth and prediction.

Weights are summed, so with whole weights every figure is exact and independent of the order of merging.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from numpy.typing import ArrayLike

from millstream.learn.metrics.metric import rows_of_equal_length

__all__ = ["Accuracy", "Precision", "Recall"]


@dataclass
class Accuracy:
    """The share of rows whose label was predicted, over any number of classes.

    Example:
        >>> Accuracy().update([1, 0, 1], [1, 1, 1]).merge(Accuracy().update([0], [0])).result
        0.75
    """

    right: float = 0.0
    total: float = 0.0

    def update(self, y: ArrayLike, prediction: ArrayLike, weight: ArrayLike | None = None) -> Self:
        """prediction: ``(rows,)`` labels."""
        labels, predicted, weights = rows_of_equal_length(y, prediction, weight)
        self.right += float(weights[labels == predicted].sum())
        self.total += float(weights.sum())
        return self

    def merge(self, other: Self) -> Self:
        self.right += other.right
        self.total += other.total
        return self

    @property
    def result(self) -> float:
        return self.right / self.total if self.total else float("nan")


@dataclass
class _Positives:
    """The three cells of the table that precision and recall need."""

    positive: Any = 1
    true: float = 0.0
    false: float = 0.0
    missed: float = 0.0

    def update(self, y: ArrayLike, prediction: ArrayLike, weight: ArrayLike | None = None) -> Self:
        """prediction: ``(rows,)`` labels."""
        labels, predicted, weights = rows_of_equal_length(y, prediction, weight)
        is_positive, said_positive = labels == self.positive, predicted == self.positive
        self.true += float(weights[is_positive & said_positive].sum())
        self.false += float(weights[~is_positive & said_positive].sum())
        self.missed += float(weights[is_positive & ~said_positive].sum())
        return self

    def merge(self, other: Self) -> Self:
        self.true += other.true
        self.false += other.false
        self.missed += other.missed
        return self


@dataclass
class Precision(_Positives):
    """Of the rows predicted ``positive``, the share that is; 0 where none was predicted but some were due.

    Example:
        >>> Precision().update([1, 0, 1, 0], [1, 1, 1, 0]).result
        0.6666666666666666
    """

    @property
    def result(self) -> float:
        said = self.true + self.false
        return self.true / said if said else (0.0 if self.missed else float("nan"))


@dataclass
class Recall(_Positives):
    """Of the rows that are ``positive``, the share predicted so.

    Example:
        >>> Recall().update([1, 0, 1, 1], [1, 1, 1, 0]).result
        0.6666666666666666
    """

    @property
    def result(self) -> float:
        due = self.true + self.missed
        return self.true / due if due else (0.0 if self.false else float("nan"))
