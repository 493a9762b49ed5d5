"""A fitted estimator as an ONNX model that gives the same answers without Millstream.

Each estimator registers how it is written next to itself, with ``@onnx_form(KMeans)``; pipelines and column
transformers are composed of the forms of their steps, so feature transforms lie inside the graph.

Inputs: one ``[N]`` for each column of the signature (double, float, int64 or string; a null number is NaN, a null
string is ``""``), a fixed-size list as ``[N, width]``; without a signature one ``X`` ``[N, n_features]``.

Outputs::

    classifier    label [N]    probability [N, n_classes]  double
    clusterer     label [N]    int64
    transformer   features [N, n_out]

Operators used: Add, ArgMax, ArgMin, Cast, Concat (axis 1), Div, Equal (strings, doubles), Exp, Gather (of classes, axis
0; of one column of an array, axis 1), Greater, Identity, IsNaN, MatMul, Neg, Reshape (to ``[N]``), Softmax, Sub,
Unsqueeze (axis 1), Where; of ``ai.onnx.ml`` OneHotEncoder on ``[N]`` (``zeros=0``: an unknown category is an error).
Opset 19, ``ai.onnx.ml`` 3. ONNX Runtime on a CPU has every one of them for double.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import onnx
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.base import is_classifier, is_clusterer
from sklearn.utils.validation import check_is_fitted

from millstream.data import Dataset
from millstream.errors import InputError
from millstream.learn.onnx_graph import Column, Graph, GraphRows, element_type, input_column, labels
from millstream.learn.rows import Rows

__all__ = [
    "add_form",
    "classifier_outputs",
    "estimators",
    "features_output",
    "onnx_form",
    "outputs",
    "to_onnx",
]

Form = Callable[[Any, Graph, GraphRows], Mapping[str, Column]]
F = TypeVar("F", bound=Form)

_FORMS: dict[type, Form] = {}


def onnx_form(estimator: type) -> Callable[[F], F]:
    """Registers ``form(estimator, graph, rows) -> {output name: column}`` for the class.

    A transformer returns the columns that flow on: one named ``X``, or its string columns by name.
    """

    def register(form: F) -> F:
        _FORMS[estimator] = form
        return form

    return register


def estimators() -> tuple[type, ...]:
    """Every estimator class of Millstream that has a form, by name: what the laws are tested on."""
    ours = [known for known in _FORMS if known.__module__.startswith("millstream.")]
    return tuple(sorted(ours, key=lambda known: known.__name__))


def to_onnx(
    estimator: Any, signature: pa.Schema | None = None, n_features: int | None = None
) -> onnx.ModelProto:
    """The fitted estimator, pipeline or column transformer as a checked ONNX model.

    signature: the feature columns by name and Arrow type; None for one fitted on an array. n_features: width of ``X``
    then (default: what it was fitted on).

    Example:
        >>> from millstream.learn import KMeans
        >>> model = to_onnx(KMeans(n_clusters=2, random_state=0).fit([[0.0], [1.0], [8.0]]))
        >>> [value.name for value in model.graph.input], [value.name for value in model.graph.output]
        (['X'], ['label'])
    """
    check_is_fitted(estimator)
    graph = Graph()
    if signature is None:
        width = n_features or _first_step(estimator).n_features_in_
        columns = [Column("X", "X", element_type(_first_step(estimator).dtype_in_), width)]
    else:
        columns = [input_column(field) for field in signature]
    rows = GraphRows(tuple(graph.input(column) for column in columns))
    found = add_form(estimator, graph, rows)
    if not (is_classifier(estimator) or is_clusterer(estimator)):
        found = {"features": features_output(graph, found)}
    return graph.finish(found)


def add_form(estimator: Any, graph: Graph, rows: GraphRows) -> Mapping[str, Column]:
    """Writes the estimator's form into the graph; returns its outputs."""
    form = _FORMS.get(type(estimator))
    if form is None:
        raise InputError(
            f"{type(estimator).__name__} has no ONNX form; those with one are "
            f"{sorted(known.__name__ for known in _FORMS)}, and @onnx_form registers another"
        )
    return form(estimator, graph, rows if hasattr(estimator, "steps") else rows.of(estimator))


def outputs(estimator: Any, X: Rows) -> dict[str, NDArray[Any]]:
    """What the estimator itself answers for X, under the names and dtypes of its ONNX form's outputs."""
    if is_classifier(estimator):
        return {"label": labels(estimator.predict(X)), "probability": estimator.predict_proba(X)}
    if is_clusterer(estimator):
        return {"label": labels(estimator.predict(X))}
    return {"features": _matrix(estimator.transform(X))}


def classifier_outputs(
    graph: Graph, classes: NDArray[Any], number: str, probability: str
) -> dict[str, Column]:
    """Outputs of a classifier from class numbers ``[N]`` int64 and probabilities ``[N, classes]`` double."""
    known = labels(classes)
    label = graph.op("Gather", graph.constant(known), number, axis=0)
    double = element_type(np.dtype("f8"))
    return {
        "label": Column("label", label, element_type(known.dtype)),
        "probability": Column("probability", probability, double, len(known)),
    }


def features_output(graph: Graph, columns: Mapping[str, Column]) -> Column:
    """What a transformer lets flow on, as one matrix."""
    found = tuple(columns.values())
    if len(found) == 1 and found[0].width is not None:
        return found[0]
    value = graph.matrix(GraphRows(found), np.dtype("f8"))
    return Column("features", value, found[0].element, sum(column.width or 1 for column in found))


def _first_step(estimator: Any) -> Any:
    return _first_step(estimator.steps[0][1]) if hasattr(estimator, "steps") else estimator


def _matrix(transformed: Any) -> NDArray[Any]:
    """The features of a transformed dataset, table or array as ``(rows, n_out)``."""
    if isinstance(transformed, np.ndarray):
        return transformed
    if isinstance(transformed, Dataset):
        features, transformed = transformed.schema.features, transformed.to_table()
    else:
        features = transformed.schema.names
    columns = []
    for name in features:
        column = pa.table({name: transformed[name]}).combine_chunks()[name]
        if pa.types.is_fixed_size_list(column.type):
            width = column.type.list_size
            values = np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks] or [np.empty(0)])
            columns.append(values.reshape(-1, width))
        else:
            columns.append(column.to_numpy()[:, None])
    return np.concatenate(columns, axis=1)
