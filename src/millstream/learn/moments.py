"""Weight, mean and sum of squared deviations by column, merged over parts: one read of the rows, no cancellation.

The mean is kept as two numbers, itself and what it lost to rounding: for values of 1e8 that spread over 1e-4 the
difference of two means would otherwise be rounding alone. NaN counts as missing: it enters neither the weight nor the
mean of its column.

Source: Chan, Golub, LeVeque, *Updating formulae and a pairwise algorithm for computing sample variances* (1979),
equations 2.1a and 2.1b.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millstream.data import Part
from millstream.parallel import Context, Done, Meta, Op

__all__ = ["MERGE", "Moments", "merged", "moments"]

Array = NDArray[np.float64]


def moments(X: NDArray[np.floating], weight: Array) -> Array:
    """``(4, features)`` of ``(rows, features)``: weight, mean, what the mean lost to rounding, squared deviations."""
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


def merged(left: Array, right: Array) -> Array:
    """The moments of both sets of rows together."""
    total = left[0] + right[0]
    share = right[0] / np.where(total > 0, total, 1.0)
    delta = (right[1] - left[1]) + (right[2] - left[2])
    move = left[2] + delta * share
    mean = left[1] + move
    rest = move - (mean - left[1])
    both = np.stack([total, mean, rest, left[3] + right[3] + delta**2 * left[0] * share])
    return np.where(left[0] == 0, right, np.where(right[0] == 0, left, both))


MERGE = Op("moments", merged)


@dataclass(frozen=True)
class Moments:
    """An algorithm of one step: ``Done.params["moments"]`` is ``(4, features)`` float64."""

    single_pass = True
    combine = {"moments": MERGE}  # noqa: RUF012

    def init(self, meta: Meta, rng: np.random.Generator) -> dict[str, Any]:
        return {"n_features": len(meta.schema.feature_names)}

    def local(self, params: Mapping[str, Any], part: Part, ctx: Context) -> dict[str, Array]:
        total = np.zeros((4, int(params["n_features"])))
        for block in part.blocks():
            total = merged(total, moments(block.X, block.weight))
        return {"moments": total}

    def update(self, state: Mapping[str, Any], statistic: Mapping[str, Array]) -> Done:
        return Done({"moments": statistic["moments"]})
