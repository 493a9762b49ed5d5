"""The mean negative log-likelihood of the true class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from millstream.errors import InputError
from millstream.learn.metrics.metric import rows_of_equal_length

__all__ = ["LogLoss"]


@dataclass
class LogLoss:
    """``- mean log p(true class)``; a probability of exactly 0 is taken as the dtype's epsilon, as scikit-learn does.

    classes: sorted labels, one a column of the probabilities.

    Example:
        >>> round(LogLoss(classes=[0, 1]).update([0, 1], [[0.9, 0.1], [0.2, 0.8]]).result, 4)
        0.1643
    """

    classes: Sequence[Any] = (0, 1)
    loss: float = 0.0
    total: float = 0.0

    def update(self, y: ArrayLike, prediction: ArrayLike, weight: ArrayLike | None = None) -> Self:
        """prediction: ``(rows, classes)`` probabilities, or ``(rows,)`` of the second of two classes."""
        labels, probability, weights = rows_of_equal_length(y, prediction, weight)
        if probability.ndim == 1:
            probability = np.stack([1.0 - probability, probability], axis=1)
        known = np.asarray(self.classes)
        if probability.shape[1] != len(known):
            raise InputError(f"{probability.shape[1]} columns of probabilities came for {len(known)} classes")
        column = np.minimum(np.searchsorted(known, labels), len(known) - 1)
        unknown = labels[known[column] != labels]
        if len(unknown):
            raise InputError(f"label {unknown[0]!r} is none of the classes {list(self.classes)}")
        epsilon = np.finfo(probability.dtype).eps
        clipped = np.clip(probability[np.arange(len(labels)), column], epsilon, 1.0 - epsilon)
        self.loss -= float(weights @ np.log(clipped))
        self.total += float(weights.sum())
        return self

    def merge(self, other: Self) -> Self:
        self.loss += other.loss
        self.total += other.total
        return self

    @property
    def result(self) -> float:
        return self.loss / self.total if self.total else float("nan")
