"""An algorithm of one's own against NumPy on one worker: ridge regression by the normal equations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import millstream.data as data
from millstream.parallel import Done, Inline, Threads, fit


class Ridge:
    def init(self, meta, rng):
        return {"w": np.zeros(meta.n_features)}

    def local(self, params, part, ctx):
        d = len(params["w"])
        xtx, xty = np.zeros((d, d)), np.zeros(d)
        for block in part.blocks():
            weighted = (block.X * block.weight[:, None]).astype("f8")  # (rows, d)
            xtx += block.X.T @ weighted
            xty += weighted.T @ block.y
        return {"xtx": xtx, "xty": xty}

    def update(self, state, statistic):
        return Done({"w": np.linalg.solve(statistic["xtx"] + np.eye(len(state["w"])), statistic["xty"])})


@pytest.fixture(scope="module")
def arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    X = rng.standard_normal((3000, 12))
    return X, X @ rng.standard_normal(12) + rng.standard_normal(3000), rng.random(3000)


def by_numpy(X: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The same through an augmented least-squares problem, by QR."""
    root = np.sqrt(weight)[:, None]
    augmented = np.vstack([X * root, np.eye(X.shape[1])])
    return np.linalg.lstsq(augmented, np.concatenate([y * root[:, 0], np.zeros(X.shape[1])]), rcond=None)[0]


def as_columns(X: np.ndarray, y: np.ndarray, weight: np.ndarray) -> data.Dataset:
    columns = {f"x{i}": X[:, i] for i in range(X.shape[1])}
    return data.from_arrow(pa.table({**columns, "y": y, "w": weight}), target="y", weight="w", part_rows=431)


@pytest.mark.parametrize("engine", [Inline(2), Threads(1), Threads(2), Threads(3)], ids=repr)
@pytest.mark.parametrize("form", ["numpy", "columns"])
def test_ridge(engine: Any, form: str, arrays: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    dataset = data.from_numpy(*arrays, part_rows=431) if form == "numpy" else as_columns(*arrays)
    w = fit(Ridge(), dataset, engine=engine).params["w"]
    np.testing.assert_allclose(w, by_numpy(*arrays), rtol=1e-11, atol=1e-12)
