"""Parameters under any int64 keys, which need not be known beforehand: a row appears when it is first added to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from millstream.errors import InputError
from millstream.kernels.sparse_update import add_rows, find_rows, number_keys, place_keys
from millstream.parallel.shard import Sparse

__all__ = ["Keyed", "KeyedRows"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Keyed:
    """A parameter under sparse keys: rows of `width` numbers, zero until they are first added to."""

    width: int = 1
    dtype: npt.DTypeLike = "f8"

    def __post_init__(self) -> None:
        if self.width < 1 or np.dtype(self.dtype).kind not in "fiu":
            raise InputError(f"{self!r}; expected a width of at least 1 and a dtype of numbers")


class KeyedRows:
    """The rows one shard holds of a `Keyed` parameter.

    >>> rows = KeyedRows(Keyed())
    >>> rows.add(np.array([7, -2, 7]), np.array([[1.0], [2.0], [3.0]]))
    >>> rows.read(np.array([7, 8]))
    array([[4.], [0.]])
    """

    def __init__(self, kind: Keyed) -> None:
        self.kind = kind
        self._places = np.full(64, -1, np.int64)
        self._known = np.empty(32, np.int64)
        self._table = np.zeros((32, kind.width), kind.dtype)
        self._n = 0

    def __len__(self) -> int:
        return self._n

    @property
    def nbytes(self) -> int:
        return self._n * (8 + self._table.itemsize * self.kind.width)

    def add(self, keys: Array, values: Array) -> None:
        """Add ``values[i]`` (n, width) to the row of ``keys[i]``, in order."""
        self._make_room(self._n + len(keys))
        rows, self._n = number_keys(self._places, self._known, self._n, keys)
        add_rows(self._table, rows, np.ascontiguousarray(values, self._table.dtype))

    def read(self, keys: Array) -> Array:
        """The rows of the keys, (n, width); zeros for one never added to."""
        rows = find_rows(self._places, self._known, keys)
        found: Array = self._table[rows]
        found[rows < 0] = 0
        return found

    def all(self) -> Sparse:
        """Every key, ascending, with its row."""
        order = np.argsort(self._known[: self._n])
        return Sparse(self._known[order], self._table[order])

    def copy(self) -> KeyedRows:
        """The same rows, independent from now on."""
        twin = KeyedRows(self.kind)
        twin._places, twin._known = self._places.copy(), self._known.copy()
        twin._table, twin._n = self._table.copy(), self._n
        return twin

    def _make_room(self, n: int) -> None:
        if n > len(self._known):
            room = 1 << (n - 1).bit_length()
            known = np.empty(room, np.int64)
            known[: self._n] = self._known[: self._n]
            table = np.zeros((room, self.kind.width), self._table.dtype)
            table[: self._n] = self._table[: self._n]
            self._known, self._table = known, table
            self._places = np.full(2 * room, -1, np.int64)
            place_keys(self._places, known, self._n)
