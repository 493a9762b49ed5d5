"""Laws of sharded parameters: the result is that of one shard, on every engine, at any width, whoever dies.

K-means with its centroids over shards, to the same bits: a least distance is exact. Logistic regression over a million
hashed features: a margin is a sum over shards, so the bits are those of the number of shards, and within rounding of
one. Both are compared with plain NumPy too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

import millstream.data as data
from millstream.errors import Refused, TrainingError
from millstream.kernels.sparse_update import add_rows
from millstream.parallel import (
    MINLOC,
    Done,
    Engine,
    Fault,
    Inline,
    Processes,
    Stale,
    Step,
    Threads,
    fit,
    located,
)

ENGINES = [
    Inline(1, workers=1),
    Inline(2, workers=3),
    Inline(3, [Fault(1, 0), Fault(2, 1, "hang", after=3)], 3),
    Threads(1),
    Threads(2),
    Threads(3, faults=[Fault(1, 1)]),
    Processes(2),
]
SHARDS = [1, 2, 3, 5]


@dataclass
class ShardedKMeans:
    """Lloyd's algorithm (IEEE Trans. Inf. Theory 1982) with each shard holding some of the centroids."""

    shards: int
    start: np.ndarray
    steps: int = 6
    combine: ClassVar = {"nearest": MINLOC}

    def init(self, meta: Any, rng: Any) -> Any:
        return {"centroids": self.start, "inertia": np.array(0.0), "step": np.array(0)}

    def plan(self, state: Any) -> Step:
        return Step({"centroids": state["centroids"]})

    def score(self, shard: Any, part: Any, ctx: Any) -> Any:
        centroids, start = shard["centroids"], shard.starts["centroids"]
        nearest = [located(np.empty(0), np.empty(0))]
        for block in part.blocks():
            squares = ((block.X[:, None] - centroids) ** 2).sum(axis=2)  # (rows, centroids of the shard)
            which = squares.argmin(axis=1)
            nearest.append(located(squares[np.arange(len(which)), which], which + start))
        return {"nearest": np.concatenate(nearest)}

    def local(self, shard: Any, part: Any, ctx: Any) -> Any:
        start, k = shard.starts["centroids"], len(shard["centroids"])
        sums, counts = np.zeros((k, part.schema["X"].type.list_size)), np.zeros(k)
        nearest = ctx.scores["nearest"]
        mine = (nearest["index"] >= start) & (nearest["index"] < start + k)
        X = np.concatenate([block.X for block in part.blocks()] or [np.empty((0, sums.shape[1]))])
        add_rows(sums, nearest["index"][mine] - start, X[mine])
        np.add.at(counts, nearest["index"][mine] - start, 1)
        return {
            "sums": sums,
            "counts": counts,
            "inertia": nearest["value"].sum() if shard.index == 0 else 0.0,
        }

    def update(self, state: Any, statistic: Any) -> Any:
        counts = statistic["counts"]
        centroids = np.where(
            counts[:, None] > 0, statistic["sums"] / np.maximum(counts, 1)[:, None], state["centroids"]
        )
        state = {"centroids": centroids, "inertia": statistic["inertia"], "step": state["step"] + 1}
        return Done(state) if state["step"] == self.steps else state


def lloyd(X: np.ndarray, centroids: np.ndarray, steps: int) -> np.ndarray:
    """In plain NumPy."""
    for _ in range(steps):
        labels = ((X[:, None] - centroids) ** 2).sum(axis=2).argmin(axis=1)
        centroids = np.array(
            [X[labels == k].mean(axis=0) if (labels == k).any() else c for k, c in enumerate(centroids)]
        )
    return centroids


@pytest.fixture(scope="module")
def blobs() -> tuple[np.ndarray, data.Dataset, np.ndarray]:
    rng = np.random.default_rng(3)
    X = rng.standard_normal((900, 4)) + 3 * rng.integers(0, 4, (900, 1))
    rows = [200, 0, 1, 399, 300]
    return X, data.from_numpy(X, part_rows=rows), X[rng.choice(900, 8, replace=False)]


@pytest.mark.parametrize("engine", ENGINES, ids=repr)
def test_kmeans_with_sharded_centroids_has_the_bits_of_one_shard(engine: Engine, blobs: Any) -> None:
    X, dataset, start = blobs
    alone = fit(ShardedKMeans(1, start), dataset, engine=Inline(workers=1)).params
    np.testing.assert_allclose(alone["centroids"], lloyd(X, start, 6), rtol=1e-12)
    for shards in SHARDS:
        fitted = fit(ShardedKMeans(shards, start), dataset, engine=engine).params
        assert fitted["centroids"].tobytes() == alone["centroids"].tobytes()
        assert fitted["inertia"] == alone["inertia"]


N_PARAMS, N_ROWS, N_HASHED = 1_000_000, 8_000, 20


