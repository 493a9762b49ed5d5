"""Features with mean zero and variance one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.utils import Tags
from sklearn.utils.validation import _check_sample_weight, validate_data

from millstream.data import from_numpy
from millstream.learn.moments import Moments
from millstream.learn.onnx_form import onnx_form
from millstream.learn.onnx_graph import Column, Graph, GraphRows, element_type
from millstream.learn.rows import Rows, batch_matrix, numeric_dtype, remember_features, training_dataset
from millstream.learn.training import train
from millstream.learn.transformer import MATRIX, Transformer, matrix_column
from millstream.parallel import Bulk, Engine

__all__ = ["StandardScaler"]


class StandardScaler(Transformer):
    """``(x - mean) / standard deviation`` by feature; a constant feature is only centered. NaN passes through.

    Parameters:
        with_mean, with_std: whether to center and to scale. engine, sync: see `millstream.parallel.fit`.

    Attributes:
        mean_, var_, scale_: ``(n_features,)`` float64; scale_ is 1 for a constant feature. n_samples_seen_: weight of
        the rows. fit_report_: where the time went.

    When not to use it: features with far outliers, which decide the scale.

    Source: moments merged after Chan, Golub and LeVeque 1979.

    Example:
        >>> StandardScaler().fit_transform([[1.0, 5.0], [3.0, 5.0]])
        array([[-1.,  0.],
               [ 1.,  0.]])
    """

    def __init__(
        self,
        *,
        with_mean: bool = True,
        with_std: bool = True,
        engine: Engine | None = None,
        sync: Bulk | None = None,
    ) -> None:
        self.with_mean = with_mean
        self.with_std = with_std
        self.engine = engine
        self.sync = sync

    def fit(self, X: Rows, y: Any = None, sample_weight: Any = None) -> Self:
        """X: ``(rows, features)`` numbers or a `Dataset`; a target is not looked at."""
        rows = training_dataset(X, None, sample_weight)
        if rows is None:
            X = validate_data(
                self, X, dtype=[np.float64, np.float32], order="C", ensure_all_finite="allow-nan"
            )
            rows = from_numpy(
                X, weight=None if sample_weight is None else _check_sample_weight(sample_weight, X)
            )
        else:
            remember_features(self, rows.schema)
        self.dtype_in_ = numeric_dtype(rows)
        weight, mean, _, squares = train(self, Moments(), rows)["moments"]
        self.n_samples_seen_ = float(weight.max())
        self.mean_: NDArray[np.float64] = mean
        self.var_: NDArray[np.float64] = squares / np.where(weight > 0, weight, 1.0)
        self.scale_: NDArray[np.float64] = np.where(
            _constant(self.var_, mean, weight) | (not self.with_std), 1.0, np.sqrt(self.var_)
        )
        return self

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _transform_array(self, X: Rows) -> NDArray[Any]:
        rows = validate_data(
            self, X, reset=False, dtype=[np.float64, np.float32], order="C", ensure_all_finite="allow-nan"
        )
        return self._scaled(rows)

    def _transform_columns(self, batch: pa.RecordBatch, columns: tuple[str, ...]) -> list[pa.Array]:
        return [matrix_column(self._scaled(batch_matrix(batch, columns).astype(self.dtype_in_, copy=False)))]

    def _output_type(self) -> pa.DataType:
        return pa.from_numpy_dtype(self.dtype_in_)

    def _scaled(self, X: NDArray[Any]) -> NDArray[Any]:
        if self.with_mean:
            X = X - self.mean_.astype(X.dtype)
        return np.asarray(X / self.scale_.astype(X.dtype))


def _constant(var: NDArray[Any], mean: NDArray[Any], weight: NDArray[Any]) -> NDArray[np.bool_]:
    """Variance that rounding alone can explain (scikit-learn's bound)."""
    eps = np.finfo(np.float64).eps
    return np.asarray(var <= weight * eps * var + (weight * mean * eps) ** 2)


@onnx_form(StandardScaler)
def _form(scaler: StandardScaler, graph: Graph, rows: GraphRows) -> Mapping[str, Column]:
    dtype = scaler.dtype_in_
    value = graph.matrix(rows, dtype)
    if scaler.with_mean:
        value = graph.op("Sub", value, graph.constant(scaler.mean_.astype(dtype)))
    value = graph.op("Div", value, graph.constant(scaler.scale_.astype(dtype)))
    return {MATRIX: Column(MATRIX, value, element_type(dtype), scaler.n_features_in_)}
