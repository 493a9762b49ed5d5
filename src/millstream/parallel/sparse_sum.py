"""SPARSE_SUM: sums by key, for statistics that touch few of very many keys.

An operand holds sorted, unique keys, each with its values; the keys of the result are the union. The merge is one
stable sort of both key arrays, which takes the two sorted runs as they come. Keys exactly associative; the sums as
associative as addition.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.errors import TrainingError
from millstream.parallel.operation import Op

__all__ = ["SPARSE_SUM", "sparse"]

Array = np.ndarray[Any, Any]


def sparse(keys: Any, values: Any) -> Array:
    """Keys in any order, as often as they like, with their values: summed by key, for `SPARSE_SUM`.

    keys: (n,) integers. values: (n,) or (n, ...) numbers; equal keys are added in the order they come.

    Returns (unique keys,) with the fields ``key`` (int64, ascending) and ``value`` (float64, or float32 as given).

    >>> SPARSE_SUM(sparse([9, 2, 9], [1.0, 2.0, 3.0]), sparse([2, 5], [10.0, 20.0])).tolist()
    [(2, 12.0), (5, 20.0), (9, 4.0)]
    """
    keys, values = np.asarray(keys, "i8"), np.asarray(values)
    values = values if values.dtype == np.dtype("f4") else values.astype("f8", copy=False)
    if keys.ndim != 1 or values.shape[:1] != keys.shape:
        raise TrainingError(
            f"sparse({keys.shape} keys, {values.shape} values); expected one value for each key"
        )
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(keys)])
    both = np.empty(len(starts), [("key", "i8"), ("value", values.dtype, values.shape[1:])])
    both["key"] = ordered[starts]
    if len(starts):
        both["value"] = np.add.reduceat(values[order], starts, axis=0)
    return both


def _added(left: Array, right: Array) -> Array:
    if left.dtype != right.dtype:
        raise TrainingError(
            f"parts returned sparse sums of {left.dtype['value']} and {right.dtype['value']}; return one dtype and one "
            "shape of values from every part: sparse(np.empty(0), np.empty((0, ...))) where there are none"
        )
    return sparse(
        np.concatenate([left["key"], right["key"]]), np.concatenate([left["value"], right["value"]])
    )


SPARSE_SUM = Op("SPARSE_SUM", _added)
