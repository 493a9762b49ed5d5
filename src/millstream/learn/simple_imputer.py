"""Missing values filled with the mean of their column, or with one constant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from millstream.data import Field, Role, from_numpy
from millstream.errors import InputError
from millstream.learn.moments import Moments
from millstream.learn.onnx_form import onnx_form
from millstream.learn.onnx_graph import Column, Graph, GraphRows, element_type
from millstream.learn.rows import Rows, batch_matrix, is_string, remember_features, training_dataset
from millstream.learn.training import train
from millstream.learn.transformer import MATRIX, Transformer, matrix_column
from millstream.parallel import Bulk, Engine

__all__ = ["SimpleImputer"]


class SimpleImputer(Transformer):
    """NaN (null by column) becomes the mean of its feature, or ``fill_value``.

    String columns of a `Dataset` or table can be filled with a constant string; the empty string counts as missing
    too, since a model's exported form receives a null string as one.

    Parameters:
        strategy: ``"mean"`` or ``"constant"``. fill_value: the constant, a number or a string.
        engine, sync: see `millstream.parallel.fit`.

    Attributes:
        statistics_: ``(n_features,)`` what is filled in. fit_report_: where the time went (strategy ``"mean"``).

    When not to use it: where that a value is missing says something of itself; add a column for it then.

    Source: Little and Rubin, *Statistical Analysis with Missing Data*, section 4.2.1 (unconditional means).

    Example:
        >>> SimpleImputer().fit_transform([[1.0, np.nan], [3.0, 4.0]])
        array([[1., 4.],
               [3., 4.]])
    """

    def __init__(
        self,
        *,
        strategy: str = "mean",
        fill_value: float | str = 0.0,
        engine: Engine | None = None,
        sync: Bulk | None = None,
    ) -> None:
        self.strategy = strategy
        self.fill_value = fill_value
        self.engine = engine
        self.sync = sync

    def fit(self, X: Rows, y: Any = None) -> Self:
        """X: ``(rows, features)`` numbers with NaN for missing, or a `Dataset`; a target is not looked at."""
        if self.strategy not in ("mean", "constant"):
            raise InputError(f"SimpleImputer(strategy={self.strategy!r}): expected 'mean' or 'constant'")
        rows = training_dataset(X, None)
        if rows is None:
            X = self._numbers(X, reset=True)
            rows = from_numpy(X)
        else:
            remember_features(self, rows.schema)
        self.dtype_in_ = rows.dtype  # None where the columns are strings
        if rows.dtype is None:
            self._refuse_unless_constant_strings([rows.schema[name] for name in rows.schema.features])
        self.statistics_ = self._mean(rows) if self.strategy == "mean" else self._constant()
        return self

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _mean(self, rows: Any) -> NDArray[Any]:
        weight, mean, _, _ = train(self, Moments(), rows)["moments"]
        if not (weight > 0).all():
            name = self._names_in(None)[int(np.argmin(weight > 0))]
            raise InputError(
                f"column {name!r} has no value to take the mean of: drop it, or use strategy='constant'"
            )
        return np.asarray(mean)

    def _constant(self) -> NDArray[Any]:
        if self.dtype_in_ is None:
            return np.full(self.n_features_in_, self.fill_value, dtype=object)
        try:
            return np.full(self.n_features_in_, self.fill_value, dtype=np.float64)
        except ValueError:
            raise InputError(
                f"fill_value={self.fill_value!r} for numeric columns; expected a number"
            ) from None

    def _refuse_unless_constant_strings(self, fields: list[Field]) -> None:
        for field in fields:
            if not is_string(field.type):
                raise InputError(
                    f"column {field.name!r} is of type {field.type}, beside columns of strings; "
                    "fill strings and numbers with an imputer each"
                )
        if self.strategy != "constant" or not isinstance(self.fill_value, str):
            raise InputError(
                f"columns {[field.name for field in fields]} hold strings: use strategy='constant' with a string"
            )

    def _numbers(self, X: Rows, reset: bool) -> NDArray[Any]:
        result: NDArray[Any] = validate_data(
            self, X, reset=reset, dtype=[np.float64, np.float32], order="C", ensure_all_finite="allow-nan"
        )
        return result

    def _transform_array(self, X: Rows) -> NDArray[Any]:
        check_is_fitted(self)
        return self._filled(self._numbers(X, reset=False))

    def _transform_columns(self, batch: pa.RecordBatch, columns: tuple[str, ...]) -> list[pa.Array]:
        if self.dtype_in_ is None:
            return [self._filled_strings(batch.column(name)) for name in columns]
        return [matrix_column(self._filled(batch_matrix(batch, columns).astype(self.dtype_in_, copy=False)))]

    def _filled(self, X: NDArray[Any]) -> NDArray[Any]:
        return np.where(np.isnan(X), self.statistics_.astype(X.dtype), X)

    def _filled_strings(self, column: pa.Array) -> pa.Array:
        present = pc.fill_null(column.cast(pa.string()), "")
        return pc.if_else(pc.equal(present, ""), pa.scalar(self.fill_value, pa.string()), present)

    def _output_fields(self) -> tuple[Field, ...]:
        if self.dtype_in_ is None:
            return tuple(Field(field.name, pa.string(), Role.FEATURE) for field in self.fields_in_)
        return super()._output_fields()

    def _output_type(self) -> pa.DataType:
        return pa.from_numpy_dtype(self.dtype_in_)


@onnx_form(SimpleImputer)
def _form(imputer: SimpleImputer, graph: Graph, rows: GraphRows) -> Mapping[str, Column]:
    if imputer.dtype_in_ is None:
        return {column.name: _string_form(imputer, graph, column) for column in rows.columns}
    dtype = imputer.dtype_in_
    value = graph.matrix(rows, dtype)
    filled = graph.op(
        "Where", graph.op("IsNaN", value), graph.constant(imputer.statistics_.astype(dtype)), value
    )
    return {MATRIX: Column(MATRIX, filled, element_type(dtype), imputer.n_features_in_)}


def _string_form(imputer: SimpleImputer, graph: Graph, column: Column) -> Column:
    missing = graph.op("Equal", column.value, graph.constant(np.array([""], dtype=object)))
    fill = graph.constant(np.array([imputer.fill_value], dtype=object))
    return Column(column.name, graph.op("Where", missing, fill, column.value), column.element)
