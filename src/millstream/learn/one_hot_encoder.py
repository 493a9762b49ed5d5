"""Categories as indicator features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from sklearn.utils import Tags
from sklearn.utils.validation import validate_data

from millstream.data import from_arrow
from millstream.errors import InputError
from millstream.learn.distinct import Distinct, category_column
from millstream.learn.onnx_form import onnx_form
from millstream.learn.onnx_graph import ML, Column, Graph, GraphRows, element_type
from millstream.learn.rows import Rows, frame_as_table, remember_features, training_dataset
from millstream.learn.training import train
from millstream.learn.transformer import MATRIX, Transformer, matrix_column
from millstream.parallel import Bulk, Engine

__all__ = ["OneHotEncoder"]


class OneHotEncoder(Transformer):
    """Each column of strings or numbers becomes one feature, 0.0 or 1.0, for each value seen at ``fit``.

    The result is dense float64. A null string is the category ``""``. The ONNX form of ``handle_unknown="error"`` fails
    on an unknown string or integer, as `transform` does; among floats it makes zeros of one.

    Parameters:
        handle_unknown: a value not seen at ``fit`` is refused (``"error"``) or becomes zeros (``"ignore"``).
        engine, sync: see `millstream.parallel.fit`.

    Attributes:
        categories_: a list with the sorted values of each column. fit_report_: where the time went.

    When not to use it: columns with thousands of values, whose indicators fill memory with zeros.

    Source: Hastie, Tibshirani, Friedman, *The Elements of Statistical Learning*, section 2.2 (dummy variables).

    Example:
        >>> encoder = OneHotEncoder(handle_unknown="ignore").fit([["JFK"], ["LGA"]])
        >>> encoder.transform([["LGA"], ["EWR"]]), encoder.get_feature_names_out(["origin"]).tolist()
        (array([[0., 1.],
               [0., 0.]]), ['origin_JFK', 'origin_LGA'])
    """

    def __init__(
        self, *, handle_unknown: str = "error", engine: Engine | None = None, sync: Bulk | None = None
    ) -> None:
        self.handle_unknown = handle_unknown
        self.engine = engine
        self.sync = sync

    def fit(self, X: Rows, y: Any = None) -> Self:
        """X: ``(rows, features)`` strings or numbers, or a `Dataset` of such columns; a target is not looked at."""
        if self.handle_unknown not in ("error", "ignore"):
            raise InputError(
                f"OneHotEncoder(handle_unknown={self.handle_unknown!r}): expected 'error' or 'ignore'"
            )
        rows = training_dataset(X, None)
        if rows is None:
            rows = from_arrow(self._table(X, reset=True))
        else:
            remember_features(self, rows.schema)
        for name in rows.schema.features:  # a type that can't be a category is refused before the first read
            category_column(name, pa.array([], rows.schema[name].type))
        found = train(self, Distinct(rows.schema.features), rows)
        self.categories_: list[NDArray[Any]] = [found[name] for name in rows.schema.features]
        kinds = {values.dtype for values in self.categories_}
        self.dtype_in_ = kinds.pop() if len(kinds) == 1 else np.dtype(object)
        return self

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """``column_value`` for each feature that leaves."""
        columns = zip(self._names_in(input_features), self.categories_, strict=True)
        return np.array([f"{name}_{value}" for name, values in columns for value in values], dtype=object)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        return tags

    def _table(self, X: Rows, reset: bool) -> pa.Table:
        frame = frame_as_table(X)
        array = validate_data(self, X, reset=reset, dtype=None, ensure_all_finite=False)
        if frame is not None:
            return frame
        names = [f"x{i}" for i in range(array.shape[1])]
        return pa.table([_arrow(name, array[:, i]) for i, name in enumerate(names)], names=names)

    def _transform_array(self, X: Rows) -> NDArray[Any]:
        table = self._table(X, reset=False)
        return self._encoded(table.column_names, [column.combine_chunks() for column in table.columns])

    def _transform_columns(self, batch: pa.RecordBatch, columns: tuple[str, ...]) -> list[pa.Array]:
        return [matrix_column(self._encoded(columns, [batch.column(name) for name in columns]))]

    def _encoded(self, names: Any, columns: list[pa.Array]) -> NDArray[np.float64]:
        rows = len(columns[0])
        out = np.zeros((rows, sum(len(values) for values in self.categories_)))
        first = 0
        for name, column, values in zip(names, columns, self.categories_, strict=True):
            number = self._numbers(name, column, values)
            known = np.flatnonzero(number >= 0)
            out[known, first + number[known]] = 1.0
            first += len(values)
        return out

    def _numbers(self, name: str, column: pa.Array, values: NDArray[Any]) -> NDArray[np.int32]:
        """``(rows,)`` places among the categories, -1 for an unknown value."""
        given = category_column(name, column)
        known = pa.array(values, pa.string() if values.dtype.kind == "O" else None)
        if given.type != known.type:
            if pa.string() in (given.type, known.type):
                raise InputError(
                    f"column {name!r} came as {given.type}; it was fitted on {known.type}: cast it"
                )
            given, known = given.cast(pa.float64()), known.cast(pa.float64())
        number = pc.fill_null(pc.index_in(given, known), -1).to_numpy(zero_copy_only=False)
        if self.handle_unknown == "error" and (number < 0).any():
            unknown = given[int(np.argmin(number))].as_py()
            raise InputError(
                f"column {name!r} holds {unknown!r}, found unknown categories: it is none of the {len(values)} seen "
                "at fit; handle_unknown='ignore' makes zeros of it"
            )
        return np.asarray(number)


def _arrow(name: str, column: NDArray[Any]) -> pa.Array:
    try:
        return pa.array(column)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(
            f"column {name!r} mixes types ({error}); categories are strings or numbers"
        ) from None


@onnx_form(OneHotEncoder)
def _form(encoder: OneHotEncoder, graph: Graph, rows: GraphRows) -> Mapping[str, Column]:
    double = element_type(np.dtype("f8"))
    zeros = int(encoder.handle_unknown == "ignore")
    made = []
    for column, values in zip(graph.split(rows), encoder.categories_, strict=True):
        encoded = _encoded(graph, column, values, zeros)
        made.append(Column(column.name, graph.op("Cast", encoded, to=double), double, len(values)))
    value = graph.matrix(GraphRows(tuple(made)), np.dtype("f8"))
    return {MATRIX: Column(MATRIX, value, double, sum(len(values) for values in encoder.categories_))}


def _encoded(graph: Graph, column: Column, values: NDArray[Any], zeros: int) -> str:
    """``[N, categories]``: the encoder of ``ai.onnx.ml`` (float) for strings and integers, Equal (bool) for floats."""
    double = element_type(np.dtype("f8"))
    if values.dtype.kind == "O":
        return graph.op("OneHotEncoder", column.value, domain=ML, zeros=zeros, cats_strings=values.tolist())
    if values.dtype.kind == "i" and column.element == element_type(values.dtype):
        return graph.op("OneHotEncoder", column.value, domain=ML, zeros=zeros, cats_int64s=values.tolist())
    value = graph.op("Unsqueeze", graph.cast(column.value, column.element, double), graph.constant([1]))
    return graph.op("Equal", value, graph.constant(values.astype(np.float64)[None, :]))
