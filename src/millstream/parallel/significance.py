"""Updates too small to be worth sending are held back, not lost.

A delta is added to what was held back of the same array. Rows with an entry of at least `threshold` are sent; the rest
waits (the "significantly modified" filter: Li et al., OSDI 2014, section 3.5; Hsieh et al., "Gaia", NSDI 2017). At
the end `flush` sends everything, so what arrives adds up to what was computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from millstream.parallel.shard import Sparse

__all__ = ["Significance"]

Array = np.ndarray[Any, Any]


class Significance:
    """Of one source: what it has held back.

    params: the arrays that deltas are of.

    >>> filtered = Significance({"w": np.zeros(3)}, threshold=1.0)
    >>> filtered.split({"w": np.array([0.6, 5.0, 0.0])})["w"]
    Sparse(keys=array([1]), values=array([5.]))
    >>> filtered.split({"w": np.array([0.6, 0.0, 0.0])})["w"]
    Sparse(keys=array([0]), values=array([1.2]))
    """

    def __init__(self, params: Mapping[str, Array], threshold: float) -> None:
        self._threshold = threshold
        self._held = {name: np.zeros_like(array) for name, array in params.items()}

    def split(self, delta: Mapping[str, Any]) -> dict[str, Array | Sparse]:
        """What to send of a delta. An array without axes is always sent."""
        return {name: self._significant(name, change) for name, change in delta.items()}

    def flush(self) -> dict[str, Array | Sparse]:
        """Everything that was held back."""
        return {
            name: Sparse(rows, self._take(name, rows))
            for name, held in self._held.items()
            if held.ndim and len(rows := np.flatnonzero(_rows(held).any(axis=1)))
        }

    def _significant(self, name: str, change: Any) -> Array | Sparse:
        held = self._held[name]
        if not held.ndim:
            return np.asarray(change)
        if isinstance(change, Sparse):
            np.add.at(held, change.keys, change.values)
        else:
            held += change
        rows = np.flatnonzero(np.abs(_rows(held)).max(axis=1, initial=0.0) >= self._threshold)
        return Sparse(rows, self._take(name, rows))

    def _take(self, name: str, rows: Array) -> Array:
        values: Array = self._held[name][rows]
        self._held[name][rows] = 0
        return values


def _rows(array: Array) -> Array:
    return array.reshape(len(array), -1)
