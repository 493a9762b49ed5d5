"""TOPK: the k largest values with their indices, largest first.

Ties go to the lowest index, so the answer does not depend on how rows were cut into parts. A NaN is larger than every
number, as in NumPy's sort: it is not hidden. Associative and commutative, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from millstream.errors import InputError
from millstream.parallel.minloc import located
from millstream.parallel.operation import Op

__all__ = ["TOPK", "largest"]

Array = np.ndarray[Any, Any]


def largest(k: int, value: Any, index: Any) -> Array:
    """The `k` largest of ``(n,)`` values with their ``(n,)`` indices, for `TOPK`; fewer where there are fewer.

    Returns (at most k,) with the fields ``value`` (float64) and ``index`` (int64), largest first.
    """
    if k < 1:
        raise InputError(f"k={k} of the largest; keep at least one")
    return _head(k, located(value, index))


def _head(k: int, both: Array) -> Array:
    order = np.lexsort((both["index"], -both["value"], ~np.isnan(both["value"])))
    return both[order[:k]]


@dataclass(frozen=True)
class _Merge:
    k: int

    def __call__(self, left: Array, right: Array) -> Array:
        return _head(self.k, np.concatenate([left, right]))


def TOPK(k: int) -> Op:
    """The operation on what `largest` returns for each part.

    >>> TOPK(2)(largest(2, [5.0, 1.0], [3, 4]), largest(2, [2.0, 5.0, 4.0], [0, 1, 2])).tolist()
    [(5.0, 1), (5.0, 3)]
    """
    if k < 1:
        raise InputError(f"TOPK({k}); keep at least one")
    return Op(f"TOPK({k})", _Merge(k))
