"""Moments merge: in any grouping, with empty sides, and where the spread is far below the size of the values."""

import itertools

import numpy as np
from hypothesis import given, settings, strategies as st

from millstream.parallel import MOMENTS, moments


def sample(n, seed=0, offset=0.0):
    rng = np.random.default_rng(seed)
    X = offset + rng.standard_normal((n, 3))
    X[rng.random(X.shape) < 0.2] = np.nan
    return X, rng.random(n)


def whole(X, weight):
    """Mean and variance in extended precision."""
    wide, present = X.astype(np.longdouble), ~np.isnan(X)
    weights = weight[:, None] * present
    mean = np.nansum(weights * wide, axis=0) / weights.sum(axis=0)
    return mean, np.nansum(weights * (wide - mean) ** 2, axis=0) / weights.sum(axis=0)


@settings(max_examples=50, deadline=None)
@given(cuts=st.lists(st.integers(0, 60), max_size=6), offset=st.sampled_from([0.0, 1e4, 1e8]))
def test_any_grouping_gives_the_moments_of_the_whole(cuts, offset):
    X, weight = sample(60, offset=offset)
    edges = [0, *sorted(cuts), 60]
    pieces = [moments(X[a:b], weight[a:b]) for a, b in itertools.pairwise(edges)]
    left = pieces[0]
    for piece in pieces[1:]:
        left = MOMENTS(left, piece)
    right = pieces[-1]
    for piece in pieces[-2::-1]:
        right = MOMENTS(piece, right)
    mean, variance = whole(X, weight)
    for total in (left, right):
        np.testing.assert_allclose(total[1], mean.astype(float), rtol=4e-16, atol=1e-15)
        np.testing.assert_allclose(total[3] / total[0], variance.astype(float), rtol=1e-7)


def test_no_rows_change_nothing():
    X, weight = sample(20, offset=1e8)
    some, none = moments(X, weight), moments(X[:0], weight[:0])
    assert MOMENTS(some, none).tobytes() == some.tobytes()
    assert MOMENTS(none, some).tobytes() == some.tobytes()


def test_a_mean_without_its_rest_would_fail():
    """Planted: drop what the mean lost to rounding, and the variance at 1e8 is off."""
    X, weight = sample(60, offset=1e8)
    spread = (X - 1e8) * 1e-4 + 1e8
    halves = [moments(spread[:30], weight[:30]), moments(spread[30:], weight[30:])]
    _, variance = whole(spread, weight)
    exact = MOMENTS(*halves)
    np.testing.assert_allclose(exact[3] / exact[0], variance.astype(float), rtol=1e-6)
    for half in halves:
        half[2] = 0.0
    lossy = MOMENTS(*halves)
    assert np.abs(lossy[3] / lossy[0] / variance.astype(float) - 1).max() > 1e-6
