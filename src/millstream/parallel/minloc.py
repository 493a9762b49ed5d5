"""MINLOC: the least value, and where it was found.

As in MPI (MPI Forum, *MPI: A Message-Passing Interface Standard*, section "MINLOC and MAXLOC"): of equal values the
one with the lowest index is taken, so the answer does not depend on how rows were cut into parts. A NaN is less than
every number, as `numpy.argmin` has it: it is not hidden. Associative and commutative, exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.errors import TrainingError
from millstream.parallel.operation import Op

__all__ = ["MINLOC", "NOWHERE", "located"]

Array = np.ndarray[Any, Any]

# The index that goes with the value +inf where there were no rows; higher than any other, so it loses every tie.
NOWHERE = np.iinfo(np.int64).max


def located(value: Any, index: Any) -> Array:
    """Values with their indices, for `MINLOC`.

    value: numbers, any shape. index: int64, the same shape, such as ``block.first_row`` plus the row's place.

    Returns an array of that shape with the fields ``value`` (float64) and ``index`` (int64).

    >>> MINLOC(located([3.0, 1.0], [0, 1]), located([2.0, 1.0], [7, 8])).tolist()
    [(2.0, 7), (1.0, 1)]
    """
    values, indices = np.broadcast_arrays(np.asarray(value, "f8"), np.asarray(index, "i8"))
    both = np.empty(values.shape, [("value", "f8"), ("index", "i8")])
    both["value"], both["index"] = values, indices
    return both


def _least(left: Array, right: Array) -> Array:
    if left.shape != right.shape:
        raise TrainingError(
            f"parts returned located values of shapes {left.shape} and {right.shape} to MINLOC; return one shape from "
            "every part, and located(inf, NOWHERE) from one without rows"
        )
    undefined = np.isnan(right["value"]), np.isnan(left["value"])
    less = (right["value"] < left["value"]) | (undefined[0] & ~undefined[1])
    equal = (right["value"] == left["value"]) | (undefined[0] & undefined[1])
    return np.where(less | (equal & (right["index"] < left["index"])), right, left)


MINLOC = Op("MINLOC", _least)
