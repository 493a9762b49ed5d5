"""How the statistics of two neighbouring runs of parts become one.

An operation must be associative up to rounding; the tree fixes the rounding. It need not commute: the left
operand always comes from the lower part indices. It makes a new array and changes neither operand.

========================  ==========================================  =================================
operation                 operands                                    associative
========================  ==========================================  =================================
SUM, MIN, MAX             arrays of one shape                         sums up to rounding, else exactly
CONCAT                    arrays that differ in their length alone    exactly
MINLOC (`located`)        value and index, of one shape               exactly
TOPK (`largest`)          at most k values with their indices         exactly
MOMENTS (`moments`)       count, mean and M2 of each column           up to rounding
SPARSE_SUM (`sparse`)     sorted keys, each with its values           keys exactly, sums up to rounding
QR (`r_factor`)           triangular factors of one width             up to rounding
========================  ==========================================  =================================
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

    Of one's own it may be anything that is associative up to rounding and makes a new array. A function defined at the
    top of a module can be sent to other processes, a lambda can't.

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


@dataclass(frozen=True)
class _Elementwise:
    ufunc: np.ufunc

    def __call__(self, left: Array, right: Array) -> Array:
        if left.shape != right.shape:
            raise TrainingError(
                f"parts returned arrays of shapes {left.shape} and {right.shape} to be combined by "
                f"{self.ufunc.__name__}; return one shape from every part, also from one without rows"
            )
        return np.asarray(self.ufunc(left, right))


def _concatenate(left: Array, right: Array) -> Array:
    return np.concatenate([left, right])


SUM = Op("SUM", _Elementwise(np.add))
MIN = Op("MIN", _Elementwise(np.minimum))
MAX = Op("MAX", _Elementwise(np.maximum))
CONCAT = Op("CONCAT", _concatenate)
