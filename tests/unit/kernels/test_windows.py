"""Window kernels against plain loops."""

import math

import numpy as np
import pytest

from millstream.kernels import windows

RNG = np.random.default_rng(2)
LO = RNG.integers(0, 90, 50)
HI = LO + RNG.integers(0, 10, 50)
VALUES = RNG.normal(0, 1e8, 100)
VALID = RNG.random(100) < 0.8
WHOLE = RNG.integers(-(10**15), 10**15, 100)


def picked(values: np.ndarray, i: int) -> list[float]:
    return [v for v, ok in zip(values[LO[i] : HI[i]].tolist(), VALID[LO[i] : HI[i]], strict=True) if ok]


def test_ranges() -> None:
    assert windows.range_sums_floats(VALUES, VALID, LO, HI).tolist() == [
        math.fsum(picked(VALUES, i)) for i in range(50)
    ]
    sums, overflow = windows.range_sums_integers(WHOLE, VALID, LO, HI)
    assert sums.tolist() == [sum(picked(WHOLE, i)) for i in range(50)]
    assert not overflow
    assert windows.range_minima(VALUES, VALID, LO, HI).tolist() == [
        min(picked(VALUES, i), default=0) for i in range(50)
    ]
    assert windows.range_maxima(WHOLE, VALID, LO, HI).tolist() == [
        max(picked(WHOLE, i), default=0) for i in range(50)
    ]


def test_panes() -> None:
    panes = RNG.integers(0, 5, 100)
    total, lost, n = np.zeros(5), np.zeros(5), np.zeros(5, np.int64)
    windows.add_floats(panes, VALUES, VALID, total, lost)
    windows.add_counts(panes, VALID, n)
    low, seen = np.zeros(5), np.zeros(5, np.int64)
    windows.add_minima(panes, VALUES, VALID, low, seen)
    high, again = np.zeros(5, np.int64), np.zeros(5, np.int64)
    windows.add_maxima(panes, WHOLE, VALID, high, again)
    for pane in range(5):
        mine = VALID & (panes == pane)
        assert total[pane] + lost[pane] == math.fsum(VALUES[mine])
        assert n[pane] == seen[pane] == again[pane] == mine.sum()
        assert low[pane] == VALUES[mine].min()
        assert high[pane] == WHOLE[mine].max()


@pytest.mark.parametrize("sign", [1, -1])
def test_integer_sums_report_overflow(sign: int) -> None:
    values = np.array([sign * 2**62, sign * 2**62, sign], np.int64)
    ok = np.ones(3, np.bool_)
    assert windows.range_sums_integers(values, ok, np.array([0]), np.array([3]))[1]
    assert not windows.range_sums_integers(values, ok, np.array([1]), np.array([3]))[1]
    assert windows.add_integers(np.zeros(3, np.int64), values, ok, np.zeros(1, np.int64))


def test_infinities_add_up_as_numbers_do() -> None:
    values = np.array([1.0, math.inf, 2.0, -math.inf])
    ok = np.ones(4, np.bool_)
    sums = windows.range_sums_floats(values, ok, np.array([0, 0, 3]), np.array([3, 4, 4]))
    assert sums[0] == math.inf
    assert math.isnan(sums[1])
    assert sums[2] == -math.inf


def test_trailing_ranges() -> None:
    starts = np.array([0, 3, 3, 6])  # slot 0: rows 0 to 2, slot 1: none, slot 2: rows 3 to 5
    times = np.array([10, 20, 20, 5, 20, 30])
    slots = np.array([0, 0, 1, 2, 2, -1, 3])
    until = np.array([20, 9, 50, 30, 4, 50, 50])
    since = np.array([10, 0, 0, 5, 30, 0, 0])
    lo, hi = windows.trailing_ranges(slots, until, since, starts, times)
    assert [list(range(a, b)) for a, b in zip(lo, hi, strict=True)] == [[1, 2], [], [], [4, 5], [], [], []]
