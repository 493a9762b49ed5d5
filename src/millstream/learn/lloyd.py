"""Lloyd's iteration for k-means, written on the parallel contract.

::

    sample ──> seed (k-means++) ──> assign ──> move ──> assign ... ──> finish (labels, inertia)
                                      └── a cluster stayed empty ──> farthest ──┘

``assign`` sums the rows of every cluster; ``move`` takes the means. An empty cluster gets the row farthest from its own
center, which leaves its old cluster: scikit-learn's rule, at the price of one more pass where it happens. Seeds come
from a random sample of rows, drawn by row number, so they do not depend on how rows lie in parts.

Source: Lloyd, *Least squares quantization in PCM* (1982); Arthur and Vassilvitskii, *k-means++* (2007).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array
from sklearn.cluster import kmeans_plusplus

from millstream.data import Block, Part
from millstream.errors import InputError
from millstream.learn.nearest import nearest_by_run
from millstream.learn.rows import refuse_not_finite
from millstream.parallel import CONCAT, MOMENTS, Context, Done, Meta, Step, moments

__all__ = ["Lloyd"]

Array = NDArray[np.floating]
State = dict[str, Any]

_SAMPLE_ROWS = 20_000
_SAMPLE_ROWS_A_CLUSTER = 50


@dataclass(frozen=True)
class Lloyd:
    """Finds ``(n_clusters, features)`` centers.

    seeds: centers to begin with, or None for k-means++; tolerance: on the squared movement of all centers together,
    relative to the mean variance of the features; scikit-learn's ``tol``.

    ``Done.params``: ``centers`` float64, ``labels`` ``(rows,)`` int32, ``inertia``, ``n_iter``, ``converged``.
    """

    n_clusters: int
    seeds: Array | None
    tolerance: float
    max_iter: int

    combine = {"moments": MOMENTS, "sample": CONCAT, "far": CONCAT, "labels": CONCAT}  # noqa: RUF012

    def init(self, meta: Meta, rng: np.random.Generator) -> State:
        if meta.n_rows < self.n_clusters:
            raise InputError(
                f"n_samples={meta.n_rows} should be >= n_clusters={self.n_clusters}: lower n_clusters, or add rows"
            )
        wanted = min(meta.n_rows, max(_SAMPLE_ROWS, _SAMPLE_ROWS_A_CLUSTER * self.n_clusters))
        rows = (
            np.arange(0)
            if self.seeds is not None
            else np.sort(rng.choice(meta.n_rows, wanted, replace=False))
        )
        return {
            "phase": "sample",
            "rows": rows,
            "seed": int(rng.integers(2**31)),
            "n_features": len(meta.schema.feature_names),
            "n_iter": 0,
        }

    def plan(self, state: State) -> Step:
        shipped = {"sample": ("rows", "n_features"), "farthest": ("centers", "shift", "n_empty")}
        names = shipped.get(state["phase"], ("centers", "shift"))
        return Step(params={"phase": state["phase"], **{name: state[name] for name in names}})

    def local(self, params: Mapping[str, Any], part: Part, ctx: Context) -> dict[str, Array]:
        return _LOCAL[params["phase"]](params, part)

    def update(self, state: State, statistic: Mapping[str, Array]) -> State | Done:
        phase = state["phase"]
        if phase == "sample":
            return self._seed(state, statistic)
        if phase == "assign":
            return self._assigned(state, statistic)
        if phase == "farthest":
            return self._move(state, *_relocated(state, statistic["far"]))
        names = ("centers", "n_iter", "converged")
        return Done({**{name: np.asarray(state[name]) for name in names}, **dict(statistic)})

    def measure(self, state: Mapping[str, Any], statistic: Mapping[str, Array]) -> dict[str, float]:
        """The weighted sum of squared distances to the centers that the step began with."""
        return {"inertia": float(statistic["inertia"])} if "inertia" in statistic else {}

    def _seed(self, state: State, statistic: Mapping[str, Array]) -> State:
        weight, mean, _, squares = statistic["moments"]
        if not weight.max(initial=0.0) > 0:
            raise InputError("the weights of the rows sum to 0; expected a positive sum")
        if self.seeds is not None:
            centers = np.asarray(self.seeds, dtype=np.float64)
        else:
            sample, weights = statistic["sample"][:, :-1], statistic["sample"][:, -1]
            centers, _ = kmeans_plusplus(
                sample - mean, self.n_clusters, sample_weight=weights, random_state=state["seed"]
            )
            centers = centers + mean
        tolerance = self.tolerance * float(np.mean(squares / weight))
        return {"phase": "assign", "centers": centers, "shift": mean, "tolerance": tolerance, "n_iter": 0}

    def _assigned(self, state: State, statistic: Mapping[str, Array]) -> State:
        sums, weight = statistic["sums"], statistic["weight"]
        n_empty = int((weight == 0).sum())
        if n_empty:
            return {**state, "phase": "farthest", "sums": sums, "weight": weight, "n_empty": n_empty}
        return self._move(state, sums, weight)

    def _move(self, state: State, sums: Array, weight: Array) -> State:
        old = state["centers"]
        held = weight > 0
        centers = np.where(held[:, None], sums / np.where(held, weight, 1.0)[:, None] + state["shift"], old)
        movement = float(((centers - old) ** 2).sum())
        n_iter = state["n_iter"] + 1
        converged = movement <= state["tolerance"]
        phase = "finish" if converged or n_iter >= self.max_iter else "assign"
        kept = {name: state[name] for name in ("shift", "tolerance")}
        return {**kept, "phase": phase, "centers": centers, "n_iter": n_iter, "converged": converged}


def _sample(params: Mapping[str, Any], part: Part) -> dict[str, Array]:
    features = int(params["n_features"])
    total = np.zeros((4, features))
    chosen = [np.empty((0, features + 1))]
    for block in part.blocks():
        refuse_not_finite(block)
        total = MOMENTS(total, moments(block.X, block.weight))
        first, last = np.searchsorted(params["rows"], [block.first_row, block.first_row + len(block)])
        rows = params["rows"][first:last] - block.first_row
        chosen.append(np.column_stack([block.X[rows], block.weight[rows]]).astype(np.float64))
    return {"moments": total, "sample": np.concatenate(chosen)}


def _runs(params: Mapping[str, Any], block: Block) -> Any:
    dtype = block.X.dtype
    return nearest_by_run(block.X, params["centers"].astype(dtype), params["shift"].astype(dtype))


def _assign(params: Mapping[str, Any], part: Part) -> dict[str, Array]:
    clusters, features = params["centers"].shape
    sums, weights = np.zeros((clusters, features)), np.zeros(clusters)
    inertia = 0.0
    for block in part.blocks():
        for rows, label, distance, shifted in _runs(params, block):
            weight = block.weight[rows]
            member = csc_array((weight, label, np.arange(len(label) + 1)), shape=(clusters, len(label)))
            sums += member @ shifted.astype(np.float64, copy=False)
            weights += np.bincount(label, weight, clusters)
            inertia += float(weight @ distance)
    return {"sums": sums, "weight": weights, "inertia": np.asarray(inertia)}


def _farthest(params: Mapping[str, Any], part: Part) -> dict[str, Array]:
    """The ``n_empty`` farthest rows of the part: distance, row, label, weight, then the shifted row itself."""
    wanted = int(params["n_empty"])
    kept = np.empty((0, params["centers"].shape[1] + 4))
    for block in part.blocks():
        for rows, label, distance, shifted in _runs(params, block):
            far = np.argsort(-distance, kind="stable")[:wanted]
            number = block.first_row + rows.start + far
            described = [distance[far], number, label[far], block.weight[rows][far]]
            kept = _top(np.concatenate([kept, np.column_stack([*described, shifted[far]])]), wanted)
    return {"far": kept}


def _top(far: Array, wanted: int) -> Array:
    return far[np.lexsort((far[:, 1], -far[:, 0]))[:wanted]]


def _finish(params: Mapping[str, Any], part: Part) -> dict[str, Any]:
    labels = [np.empty(0, np.int32)]
    inertia = 0.0
    for block in part.blocks():
        for rows, label, distance, _ in _runs(params, block):
            labels.append(label.astype(np.int32))
            inertia += float(block.weight[rows] @ distance)
    return {"labels": np.concatenate(labels), "inertia": np.asarray(inertia)}


_LOCAL = {"sample": _sample, "assign": _assign, "farthest": _farthest, "finish": _finish}


def _relocated(state: State, far: Array) -> tuple[Array, Array]:
    """Sums and weights after each empty cluster took one far row from the cluster that held it."""
    sums, weight = state["sums"].copy(), state["weight"].copy()
    empty = np.flatnonzero(weight == 0)
    for cluster, row in zip(empty, _top(far, len(empty)), strict=False):
        distance, _, label, share = row[:4]
        if distance == 0:  # fewer distinct rows than clusters: the center stays where it is
            break
        x = share * row[4:]
        sums[cluster] = x
        weight[cluster] = share
        sums[int(label)] -= x
        weight[int(label)] -= share
    return sums, weight
