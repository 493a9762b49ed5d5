"""Rows added to the rows of a table, by row number or by key.

By number the table is an array; by key it is an open-addressing hash table with linear probing (Knuth, "The Art of
Computer Programming" 3, section 6.4, algorithm L) that gives every int64 key a row number, in the order of first
sight. Repeated keys are added one after the other, in the order given, so equal calls give equal bits.

Shapes: keys and rows (n,) int64; values (n, width); table (rows, width); places (capacity,) int64, capacity a power of
two and more than the keys in it, -1 where empty. All arrays are C-contiguous; nothing here keeps the GIL.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

__all__ = [
    "add_rows",
    "bucketed",
    "find_rows",
    "first_outside",
    "grouped",
    "number_keys",
    "owners",
    "place_keys",
    "ranges_of",
]

Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[Any]

# 2**64 divided by the golden ratio, odd: Fibonacci hashing (Knuth 3, section 6.4).
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def first_outside(rows: Ints, start: int, stop: int) -> int:
    """Position of the first row number outside ``[start, stop)``, or -1."""
    for i in range(rows.shape[0]):
        if rows[i] < start or rows[i] >= stop:
            return i
    return -1


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def add_rows(table: Numbers, rows: Ints, values: Numbers) -> None:
    """``table[rows[i]] += values[i]`` for every i in order; `table` (rows, width) is changed in place."""
    width = table.shape[1]
    if width == 1:
        for i in range(rows.shape[0]):
            table[rows[i], 0] += values[i, 0]
        return
    for i in range(rows.shape[0]):
        row = rows[i]
        for j in range(width):
            table[row, j] += values[i, j]


@numba.njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _mixed(key: int) -> np.uint64:
    x = np.uint64(key) * MULTIPLIER
    return x ^ (x >> np.uint64(32))


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def owners(keys: Ints, n: int) -> Ints:
    """Which of `n` shards each key belongs to: (n_keys,) int64 in ``[0, n)``, from the key alone."""
    found = np.empty(keys.shape[0], np.int64)
    for i in range(keys.shape[0]):
        found[i] = np.int64((_mixed(keys[i]) >> np.uint64(3)) % np.uint64(n))
    return found


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def find_rows(places: Ints, known: Ints, keys: Ints) -> Ints:
    """The row number of each key, or -1: (n,) int64. known: the keys by row number."""
    mask = np.uint64(places.shape[0] - 1)
    rows = np.empty(keys.shape[0], np.int64)
    for i in range(keys.shape[0]):
        key = keys[i]
        place = _mixed(key) & mask
        while places[place] >= 0 and known[places[place]] != key:
            place = (place + np.uint64(1)) & mask
        rows[i] = places[place]
    return rows


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def number_keys(places: Ints, known: Ints, n_known: int, keys: Ints) -> tuple[Ints, int]:
    """The row number of each key, new keys numbered in order of first sight: (n,) int64, and how many are known then.

    places and known are changed in place; both have room for all of `keys`.
    """
    mask = np.uint64(places.shape[0] - 1)
    rows = np.empty(keys.shape[0], np.int64)
    for i in range(keys.shape[0]):
        key = keys[i]
        place = _mixed(key) & mask
        while places[place] >= 0 and known[places[place]] != key:
            place = (place + np.uint64(1)) & mask
        if places[place] < 0:
            places[place] = n_known
            known[n_known] = key
            n_known += 1
        rows[i] = places[place]
    return rows, n_known


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def place_keys(places: Ints, known: Ints, n_known: int) -> None:
    """Enter the first `n_known` keys into an empty table of places."""
    mask = np.uint64(places.shape[0] - 1)
    for row in range(n_known):
        place = _mixed(known[row]) & mask
        while places[place] >= 0:
            place = (place + np.uint64(1)) & mask
        places[place] = row


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def grouped(groups: Ints, n: int) -> tuple[Ints, Ints]:
    """A stable order by group, and where each group begins in it: (n_rows,) and (n + 1,) int64. A counting sort."""
    starts = np.zeros(n + 1, np.int64)
    for i in range(groups.shape[0]):
        starts[groups[i] + 1] += 1
    for g in range(n):
        starts[g + 1] += starts[g]
    next_of = starts.copy()
    order = np.empty(groups.shape[0], np.int64)
    for i in range(groups.shape[0]):
        g = groups[i]
        order[next_of[g]] = i
        next_of[g] += 1
    return order, starts


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def ranges_of(keys: Ints, bounds: Ints) -> Ints:
    """Which range ``[bounds[i], bounds[i + 1])`` each key lies in: (n,) int64. Every key lies in one."""
    found = np.empty(keys.shape[0], np.int64)
    for i in range(keys.shape[0]):
        low = 0
        high = bounds.shape[0] - 1
        while high - low > 1:
            middle = (low + high) >> 1
            if keys[i] >= bounds[middle]:
                low = middle
            else:
                high = middle
        found[i] = low
    return found


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def bucketed(groups: Ints, n: int, keys: Ints, values: Numbers) -> tuple[Ints, Numbers, Ints]:
    """Keys and their values (rows, width) moved to the order of `grouped`, and where each group begins."""
    starts = np.zeros(n + 1, np.int64)
    for i in range(groups.shape[0]):
        starts[groups[i] + 1] += 1
    for g in range(n):
        starts[g + 1] += starts[g]
    next_of = starts.copy()
    moved_keys = np.empty_like(keys)
    moved_values = np.empty_like(values)
    for i in range(groups.shape[0]):
        to = next_of[groups[i]]
        next_of[groups[i]] += 1
        moved_keys[to] = keys[i]
        for j in range(values.shape[1]):
            moved_values[to, j] = values[i, j]
    return moved_keys, moved_values, starts
