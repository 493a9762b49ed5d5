"""Operations against NumPy on all rows at once, for any cut into parts, and their laws."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import millstream.data as data
from millstream.errors import InputError, TrainingError
from millstream.parallel import (
    CONCAT,
    MAX,
    MIN,
    MINLOC,
    MOMENTS,
    NOWHERE,
    QR,
    SPARSE_SUM,
    SUM,
    TOPK,
    Done,
    Op,
    PairwiseTree,
    Threads,
    fit,
    largest,
    located,
    moments,
    r_factor,
    sparse,
)

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(11)
X = RNG.standard_normal((60, 4)) * 10.0 ** RNG.integers(-3, 4, (60, 1))
X[::7] = X[3]  # rows that tie
KEYS = RNG.integers(0, 25, 60)


def least(rows: Array) -> Array:
    if not len(rows):
        return located(np.full(4, np.inf), NOWHERE)
    return located(X[rows].min(axis=0), rows[X[rows].argmin(axis=0)])


OPERANDS: list[tuple[Op, Callable[[Array], Array]]] = [
    (SUM, lambda rows: X[rows].sum(axis=0)),
    (MIN, lambda rows: X[rows].min(axis=0, initial=np.inf)),
    (MAX, lambda rows: X[rows].max(axis=0, initial=-np.inf)),
    (CONCAT, lambda rows: X[rows]),
    (MINLOC, least),
    (TOPK(7), lambda rows: largest(7, X[rows, 1], rows)),
    (MOMENTS, lambda rows: moments(X[rows])),
    (SPARSE_SUM, lambda rows: sparse(KEYS[rows], X[rows])),
    (QR, lambda rows: r_factor(X[rows])),
]
cuts = st.lists(st.integers(0, 60), max_size=9).map(lambda at: [0, *sorted(at), 60])


def over_parts(operation: Op, operand: Callable[[Array], Array], at: list[int]) -> Array:
    tree = PairwiseTree(len(at) - 1, {"s": operation})
    for index, (start, stop) in enumerate(itertools.pairwise(at)):
        tree.insert(index, {"s": operand(np.arange(start, stop))})
    return tree.result()["s"]


def close(got: Array, expected: Array) -> None:
    assert got.dtype == expected.dtype
    for name in expected.dtype.names or [...]:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("operation", "operand"), OPERANDS, ids=[op.name for op, _ in OPERANDS])
@settings(deadline=None, max_examples=40)
@given(at=cuts)
def test_any_cut_into_parts_gives_the_same(
    operation: Op, operand: Callable[[Array], Array], at: list[int]
) -> None:
    whole = operation(operand(np.arange(60)), operand(np.arange(0)))
    close(over_parts(operation, operand, at), whole)


@pytest.mark.parametrize(("operation", "operand"), OPERANDS, ids=[op.name for op, _ in OPERANDS])
def test_operands_are_left_as_they_are_and_operations_can_be_sent(
    operation: Op, operand: Callable[[Array], Array]
) -> None:
    left, right = operand(np.arange(20)), operand(np.arange(20, 60))
    for array in (left, right):
        array.flags.writeable = False
    result = pickle.loads(pickle.dumps(operation))(left, right)  # noqa: S301 - our own bytes
    assert not np.shares_memory(result, left)
    assert not np.shares_memory(result, right)
    assert result.tobytes() == operation(left, right).tobytes()


def test_minloc_is_argmin() -> None:
    at = over_parts(MINLOC, least, [0, 13, 13, 31, 60])
    assert at["index"].tolist() == X.argmin(axis=0).tolist()
    assert at["value"].tolist() == X.min(axis=0).tolist()
    undefined = MINLOC(located([-np.inf, np.nan, np.nan], [0, 5, 1]), located([np.nan] * 3, [9, 3, 4]))
    assert undefined["index"].tolist() == [9, 3, 1]  # numpy.argmin gives the first NaN


def test_topk_is_the_head_of_a_stable_descending_sort() -> None:
    top = over_parts(TOPK(12), lambda rows: largest(12, X[rows, 1], rows), [0, 1, 30, 30, 60])
    assert top["index"].tolist() == np.argsort(-X[:, 1], kind="stable")[:12].tolist()
    assert TOPK(2)(largest(2, [1.0, np.nan], [0, 1]), largest(2, [np.inf], [2]))["index"].tolist() == [1, 2]
    tied = TOPK(3)(largest(3, np.zeros(9), np.arange(20, 11, -1)), largest(3, np.zeros(5), np.arange(5)))
    assert tied["index"].tolist() == [0, 1, 2]
    with pytest.raises(InputError, match=r"TOPK\(0\)"):
        TOPK(0)
    with pytest.raises(InputError, match="k=0 of the largest"):
        largest(0, [1.0], [0])


def test_moments_are_those_of_numpy_far_from_the_origin() -> None:
    far = 1e8 + 1e-3 * X.clip(-1, 1)
    result = over_parts(MOMENTS, lambda rows: moments(far[rows]), [0, 5, 5, 20, 41, 60])
    exact = far.astype(np.longdouble)
    assert result[0].tolist() == [60] * 4
    np.testing.assert_allclose(result[1], exact.mean(axis=0).astype("f8"), rtol=1e-15)
    np.testing.assert_allclose(result[3] / 60, exact.var(axis=0).astype("f8"), rtol=1e-10)
    weighted = MOMENTS(moments(X[:30], np.full(30, 2.0)), moments(X[30:], np.zeros(30)))
    close(weighted[[0, 1, 3]], moments(X[:30])[[0, 1, 3]] * np.array([[2.0], [1.0], [2.0]]))


def test_sparse_sum_is_the_dense_sum() -> None:
    result = over_parts(SPARSE_SUM, lambda rows: sparse(KEYS[rows], X[rows]), [0, 10, 10, 25, 60])
    dense = np.zeros((25, 4))
    np.add.at(dense, KEYS, X)
    assert result["key"].tolist() == np.unique(KEYS).tolist()
    np.testing.assert_allclose(result["value"], dense[result["key"]], rtol=1e-12, atol=1e-12)
    keys, values = RNG.integers(0, 3, 500), RNG.standard_normal(500) * 10.0 ** RNG.integers(-8, 9, 500)
    in_order = [np.add.reduceat(values[keys == key], [0])[0] for key in range(3)]
    assert sparse(keys, values)["value"].tolist() == in_order
    assert sparse([3], np.ones(1, "f4")).dtype["value"] == np.dtype("f4")
    with pytest.raises(TrainingError, match="one value for each key"):
        sparse([1, 2], [1.0])
    with pytest.raises(TrainingError, match="one dtype and one shape"):
        SPARSE_SUM(sparse([1], [1.0]), sparse([1], [[1.0, 2.0]]))


def test_qr_sees_what_the_gram_matrix_loses() -> None:
    mixed = np.linalg.qr(RNG.standard_normal((3, 3)))[0]
    tall = np.linalg.qr(RNG.standard_normal((400, 3)))[0] @ np.diag([1.0, 1e-5, 1e-10]) @ mixed
    R = over_parts(QR, lambda rows: r_factor(tall[rows]), [0, 20, 60])
    R = QR(R, r_factor(tall[60:]))
    assert (np.diagonal(R) >= 0).all()
    assert np.linalg.svd(R, compute_uv=False)[-1] == pytest.approx(1e-10, rel=1e-4)
    by_gram = np.sqrt(np.abs(np.linalg.eigvalsh(tall.T @ tall))).min()
    assert by_gram != pytest.approx(1e-10, rel=0.5)  # or the normal equations would do
    with pytest.raises(TrainingError, match=r"shapes \(2, 2\) and \(2, 3\) to QR"):
        QR(np.eye(2), r_factor(np.ones((2, 3))))


@pytest.mark.parametrize("operation", [SUM, MINLOC], ids=repr)
def test_shapes_that_differ_are_refused(operation: Op) -> None:
    operand = located if operation is MINLOC else np.add
    with pytest.raises(TrainingError, match=r"shapes \(2,\) and \(3,\)"):
        operation(operand(np.ones(2), np.ones(2)), operand(np.ones(3), np.ones(3)))


class Summary:
    """Several operations in one statistic, through `fit`."""

    combine: ClassVar = {
        "moments": MOMENTS,
        "R": QR,
        "lowest": MINLOC,
        "highest": TOPK(3),
        "counts": SPARSE_SUM,
    }

    def init(self, meta, rng):
        return {}

    def local(self, params, part, ctx):
        rows = np.arange(part.first_row, part.first_row + part.n_rows)
        block = X[rows]
        return {
            "moments": moments(block),
            "R": r_factor(block),
            "lowest": least(rows),
            "highest": largest(3, block[:, 0], rows),
            "counts": sparse(KEYS[rows], np.ones(len(rows))),
        }

    def update(self, state, statistic):
        return Done(dict(statistic))


def test_each_field_of_a_fit_by_its_own_operation() -> None:
    params = fit(Summary(), data.from_numpy(X, part_rows=[9, 0, 30, 21]), engine=Threads(2)).params
    np.testing.assert_allclose(params["moments"][1], X.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(params["R"].T @ params["R"], X.T @ X, rtol=1e-9, atol=1e-6)
    assert params["lowest"]["index"].tolist() == X.argmin(axis=0).tolist()
    assert params["highest"]["index"].tolist() == np.argsort(-X[:, 0], kind="stable")[:3].tolist()
    assert params["counts"]["key"].tolist() == np.unique(KEYS).tolist()
    assert params["counts"]["value"].tolist() == np.bincount(KEYS)[np.unique(KEYS)].tolist()
