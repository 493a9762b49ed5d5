"""The pairwise tree: its shape, its memory, and what it refuses."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from millstream.errors import TrainingError
from millstream.parallel import CONCAT, MAX, MIN, SUM, Op, PairwiseTree

BRACKETS = Op("BRACKETS", lambda left, right: np.array(f"({left}{right})"))


def shape_of(n_parts: int, order: list[int]) -> str:
    tree = PairwiseTree(n_parts, {"s": BRACKETS})
    for index in order:
        tree.insert(index, {"s": np.array("abcdefgh"[index])})
    return str(tree.result()["s"])


@pytest.mark.parametrize(
    ("n_parts", "shape"),
    [
        (1, "a"),
        (2, "(ab)"),
        (3, "((ab)c)"),
        (5, "(((ab)(cd))e)"),
        (6, "(((ab)(cd))(ef))"),
        (7, "(((ab)(cd))((ef)g))"),
    ],
)
def test_shape(n_parts: int, shape: str) -> None:
    assert shape_of(n_parts, list(range(n_parts))) == shape
    assert shape_of(n_parts, list(range(n_parts))[::-1]) == shape


@settings(deadline=None)
@given(st.integers(1, 8).flatmap(lambda n: st.permutations(range(n))))
def test_order_of_arrival_does_not_matter(order: list[int]) -> None:
    assert shape_of(len(order), order) == shape_of(len(order), sorted(order))


def test_inserting_twice_changes_nothing() -> None:
    tree = PairwiseTree(2, {})
    for index, value in [(0, 1.0), (0, 100.0), (1, 2.0), (0, 100.0), (1, 100.0)]:
        tree.insert(index, {"s": np.array(value)})
    assert tree.result()["s"] == 3.0


def test_holds_no_more_than_the_logarithm_when_parts_come_in_order() -> None:
    tree = PairwiseTree(1000, {})
    for index in range(1000):
        tree.insert(index, {"s": np.array(1)})
    assert tree.result()["s"] == 1000
    assert tree.most_held <= math.ceil(math.log2(1000)) + 1


def test_many_threads_give_the_sum_of_one() -> None:
    values = np.random.default_rng(0).standard_normal((512, 50)) * 1e6
    alone, together = PairwiseTree(512, {}), PairwiseTree(512, {})
    for index in range(512):
        alone.insert(index, {"s": values[index]})
    threads = [
        threading.Thread(
            target=lambda k: [together.insert(i, {"s": values[i]}) for i in range(k, 512, 4)], args=(k,)
        )
        for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert together.result()["s"].tobytes() == alone.result()["s"].tobytes()


def test_result_completes_what_a_lost_worker_left() -> None:
    class StuckOnce:
        calls = 0

        def __call__(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
            self.calls += 1
            if self.calls == 1:
                raise KeyboardInterrupt  # stands for a thread that never comes back from combining
            return left + right

    tree = PairwiseTree(4, {"s": Op("ONCE", StuckOnce())})
    tree.insert(0, {"s": np.array(1)})
    with pytest.raises(KeyboardInterrupt):
        tree.insert(1, {"s": np.array(2)})
    tree.insert(2, {"s": np.array(4)})
    tree.insert(3, {"s": np.array(8)})
    assert tree.result()["s"] == 15


@pytest.mark.parametrize(
    ("operation", "expected"), [(SUM, [4, 7]), (MIN, [1, 2]), (MAX, [3, 5]), (CONCAT, [1, 5, 3, 2])]
)
def test_operations(operation: Op, expected: list[int]) -> None:
    assert operation(np.array([1, 5]), np.array([3, 2])).tolist() == expected


def test_shapes_that_differ_are_refused_rather_than_broadcast() -> None:
    with pytest.raises(TrainingError, match=r"\(3,\) and \(1,\).*one shape from every part"):
        SUM(np.zeros(3), np.zeros(1))


def test_fields_that_differ_are_refused() -> None:
    tree = PairwiseTree(2, {})
    tree.insert(0, {"a": np.zeros(1)})
    with pytest.raises(TrainingError, match=r"\['a'\] and another \['b'\]"):
        tree.insert(1, {"b": np.zeros(1)})
