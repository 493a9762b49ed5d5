"""What transformers share: what comes in goes out.

===========================  =================================================================
in                           out
===========================  =================================================================
array, lists, data frame     array ``(rows, n_out)``
`Dataset`                    lazy `Dataset`: new features, target, weight and other columns kept
`Table`, `RecordBatch`       the same, with the new features in place of the old
===========================  =================================================================

Numeric features leave by column as one fixed-size list named ``X``, which a model reads without a copy.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from millstream.data import Dataset, Field, Role, Schema
from millstream.errors import InputError, SchemaError
from millstream.learn.rows import Rows, columns_of

__all__ = ["MATRIX", "Transformer", "matrix_column"]

MATRIX = "X"


def matrix_column(values: NDArray[np.floating]) -> pa.FixedSizeListArray:
    """``(rows, n)`` as a column of lists, without a copy where it lies row by row."""
    contiguous = np.ascontiguousarray(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(contiguous.reshape(-1)), contiguous.shape[1])


class Transformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Base of the transformers: they say what arrays and batches become, the rest follows."""

    @abstractmethod
    def _transform_array(self, X: Rows) -> NDArray[Any]:
        """``(rows, n_out)`` for an array or frame of ``(rows, n_features_in_)``."""

    @abstractmethod
    def _transform_columns(self, batch: pa.RecordBatch, columns: tuple[str, ...]) -> list[pa.Array]:
        """One array for each of `_output_fields`, from the named columns of a batch."""

    def _output_fields(self) -> tuple[Field, ...]:
        """The features that leave; by default one float64 matrix with the names of `get_feature_names_out`."""
        names = tuple(str(name) for name in self.get_feature_names_out())
        return (Field(MATRIX, pa.list_(self._output_type(), len(names)), Role.FEATURE, names),)

    def _output_type(self) -> pa.DataType:
        return pa.float64()

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Names of the features that leave, ``(n_out,)`` objects."""
        return self._names_in(input_features)

    def transform(self, X: Rows) -> Any:
        """The rows with new features, in the form that came in."""
        check_is_fitted(self)
        if isinstance(X, Dataset):
            columns = columns_of(self, X.schema)
            return X.map_batches(
                partial(self._batch, columns=columns), self._output_schema(X.schema, columns)
            )
        if isinstance(X, pa.RecordBatch):
            return self._batch(X, columns_of(self, Schema.of(X.schema)))
        if isinstance(X, pa.Table):
            batches = [self._batch(batch, columns_of(self, Schema.of(X.schema))) for batch in X.to_batches()]
            schema = self._output_schema(Schema.of(X.schema), columns_of(self, Schema.of(X.schema)))
            return pa.Table.from_batches(batches, schema=schema.arrow)
        return self._transform_array(X)

    def _batch(self, batch: pa.RecordBatch, columns: tuple[str, ...]) -> pa.RecordBatch:
        kept = [name for name in batch.schema.names if name not in columns]
        fields = self._output_fields()
        arrays = self._transform_columns(batch, columns) + [batch.column(name) for name in kept]
        schema = [pa.field(field.name, field.type) for field in fields] + [
            batch.schema.field(name) for name in kept
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(schema))

    def _output_schema(self, schema: Schema, columns: tuple[str, ...]) -> Schema:
        fields = self._output_fields()
        kept = tuple(field for field in schema.fields if field.name not in columns)
        for field in kept:
            if field.name in {new.name for new in fields}:
                raise SchemaError(
                    f"{type(self).__name__} makes a column {field.name!r}, and the rows have another of that name: "
                    "rename it"
                )
        return Schema(fields + kept)

    def _names_in(self, input_features: Any) -> NDArray[Any]:
        check_is_fitted(self)
        known = getattr(self, "feature_names_in_", None)
        if input_features is None:
            return (
                known
                if known is not None
                else np.array([f"x{i}" for i in range(self.n_features_in_)], dtype=object)
            )
        names = np.asarray(input_features, dtype=object)
        if known is not None and not np.array_equal(names, known):
            raise InputError("input_features is not equal to feature_names_in_")
        if len(names) != self.n_features_in_:
            raise InputError(
                f"input_features should have length equal to number of features ({self.n_features_in_})"
            )
        return names
