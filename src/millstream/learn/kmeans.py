"""k-means: rows grouped around centers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from millstream.data import from_numpy
from millstream.errors import InputError
from millstream.learn.lloyd import Lloyd
from millstream.learn.nearest import nearest_by_run
from millstream.learn.onnx_form import onnx_form
from millstream.learn.onnx_graph import Column, Graph, GraphRows, element_type
from millstream.learn.parameters import not_negative, positive_integer
from millstream.learn.rows import Rows, matrices, numeric_dtype, remember_features, training_dataset
from millstream.learn.training import seed_of, train
from millstream.parallel import Bulk, Engine

__all__ = ["KMeans"]


class KMeans(ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """Centers that minimise the summed squared distance of rows to the nearest of them, by Lloyd's iteration.

    Parameters:
        n_clusters: how many. init: ``"k-means++"``, or ``(n_clusters, n_features)`` centers to begin with.
        max_iter: most iterations. tol: stop when all centers together move less than this share of the mean variance.
        random_state: seed of the sample and of k-means++.
        engine, sync: see `millstream.parallel.fit`.

    Attributes:
        cluster_centers_: ``(n_clusters, n_features)`` in the dtype of the rows. labels_: ``(rows,)`` int32.
        inertia_: the minimum reached. n_iter_: iterations. fit_report_: where the time went.

    When not to use it: clusters that are not round, features on different scales (scale them first).

    Source: Lloyd 1982; Arthur and Vassilvitskii 2007, run once on a sample of at least 20,000 rows.

    Example:
        >>> X = np.array([[0.0, 0.0], [0.0, 1.0], [9.0, 9.0], [9.0, 8.0]])
        >>> model = KMeans(n_clusters=2, random_state=0).fit(X)
        >>> sorted(model.cluster_centers_.tolist()), model.inertia_
        ([[0.0, 0.5], [9.0, 8.5]], 1.0)
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: str | ArrayLike = "k-means++",
        max_iter: int = 300,
        tol: float = 1e-4,
        random_state: Any = None,
        engine: Engine | None = None,
        sync: Bulk | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.engine = engine
        self.sync = sync

    def fit(self, X: Rows, y: Any = None, sample_weight: Any = None) -> Self:
        """X: ``(rows, features)`` numbers or a `Dataset`; a target is not looked at."""
        n_clusters, max_iter = positive_integer(self, "n_clusters"), positive_integer(self, "max_iter")
        tol = not_negative(self, "tol")
        rows = training_dataset(X, None, sample_weight)
        if rows is None:
            X = validate_data(self, X, dtype=[np.float64, np.float32], order="C")
            rows = from_numpy(
                X, weight=None if sample_weight is None else _check_sample_weight(sample_weight, X)
            )
        else:
            remember_features(self, rows.schema)
        self.dtype_in_ = numeric_dtype(rows)
        seeds = self._seeds()
        lloyd = Lloyd(n_clusters, seeds, tol, max_iter)
        found = train(self, lloyd, rows, seed_of(self.random_state))
        self.cluster_centers_: NDArray[Any] = found["centers"].astype(self.dtype_in_)
        self.labels_: NDArray[np.int32] = found["labels"]
        self.inertia_ = float(found["inertia"])
        self.n_iter_ = int(found["n_iter"])
        return self

    def predict(self, X: Rows) -> NDArray[np.int32]:
        """``(rows,)`` int32: the nearest center; a tie goes to the lowest."""
        check_is_fitted(self)
        labels = [np.empty(0, np.int32)]
        for rows in matrices(self, X):
            centers = self.cluster_centers_.astype(rows.dtype, copy=False)
            runs = nearest_by_run(rows, centers, _middle(centers))
            labels += [label.astype(np.int32) for _, label, _, _ in runs]
        return np.concatenate(labels)

    def _seeds(self) -> NDArray[Any] | None:
        if isinstance(self.init, str):
            if self.init != "k-means++":
                raise InputError(f"KMeans(init={self.init!r}): expected 'k-means++' or an array of centers")
            return None
        seeds = np.asarray(self.init, dtype=np.float64)
        expected = (self.n_clusters, self.n_features_in_)
        if seeds.shape != expected or not np.isfinite(seeds).all():
            raise InputError(f"init is of shape {seeds.shape}; expected finite centers of shape {expected}")
        return seeds


def _middle(centers: NDArray[Any]) -> NDArray[Any]:
    """What rows and centers are shifted by, in the dtype of the centers: their mean."""
    return np.asarray(centers.mean(axis=0, dtype=np.float64).astype(centers.dtype))


@onnx_form(KMeans)
def _form(kmeans: KMeans, graph: Graph, rows: GraphRows) -> Mapping[str, Column]:
    centers = kmeans.cluster_centers_
    middle = _middle(centers)
    moved = centers - middle
    half = 0.5 * np.einsum("ij,ij->i", moved, moved)
    shifted = graph.op("Sub", graph.matrix(rows, centers.dtype), graph.constant(middle))
    product = graph.op("MatMul", shifted, graph.constant(moved.T))
    label = graph.op("ArgMin", graph.op("Sub", graph.constant(half), product), axis=1, keepdims=0)
    return {"label": Column("label", label, element_type(np.dtype("i8")))}
