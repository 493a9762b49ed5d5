"""Different transformers for different columns, their features side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.base import clone

from millstream.data import Dataset, Role
from millstream.errors import InputError
from millstream.learn.onnx_form import add_form, features_output, onnx_form
from millstream.learn.onnx_graph import Column, Graph, GraphRows, element_type
from millstream.learn.rows import Rows, as_dataset, batch_matrix, frame_as_table, remember_features
from millstream.learn.transformer import MATRIX, Transformer, matrix_column

__all__ = ["ColumnTransformer"]


class ColumnTransformer(Transformer):
    """Fits each transformer on its columns; the features they make stand side by side, in float64.

    Columns are taken by name from a `Dataset`, an Arrow table or a data frame; columns that no transformer names are
    dropped from the features (from a `Dataset` they travel on).

    Parameters:
        transformers: ``(name, transformer, columns)`` each; the transformer is one of ours, a `Pipeline` of ours, or
            ``"passthrough"`` for numbers as they are.

    Attributes:
        transformers_: the same with fitted transformers.

    Example:
        >>> from millstream.learn import OneHotEncoder, StandardScaler
        >>> rides = pa.table({"origin": ["JFK", "LGA"], "fare": [7.0, 9.0]})
        >>> place, scaled = ("place", OneHotEncoder(), ["origin"]), ("scaled", StandardScaler(), ["fare"])
        >>> features = ColumnTransformer([place, scaled])
        >>> features.fit_transform(rides)["X"].to_pylist()
        [[1.0, 0.0, -1.0], [0.0, 1.0, 1.0]]
        >>> features.get_feature_names_out().tolist()
        ['place__origin_JFK', 'place__origin_LGA', 'scaled__fare']
    """

    def __init__(self, transformers: Sequence[tuple[str, Any, Sequence[str]]]) -> None:
        self.transformers = transformers

    def fit(self, X: Rows, y: Any = None) -> Self:
        """X: a `Dataset`, Arrow table or data frame; a target is not looked at."""
        dataset = _dataset_of(X)
        used = self._columns_used(dataset)
        carried = [
            field.name
            for field in dataset.schema.fields
            if field.role is Role.WEIGHT and field.name not in used
        ]
        fitted = []
        for name, transformer, columns in self.transformers:
            names = tuple(columns)
            if transformer != "passthrough":
                own = dataset.select([*names, *carried]).with_roles(features=names)
                transformer = clone(transformer).fit(own)
            fitted.append((name, transformer, names))
        remember_features(self, dataset.select(used).with_roles(features=used).schema)
        self.transformers_: list[tuple[str, Any, tuple[str, ...]]] = fitted
        return self

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """``transformer__feature`` for each feature that leaves."""
        named: list[str] = []
        for name, transformer, columns in self.transformers_:
            made = (
                self._names_of(columns)
                if transformer == "passthrough"
                else transformer.get_feature_names_out()
            )
            named += [f"{name}__{feature}" for feature in made]
        return np.array(named, dtype=object)

    def _names_of(self, columns: Sequence[str]) -> list[str]:
        known = {field.name: field.feature_names for field in self.fields_in_}
        return [feature for column in columns for feature in known[column]]

    def _columns_used(self, dataset: Dataset) -> list[str]:
        if not self.transformers:
            raise InputError(
                "ColumnTransformer(transformers=[]): expected at least one (name, transformer, columns)"
            )
        used: list[str] = []
        for name, _, columns in self.transformers:
            if isinstance(columns, str) or not all(isinstance(column, str) for column in columns):
                raise InputError(
                    f"columns of transformer {name!r} are {columns!r}; expected a list of column names"
                )
            dataset.schema.require(list(columns))
            used += [column for column in columns if column not in used]
        return used

    def _transform_array(self, X: Rows) -> NDArray[Any]:
        made = self.transform(_dataset_of(X))
        return np.concatenate([np.empty((0, len(self.get_feature_names_out()))), *_blocks(made)])

    def _transform_columns(self, batch: pa.RecordBatch, columns: tuple[str, ...]) -> list[pa.Array]:
        pieces = []
        for _, transformer, names in self.transformers_:
            own = batch.select(list(names))
            made = own if transformer == "passthrough" else transformer.transform(own)
            pieces.append(batch_matrix(made, made.schema.names))
        return [matrix_column(np.concatenate(pieces, axis=1, dtype=np.float64))]


def _dataset_of(X: Rows) -> Dataset:
    frame = frame_as_table(X)
    dataset = as_dataset(X if frame is None else frame)
    if dataset is None:
        raise InputError(
            f"ColumnTransformer takes columns by name, and {type(X).__name__} has none: "
            "pass a Dataset, a pyarrow.Table or a data frame"
        )
    return dataset


def _blocks(dataset: Dataset) -> Iterator[NDArray[Any]]:
    matrix = dataset.select([MATRIX])
    return (block.X for part in matrix.parts for block in part.blocks())


@onnx_form(ColumnTransformer)
def _form(estimator: ColumnTransformer, graph: Graph, rows: GraphRows) -> Mapping[str, Column]:
    double = np.dtype("f8")
    made = []
    for _, transformer, names in estimator.transformers_:
        own = rows.select(names)
        if transformer != "passthrough":
            own = GraphRows((features_output(graph, add_form(transformer, graph, own)),))
        made += list(own.columns)
    value = graph.matrix(GraphRows(tuple(made)), double)
    width = len(estimator.get_feature_names_out())
    return {MATRIX: Column(MATRIX, value, element_type(double), width)}
