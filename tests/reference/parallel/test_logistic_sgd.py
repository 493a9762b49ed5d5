"""Logistic regression by SGD, as the example has it, against scikit-learn's exact solution, under every sync."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import millstream as ms
from millstream.parallel import Async, Bulk, Engine, Inline, Stale, Threads

EXAMPLE = Path(__file__).parents[3] / "examples" / "logistic_sgd.py"
SYNCS = [Bulk(), Stale(2, "pinned"), Stale(1, insignificant=1e-3), Async()]


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "logistic_sgd"}
    exec(compile(EXAMPLE.read_text(), str(EXAMPLE), "exec"), names)
    return names


@pytest.fixture(scope="module")
def visits(example: dict[str, Any]) -> tuple[ms.Dataset, np.ndarray]:
    dataset = example["visits"](np.array([1.0, -2.0, 0.5, 0.0, 3.0]))
    table = dataset.to_table()
    X = np.array(table["X"].to_pylist())
    exact = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-8).fit(X, table["y"].to_numpy())
    return dataset, exact.coef_[0]


@pytest.mark.parametrize("sync", SYNCS, ids=repr)
@pytest.mark.parametrize("engine", [Inline(4), Threads(2)], ids=repr)
def test_sgd_comes_within_a_tenth_of_the_maximum_likelihood(
    engine: Engine, sync: Any, example: Any, visits: Any
) -> None:
    dataset, exact = visits
    fitted = ms.fit(example["LogisticSGD"](), dataset, engine=engine, sync=sync, steps=20)
    assert np.abs(fitted.params["w"] - exact).max() < 0.1


def test_no_steps_are_not_within_a_tenth(example: Any, visits: Any) -> None:
    dataset, exact = visits
    fitted = ms.fit(example["LogisticSGD"](), dataset, engine=Inline(), sync=Stale(1), steps=1)
    assert np.abs(fitted.params["w"] - exact).max() > 0.1
