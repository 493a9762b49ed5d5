"""MOMENTS: count, mean and sum of squared deviations (M2) by column, merged without cancellation.

Chan, Golub, LeVeque, *Updating formulae and a pairwise algorithm for computing sample variances* (1979), equations
2.1a and 2.1b; *Algorithms for computing the sample variance* (The American Statistician, 1983). The mean is kept as
two numbers, itself and what it lost to rounding: for values of 1e8 that spread over 1e-4 the difference of two means
would otherwise be rounding alone.

Associative up to rounding: the error of M2 is bounded by about ``eps * log2(parts) * kappa``, where kappa is the
condition number ``sqrt(1 + mean**2 / variance)`` (1983, table 1, pairwise), less what the kept rest saves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from millstream.parallel.operation import Op

__all__ = ["MOMENTS", "moments"]

Array = NDArray[np.float64]


def moments(X: NDArray[np.floating[Any]], weight: Array | None = None) -> Array:
    """``(4, features)`` of ``(rows, features)``: weight, mean, what the mean lost to rounding, M2; float64.

    NaN counts as missing: it enters neither the weight nor the mean of its column. Without `weight`, (rows,), every
    row counts 1. No rows give zeros, which MOMENTS leaves out.

    >>> weight, mean, rest, m2 = MOMENTS(moments(np.array([[1.0], [2.0]])), moments(np.array([[6.0]])))
    >>> float(weight[0]), float(mean[0]), float(m2[0])
    (3.0, 3.0, 14.0)
    """
    weight = np.ones(len(X)) if weight is None else weight
    present = ~np.isnan(X)
    complete = bool(present.all())
    weights = weight[:, None] if complete else weight[:, None] * present
    filled = X.astype(np.float64, copy=False) if complete else np.where(present, X, 0.0)
    total = np.broadcast_to(weights.sum(axis=0), X.shape[1:])
    divisor = np.where(total > 0, total, 1.0)
    mean = (weights * filled).sum(axis=0) / divisor
    deviation = filled - mean
    weighted = weights * deviation
    rest = weighted.sum(axis=0) / divisor
    squares = (weighted * deviation).sum(axis=0) - total * rest**2
    return np.stack([total, mean, rest, np.maximum(squares, 0.0)])


def _merged(left: Array, right: Array) -> Array:
    total = left[0] + right[0]
    share = right[0] / np.where(total > 0, total, 1.0)
    delta = (right[1] - left[1]) + (right[2] - left[2])
    move = left[2] + delta * share
    mean = left[1] + move
    rest = move - (mean - left[1])
    both = np.stack([total, mean, rest, left[3] + right[3] + delta**2 * left[0] * share])
    return np.where(left[0] == 0, right, np.where(right[0] == 0, left, both))


MOMENTS = Op("MOMENTS", _merged)
