"""Where two values differ: the name of the leaf, the place in it, the size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from millstream.parallel.difference import first_difference

A = np.arange(6.0).reshape(2, 3)


@dataclass
class State:
    centers: Any
    step: int


def moved(array: np.ndarray, at: tuple[int, ...], by: float) -> np.ndarray:
    copy = array.copy()
    copy[at] += by
    return copy


@pytest.mark.parametrize(
    ("expected", "got", "told"),
    [
        ({"w": A}, {"w": moved(A, (1, 2), 0.5)}, "s['w'] differs at 1, 2 by 0.5: expected 5.0, got 5.5"),
        (
            {"a": [A, A]},
            {"a": [A, moved(A, (0, 1), -2)]},
            "s['a'][1] differs at 0, 1 by 2: expected 1.0, got -1.0",
        ),
        (State(A, 1), State(A, 2), "s.step differs by 1: expected 1, got 2"),
        (A, A.astype("f4"), "s differs: expected float64 of shape (2, 3), got float32 of shape (2, 3)"),
        (
            {"w": A[0]},
            {"w": A},
            "s['w'] differs: expected float64 of shape (3,), got float64 of shape (2, 3)",
        ),
        ({"w": A}, {"v": A}, "s['v'] differs: only the second has it"),
        (np.array([0.0]), np.array([-0.0]), "s differs at 0 by 0: expected 0.0, got -0.0"),
        (np.array([1.0]), np.array([np.nan]), "s differs at 0 by inf: expected 1.0, got nan"),
        (np.array(["a", "b"]), np.array(["a", "c"]), "s differs at 1: expected b, got c"),
        (None, "a", "s differs: expected None, got 'a'"),
        (
            np.array(["x"] * 2000 + ["a"] * 2000, object),
            np.array(["x"] * 2001 + ["a"] * 1999, object),
            "s[2000] differs: expected 'a', got 'x'",
        ),
        (
            np.array([(1.0, 2)], "f8,i8"),
            np.array([(1.0, 5)], "f8,i8"),
            "s['f1'] differs at 0 by 3: expected 2, got 5",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_told(expected: Any, got: Any, told: str) -> None:
    assert str(first_difference(expected, got, "s")) == told


@pytest.mark.parametrize(
    "value", [A, {"w": A, "name": "x", "n": None}, np.array([np.nan, 1.0]), State(A, 3), [], np.str_("a")]
)
def test_the_same_is_no_difference(value: Any) -> None:
    assert first_difference(value, value, "s") is None
    assert first_difference(value, value, "s", exact=False) is None


@pytest.mark.parametrize(("dtype", "inside", "outside"), [("f8", 1e-8, 3e-8), ("f4", 2e-4, 6e-4)])
def test_rounding_is_measured_against_the_largest_of_the_array(
    dtype: str, inside: float, outside: float
) -> None:
    base = np.array([1e-30, 1.0, np.inf, np.nan, 100.0], dtype)
    for at in (0, 1, 4):
        near, far = base.copy(), base.copy()
        near[at] += 100 * inside
        far[at] += 100 * outside
        assert first_difference(base, near, "s", exact=False) is None
        assert first_difference(base, near, "s") is not None
        assert first_difference(base, far, "s", exact=False).at == (at,)
    wrong = base.copy()
    wrong[2] = 1.0
    assert first_difference(base, wrong, "s", exact=False).by == np.inf
    assert first_difference(base, far, "s", exact=False, rtol=1.0) is None


def test_integers_have_no_tolerance() -> None:
    assert first_difference(np.array([10**9]), np.array([10**9 + 1]), "s", exact=False).by == 1
