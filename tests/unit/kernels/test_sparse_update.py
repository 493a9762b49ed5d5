"""Sparse update kernels against NumPy and a dict."""

from __future__ import annotations

import numpy as np
import pytest

from millstream.kernels.sparse_update import (
    add_rows,
    bucketed,
    find_rows,
    first_outside,
    grouped,
    number_keys,
    owners,
    place_keys,
    ranges_of,
)


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i8"])
def test_rows_are_added_in_order_like_add_at(width: int, dtype: str) -> None:
    rng = np.random.default_rng(1)
    table = (rng.standard_normal((50, width)) * 100).astype(dtype)
    rows = rng.integers(0, 50, 1000)
    values = (rng.standard_normal((1000, width)) * 100).astype(dtype)
    expected = table.copy()
    np.add.at(expected, rows, values)
    add_rows(table, rows, values)
    assert table.tobytes() == expected.tobytes()


def test_the_first_row_outside_is_found() -> None:
    rows = np.array([3, 4, 9, 2, 10])
    assert first_outside(rows, 3, 10) == 3
    assert first_outside(rows, 2, 10) == 4
    assert first_outside(rows, 2, 11) == -1
    assert first_outside(rows[:0], 2, 11) == -1


def test_keys_are_numbered_in_order_of_first_sight() -> None:
    rng = np.random.default_rng(2)
    extremes = np.array([0, -1, np.iinfo("i8").min, np.iinfo("i8").max])
    keys = np.concatenate([rng.integers(-300, 300, 400) << 40, extremes, extremes])
    numbers: dict[int, int] = {}
    expected = [numbers.setdefault(int(key), len(numbers)) for key in keys]
    places, known = np.full(1024, -1), np.empty(len(keys), "i8")
    rows, n_known = number_keys(places, known, 0, keys)
    assert rows.tolist() == expected
    assert known[:n_known].tolist() == list(numbers)
    assert find_rows(places, known, np.append(keys, 7)).tolist() == [*expected, -1]

    larger = np.full(4096, -1)
    place_keys(larger, known, n_known)
    assert find_rows(larger, known, np.append(keys, 7)).tolist() == [*expected, -1]


def test_owners_depend_on_the_key_alone_and_are_even() -> None:
    keys = np.arange(-20_000, 20_000, dtype="i8") * 4096
    found = owners(keys, 7)
    assert np.array_equal(found[::-1], owners(keys[::-1].copy(), 7))
    share = np.bincount(found, minlength=7) / len(keys)
    assert abs(share - 1 / 7).max() < 0.02


def test_rows_are_grouped_in_a_stable_order() -> None:
    groups = np.random.default_rng(3).integers(0, 6, 500)
    groups[groups == 4] = 5  # an empty group
    order, starts = grouped(groups, 7)
    assert order.tolist() == np.argsort(groups, kind="stable").tolist()
    assert np.diff(starts).tolist() == np.bincount(groups, minlength=7).tolist()
    keys, values = np.arange(500) * 7, np.arange(1000.0).reshape(500, 2)
    moved_keys, moved_values, moved_starts = bucketed(groups, 7, keys, values)
    assert moved_keys.tolist() == keys[order].tolist()
    assert moved_values.tolist() == values[order].tolist()
    assert moved_starts.tolist() == starts.tolist()


def test_each_key_lies_in_its_range() -> None:
    bounds = np.array([0, 3, 3, 10, 11])
    keys = np.arange(11)
    assert ranges_of(keys, bounds).tolist() == (np.searchsorted(bounds, keys, side="right") - 1).tolist()
