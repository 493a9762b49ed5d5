"""The algorithm that reads weight, mean and squared deviations of every column, in one pass.

The statistic and how it merges over parts is `millstream.parallel.MOMENTS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millstream.data import Part
from millstream.parallel import MOMENTS, Context, Done, Meta, moments

__all__ = ["Moments"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """An algorithm of one step: ``Done.params["moments"]`` is ``(4, features)`` float64."""

    single_pass = True
    combine = {"moments": MOMENTS}  # noqa: RUF012

    def init(self, meta: Meta, rng: np.random.Generator) -> dict[str, Any]:
        return {"n_features": len(meta.schema.feature_names)}

    def local(self, params: Mapping[str, Any], part: Part, ctx: Context) -> dict[str, Array]:
        total = np.zeros((4, int(params["n_features"])))
        for block in part.blocks():
            total = MOMENTS(total, moments(block.X, block.weight))
        return {"moments": total}

    def update(self, state: Mapping[str, Any], statistic: Mapping[str, Array]) -> Done:
        return Done({"moments": statistic["moments"]})
