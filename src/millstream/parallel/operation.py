"""How the statistics of two neighbouring runs of parts become one.

An operation must be associative up to rounding; the tree fixes the rounding. It need not commute: the left
operand always comes from the lower part indices. It makes a new array and changes neither operand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from millstream.errors import TrainingError

__all__ = ["CONCAT", "MAX", "MIN", "SUM", "Op"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Op:
    """A named operation on two arrays.

    >>> last = Op("LAST", lambda left, right: right)
    >>> last(np.array([1]), np.array([2]))
    array([2])
    """

    name: str
    function: Callable[[Array, Array], Any]

    def __call__(self, left: Array, right: Array) -> Array:
        return np.asarray(self.function(left, right))

    def __repr__(self) -> str:
        return self.name


def _elementwise(function: np.ufunc) -> Callable[[Array, Array], Array]:
    def combine(left: Array, right: Array) -> Array:
        if left.shape != right.shape:
            raise TrainingError(
                f"parts returned arrays of shapes {left.shape} and {right.shape} to be combined by "
                f"{function.__name__}; return one shape from every part, also from one without rows"
            )
        return np.asarray(function(left, right))

    return combine


SUM = Op("SUM", _elementwise(np.add))
MIN = Op("MIN", _elementwise(np.minimum))
MAX = Op("MAX", _elementwise(np.maximum))
CONCAT = Op("CONCAT", lambda left, right: np.concatenate([left, right]))
