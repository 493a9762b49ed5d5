"""Weight, mean and sum of squared deviations by column, merged exactly: one read of the rows, no cancellation.

NaN counts as missing: it enters neither the weight nor the mean of its column.

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
    """``(3, features)``: weight, mean and weighted sum of squared deviations of ``(rows, features)``."""
    present = ~np.isnan(X)
    if present.all():
        totals = np.full(X.shape[1], weight.sum())
        filled = X
        weights = weight[:, None]
    else:
        weights = weight[:, None] * present
        totals = weights.sum(axis=0)
        filled = np.where(present, X, 0.0)
    divisor = np.where(totals > 0, totals, 1.0)
    mean = (weights * filled).sum(axis=0) / divisor
    squares = (weights * (filled - mean) ** 2).sum(axis=0)
    return np.stack([totals, mean, squares])


def merged(left: Array, right: Array) -> Array:
    """The moments of both sets of rows together."""
    total = left[0] + right[0]
    share = right[0] / np.where(total > 0, total, 1.0)
    delta = right[1] - left[1]
    return np.stack([total, left[1] + delta * share, left[2] + right[2] + delta**2 * left[0] * share])


MERGE = Op("moments", merged)


@dataclass(frozen=True)
class Moments:
    """An algorithm of one step: ``Done.params["moments"]`` is ``(3, features)`` float64."""

    single_pass = True
    combine = {"moments": MERGE}  # noqa: RUF012

    def init(self, meta: Meta, rng: np.random.Generator) -> dict[str, Any]:
        return {"n_features": len(meta.schema.feature_names)}

    def local(self, params: Mapping[str, Any], part: Part, ctx: Context) -> dict[str, Array]:
        total = np.zeros((3, int(params["n_features"])))
        for block in part.blocks():
            total = merged(total, moments(block.X, block.weight))
        return {"moments": total}

    def update(self, state: Mapping[str, Any], statistic: Mapping[str, Array]) -> Done:
        return Done({"moments": statistic["moments"]})
