"""Sums, minima and maxima of rows by pane and by range, in an order that batching can't change.

Two shapes of the same work: *panes* are accumulators that rows are added to as they come (tumbling windows);
*ranges* are runs ``[lo, hi)`` of rows sorted by key and time (lookbacks). Float sums are compensated (Neumaier,
"Rundungsfehleranalyse einiger Verfahren zur Summation endlicher Summen", ZAMM 54, 1974): the error does not grow
with the number of rows, so the order in which partitions interleave moves a sum by less than one unit in the last
place of the largest partial sum. Range sums go in the order of the rows, so equal rows give equal bits.

NaN follows SQL's total order: greater than every number. Integer sums are exact and report overflow.
Shapes: rows (n,), panes (p,), ranges (m,). All arrays are C-contiguous; nothing here keeps the GIL.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

__all__ = [
    "add_counts",
    "add_floats",
    "add_integers",
    "add_maxima",
    "add_minima",
    "range_maxima",
    "range_minima",
    "range_sums_floats",
    "range_sums_integers",
    "trailing_ranges",
]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Numbers = npt.NDArray[Any]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def trailing_ranges(slots: Ints, until: Ints, since: Ints, starts: Ints, times: Ints) -> tuple[Ints, Ints]:
    """For each query the run ``[lo, hi)`` of rows of its slot with ``since < time <= until``.

    slots, until, since: (m,) int64, slot -1 finds nothing; starts: (slots + 1,) int64, where each slot's rows begin;
    times: (n,) int64, ascending within a slot. Binary search: O(log n) a query.
    """
    m = slots.shape[0]
    lo = np.zeros(m, np.int64)
    hi = np.zeros(m, np.int64)
    for i in range(m):
        slot = slots[i]
        if slot < 0 or slot + 1 >= starts.shape[0]:
            continue
        for bound in range(2):
            wanted = since[i] if bound == 0 else until[i]
            a = starts[slot]
            b = starts[slot + 1]
            while a < b:
                middle = (a + b) >> 1
                if times[middle] <= wanted:
                    a = middle + 1
                else:
                    b = middle
            if bound == 0:
                lo[i] = a
            else:
                hi[i] = a
        if hi[i] < lo[i]:
            hi[i] = lo[i]
    return lo, hi


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def range_sums_floats(values: Floats, valid: Bools, lo: Ints, hi: Ints) -> Floats:
    """Compensated sum of the valid values of each range, in row order: (m,) float64."""
    sums = np.zeros(lo.shape[0], np.float64)
    for i in range(lo.shape[0]):
        total = 0.0
        lost = 0.0
        for j in range(lo[i], hi[i]):
            if valid[j]:
                x = values[j]
                grown = total + x
                if abs(total) >= abs(x):
                    lost += (total - grown) + x
                else:
                    lost += (x - grown) + total
                total = grown
        sums[i] = total + lost if np.isfinite(total) else total
    return sums


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def range_sums_integers(values: Ints, valid: Bools, lo: Ints, hi: Ints) -> tuple[Ints, bool]:
    """Exact sum of the valid values of each range: (m,) int64, and whether any sum left int64."""
    sums = np.zeros(lo.shape[0], np.int64)
    overflow = False
    for i in range(lo.shape[0]):
        total = np.int64(0)
        for j in range(lo[i], hi[i]):
            if valid[j]:
                grown = total + values[j]
                if ((total ^ grown) & (values[j] ^ grown)) < 0:
                    overflow = True
                total = grown
        sums[i] = total
    return sums, overflow


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def range_minima(values: Numbers, valid: Bools, lo: Ints, hi: Ints) -> Numbers:
    """Least valid value of each range: (m,) of values' dtype; 0 where a range holds none."""
    least = np.zeros(lo.shape[0], values.dtype)
    for i in range(lo.shape[0]):
        seen = False
        for j in range(lo[i], hi[i]):
            if valid[j]:
                x = values[j]
                m = least[i]
                if not seen or (x == x and (m != m or x < m)):
                    least[i] = x
                    seen = True
    return least


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def range_maxima(values: Numbers, valid: Bools, lo: Ints, hi: Ints) -> Numbers:
    """Greatest valid value of each range: (m,) of values' dtype; 0 where a range holds none."""
    greatest = np.zeros(lo.shape[0], values.dtype)
    for i in range(lo.shape[0]):
        seen = False
        for j in range(lo[i], hi[i]):
            if valid[j]:
                x = values[j]
                if not seen or x != x or x > greatest[i]:
                    greatest[i] = x
                    seen = True
    return greatest


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def add_counts(panes: Ints, valid: Bools, counts: Ints) -> None:
    """Add one to the pane of each valid row. panes, valid: (n,); counts: (p,) changed in place."""
    for i in range(panes.shape[0]):
        if valid[i]:
            counts[panes[i]] += 1


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def add_floats(panes: Ints, values: Floats, valid: Bools, totals: Floats, lost: Floats) -> None:
    """Add each valid value to its pane. totals and lost: (p,), the sum and what rounding took from it."""
    for i in range(panes.shape[0]):
        if valid[i]:
            pane = panes[i]
            x = values[i]
            total = totals[pane]
            grown = total + x
            if abs(total) >= abs(x):
                lost[pane] += (total - grown) + x
            else:
                lost[pane] += (x - grown) + total
            totals[pane] = grown


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def add_integers(panes: Ints, values: Ints, valid: Bools, totals: Ints) -> bool:
    """Add each valid value to its pane's exact total (p,); True if any total left int64."""
    overflow = False
    for i in range(panes.shape[0]):
        if valid[i]:
            pane = panes[i]
            grown = totals[pane] + values[i]
            if ((totals[pane] ^ grown) & (values[i] ^ grown)) < 0:
                overflow = True
            totals[pane] = grown
    return overflow


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def add_minima(panes: Ints, values: Numbers, valid: Bools, least: Numbers, counts: Ints) -> None:
    """Lower each pane's least (p,); counts (p,) says how many valid values a pane has seen, and grows."""
    for i in range(panes.shape[0]):
        if valid[i]:
            pane = panes[i]
            x = values[i]
            m = least[pane]
            if counts[pane] == 0 or (x == x and (m != m or x < m)):
                least[pane] = x
            counts[pane] += 1


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def add_maxima(panes: Ints, values: Numbers, valid: Bools, greatest: Numbers, counts: Ints) -> None:
    """Raise each pane's greatest (p,); counts (p,) says how many valid values a pane has seen, and grows."""
    for i in range(panes.shape[0]):
        if valid[i]:
            pane = panes[i]
            x = values[i]
            if counts[pane] == 0 or x != x or x > greatest[pane]:
                greatest[pane] = x
            counts[pane] += 1
