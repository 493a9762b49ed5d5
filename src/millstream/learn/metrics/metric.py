"""What every metric is: a state that takes rows, merges with its kind and gives one figure."""

from __future__ import annotations

from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from millstream.errors import InputError

__all__ = ["Metric", "rows_of_equal_length"]


@runtime_checkable
class Metric(Protocol):
    """Laws: ``merge`` is associative; a new metric is its neutral element; no rows give ``nan``."""

    def update(self, y: ArrayLike, prediction: ArrayLike, weight: ArrayLike | None = None) -> Self:
        """Takes rows in. y: ``(rows,)`` true labels; prediction: labels or scores, as the metric says."""

    def merge(self, other: Self) -> Self:
        """Takes in every row that the other has seen."""

    @property
    def result(self) -> float:
        """The figure over every row so far."""


def rows_of_equal_length(
    y: ArrayLike, prediction: ArrayLike, weight: ArrayLike | None
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
    """The three as arrays; weights default to one a row."""
    labels, predicted = np.asarray(y), np.asarray(prediction)
    weights = np.ones(len(labels)) if weight is None else np.asarray(weight, dtype=np.float64)
    if not len(labels) == len(predicted) == len(weights):
        raise InputError(
            f"{len(labels)} labels, {len(predicted)} predictions and {len(weights)} weights came; "
            "expected as many of each"
        )
    return labels, predicted, weights