@dataclass
class HashedLogistic:
    """Gradient descent for logistic regression; a row is the numbers of its features (1, all others 0)."""

    shards: int | None = None
    rate: float = 0.2
    n_params: int = N_PARAMS

    def init(self, meta: Any, rng: Any) -> Any:
        self.n_rows = meta.n_rows
        return {"w": np.zeros(self.n_params), "bias": np.array(0.0)}

    def score(self, shard: Any, part: Any, ctx: Any) -> Any:
        margins = [np.empty(0)]
        for block in part.blocks():
            keys = block.X.astype("i8") - shard.starts["w"]  # (rows, features)
            mine = (keys >= 0) & (keys < len(shard["w"]))
            w = shard["w"][np.where(mine, keys, 0)] if len(shard["w"]) else np.zeros(keys.shape)
            margins.append((w * mine).sum(axis=1) + shard.get("bias", 0.0))
        return {"margin": np.concatenate(margins)}

    def local(self, shard: Any, part: Any, ctx: Any) -> Any:
        gradient, loss, bias, done = np.zeros((len(shard["w"]), 1)), 0.0, 0.0, 0
        for block in part.blocks():
            margin = ctx.scores["margin"][done : done + len(block)]
            done += len(block)
            error = 1 / (1 + np.exp(-margin)) - block.y
            keys = (block.X.astype("i8") - shard.starts["w"]).ravel()
            mine = (keys >= 0) & (keys < len(shard["w"]))
            add_rows(gradient, keys[mine], np.repeat(error, block.X.shape[1])[mine, None])
            bias += error.sum()
            loss += np.logaddexp(0, np.where(block.y == 1, -margin, margin)).sum()
        first = shard.index == 0
        return {"gradient": gradient[:, 0], "bias": bias * first, "loss": loss * first}

    def update(self, state: Any, statistic: Any) -> Any:
        step = self.rate / self.n_rows
        return {
            "w": state["w"] - step * statistic["gradient"],
            "bias": state["bias"] - step * statistic["bias"],
        }

    def measure(self, state: Any, statistic: Any) -> Any:
        return {"loss": float(statistic["loss"]) / self.n_rows}


@pytest.fixture(scope="module")
def hashed() -> tuple[np.ndarray, np.ndarray, data.Dataset]:
    rng = np.random.default_rng(9)
    X = (rng.zipf(1.2, (N_ROWS, N_HASHED)).astype("u8") * 0x9E3779B97F4A7C15 % N_PARAMS).astype("f8")
    y = (rng.standard_normal(N_PARAMS)[X.astype("i8")].sum(axis=1) > 0).astype("f8")
    return X, y, data.from_numpy(X, y, part_rows=N_ROWS // 3)


def descent(X: np.ndarray, y: np.ndarray, steps: int, rate: float) -> tuple[np.ndarray, float]:
    """In plain NumPy."""
    w, bias, keys = np.zeros(N_PARAMS), 0.0, X.astype("i8")
    for _ in range(steps):
        error = 1 / (1 + np.exp(-(w[keys].sum(axis=1) + bias))) - y
        np.add.at(w, keys.ravel(), -rate / len(y) * np.repeat(error, keys.shape[1]))
        bias -= rate / len(y) * error.sum()
    return w, bias


def test_a_million_sharded_weights_are_those_of_one_shard_and_of_numpy(hashed: Any) -> None:
    X, y, dataset = hashed
    w, bias = descent(X, y, 4, 0.2)
    alone = fit(HashedLogistic(shards=1), dataset, engine=Inline(), steps=4)
    sharded = fit(HashedLogistic(), dataset, engine=Threads(2), steps=4)  # 8 MB of weights: 8 shards
    for one in (alone, sharded):
        np.testing.assert_allclose(one.params["w"], w, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(one.params["bias"], bias, rtol=1e-9)
        losses = one.history["loss"].to_pylist()
        assert losses == sorted(losses, reverse=True)
    assert sharded.report.statistic_bytes > alone.report.statistic_bytes  # every shard sends scores


@pytest.mark.parametrize("shards", [2, 5])
def test_sharded_weights_have_the_same_bits_on_every_engine(shards: int, hashed: Any) -> None:
    X, y, _ = hashed
    small = data.from_numpy(X[:600] % 50, y[:600], part_rows=70)
    algorithm = HashedLogistic(shards, n_params=50)
    bits = {repr(e): fit(algorithm, small, engine=e, steps=4).params["w"].tobytes() for e in ENGINES}
    assert len(set(bits.values())) == 1, bits.keys()


class ScoresInWhichever(HashedLogistic):
    """A planted algorithm whose scores depend on who was first."""

    seen = 0

    def score(self, shard: Any, part: Any, ctx: Any) -> Any:
        self.seen += 1
        return {"margin": super().score(shard, part, ctx)["margin"] + self.seen}


def test_scores_that_depend_on_the_order_are_found_out(hashed: Any) -> None:
    X, y, _ = hashed
    small = data.from_numpy(X[:600] % 50, y[:600], part_rows=70)
    bits = {
        fit(ScoresInWhichever(2, n_params=50), small, engine=Inline(seed), steps=2).params["w"].tobytes()
        for seed in (0, 1)
    }
    assert len(bits) == 2


class OneFieldAShard(HashedLogistic):
    def local(self, shard: Any, part: Any, ctx: Any) -> Any:
        return {f"gradient{shard.index}": np.zeros(len(shard["w"]))}


class NoShardsOfIt(HashedLogistic):
    def init(self, meta: Any, rng: Any) -> Any:
        return [1.0, 2.0]


def test_what_can_not_be_scored_is_refused(hashed: Any) -> None:
    X, y, _ = hashed
    small = data.from_numpy(X[:60] % 50, y[:60])
    with pytest.raises(TrainingError, match="every shard"):
        fit(OneFieldAShard(2, n_params=50), small, engine=Inline())
    with pytest.raises(ValueError, match="mapping of names to arrays"):
        fit(NoShardsOfIt(2), small, engine=Inline())
    with pytest.raises(Refused, match="baseline"):
        fit(HashedLogistic(2, n_params=50), small, engine=Inline(), baseline=True)

    class Both(HashedLogistic):
        def delta(self, params: Any, statistic: Any, clock: int) -> Any:
            return {"w": -statistic["gradient"]}

    with pytest.raises(Refused, match="has score"):
        fit(Both(2, n_params=50), small, engine=Inline(), sync=Stale(1), steps=2)
