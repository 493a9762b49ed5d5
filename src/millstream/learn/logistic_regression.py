"""Logistic regression: linear scores turned into probabilities of classes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from millstream.data import Dataset, from_numpy
from millstream.errors import InputError
from millstream.learn.classifier import Classifier
from millstream.learn.labels import Labels
from millstream.learn.logistic_loss import scores, sigmoid_pair, softmax
from millstream.learn.newton import Newton
from millstream.learn.onnx_form import classifier_outputs, onnx_form
from millstream.learn.onnx_graph import Column, Graph, GraphRows, element_type
from millstream.learn.parameters import positive, positive_integer
from millstream.learn.rows import Rows, matrices, numeric_dtype, remember_features, training_dataset
from millstream.learn.training import train
from millstream.parallel import Bulk, Engine

__all__ = ["LogisticRegression"]

_MOST_PARAMETERS = 4_000  # a Hessian of 128 MB in float64


class LogisticRegression(Classifier, BaseEstimator):  # type: ignore[misc]
    """Classes from linear scores, with an L2 penalty, fitted by Newton's method.

    Minimises scikit-learn's objective, ``C sum_i w_i loss_i + |coef|^2 / 2`` with free intercepts, in five to ten
    passes over the rows at the speed of a matrix product. Two classes take the logistic form, more the softmax form.

    Parameters:
        C: inverse strength of the penalty, positive; ``inf`` for none.
        fit_intercept: whether scores have an intercept.
        tol: bound on the largest component of the gradient of the mean objective, each divided by the root of its
            curvature: about the largest change of a score that one more step would make.
        max_iter: most Newton steps; stopping there raises a `ConvergenceWarning`.
        engine, sync: see `millstream.parallel.fit`.

    Attributes:
        classes_: ``(n_classes,)`` sorted labels. coef_: ``(1 or n_classes, n_features)`` in the dtype of the rows.
        intercept_: ``(1 or n_classes,)``. n_iter_: ``(1,)`` Newton steps. fit_report_: where the time went.

    When not to use it: with more than 4,000 coefficients and intercepts in all (the Hessian has their square), which
    is refused; on classes that no line separates.

    Source: Hastie, Tibshirani, Friedman, *The Elements of Statistical Learning*, section 4.4.

    Example:
        >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
        >>> model = LogisticRegression().fit(X, ["no", "no", "yes", "yes"])
        >>> model.predict([[0.2], [2.7]]).tolist()
        ['no', 'yes']
        >>> model.coef_.round(3), model.intercept_.round(3)
        (array([[0.958]]), array([-1.437]))
    """

    def __init__(
        self,
        C: float = 1.0,
        *,
        fit_intercept: bool = True,
        tol: float = 1e-8,
        max_iter: int = 100,
        engine: Engine | None = None,
        sync: Bulk | None = None,
    ) -> None:
        self.C = C
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.engine = engine
        self.sync = sync

    def fit(self, X: Rows, y: Any = None, sample_weight: Any = None) -> Self:
        """X: ``(rows, features)`` numbers, with y ``(rows,)``; or a `Dataset` with a target, and y None."""
        C, tol, max_iter = positive(self, "C"), positive(self, "tol"), positive_integer(self, "max_iter")
        dataset = training_dataset(X, y, sample_weight)
        if dataset is None:
            rows, known = self._from_arrays(X, y, sample_weight)
        else:
            rows, known = self._from_dataset(dataset)
        self.dtype_in_ = dtype = numeric_dtype(rows)
        n_features = len(rows.schema.feature_names)
        outputs = 1 if len(self.classes_) == 2 else len(self.classes_)
        if outputs * (n_features + 1) > _MOST_PARAMETERS:
            raise InputError(
                f"{len(self.classes_)} classes by {n_features} features make {outputs * (n_features + 1)} "
                f"coefficients; Newton's method is limited to {_MOST_PARAMETERS}: use fewer features or group classes"
            )
        newton = Newton(known, C, self.fit_intercept, tol, max_iter)
        found = train(self, newton, rows)
        self.coef_: NDArray[Any] = found["coefficients"][:, :-1].astype(dtype)
        self.intercept_: NDArray[Any] = found["coefficients"][:, -1].astype(dtype)
        self.n_iter_ = np.array([max(1, int(found["n_iter"]))], dtype=np.int32)
        if not found["converged"]:
            warnings.warn(
                f"stopped after {int(found['n_iter'])} Newton steps with a gradient of {float(found['gradient']):.2g}, "
                f"above tol={self.tol}: scale the features (StandardScaler), lower C, or raise max_iter",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def decision_function(self, X: Rows) -> NDArray[Any]:
        """Scores in float64: ``(rows,)`` for two classes, positive for ``classes_[1]``; else ``(rows, n_classes)``."""
        score = self._scores(X)
        return score[:, 0] if score.shape[1] == 1 else score

    def predict_proba(self, X: Rows) -> NDArray[Any]:
        """``(rows, n_classes)`` probabilities, columns in the order of ``classes_``."""
        score = self._scores(X)
        return sigmoid_pair(score[:, 0]) if score.shape[1] == 1 else softmax(score)

    def predict(self, X: Rows) -> NDArray[Any]:
        """``(rows,)`` labels; a tie goes to the lower class."""
        score = self._scores(X)
        number = (score[:, 0] > 0).astype(np.intp) if score.shape[1] == 1 else score.argmax(axis=1)
        return np.asarray(self.classes_[number])

    def _scores(self, X: Rows) -> NDArray[Any]:
        check_is_fitted(self)
        coefficients = np.column_stack([self.coef_, self.intercept_]).astype(np.float64)
        exact = (rows.astype(np.float64, copy=False) for rows in matrices(self, X))
        return np.concatenate([scores(rows, coefficients) for rows in exact])

    def _from_arrays(self, X: Rows, y: Any, sample_weight: Any) -> tuple[Dataset, NDArray[Any]]:
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], order="C")
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        self._refuse_one_class()
        weight = None if sample_weight is None else _check_sample_weight(sample_weight, X)
        return from_numpy(X, numbers, weight), np.arange(len(self.classes_))

    def _from_dataset(self, dataset: Dataset) -> tuple[Dataset, NDArray[Any]]:
        self.classes_ = train(self, Labels(), dataset)["classes"]
        self._refuse_one_class()
        remember_features(self, dataset.schema)
        return dataset, self.classes_

    def _refuse_one_class(self) -> None:
        if len(self.classes_) < 2:
            raise InputError(
                f"the target holds one class, {self.classes_.tolist()[0]!r}; expected at least two to tell apart"
            )


@onnx_form(LogisticRegression)
def _form(model: LogisticRegression, graph: Graph, rows: GraphRows) -> Mapping[str, Column]:
    double, int64 = np.dtype("f8"), element_type(np.dtype("i8"))
    product = graph.op("MatMul", graph.matrix(rows, double), graph.constant(model.coef_.T.astype(double)))
    score = graph.op("Add", product, graph.constant(model.intercept_.astype(double)))
    if len(model.classes_) > 2:
        number = graph.op("ArgMax", score, axis=1, keepdims=0)
        return classifier_outputs(graph, model.classes_, number, graph.op("Softmax", score, axis=1))
    # 1 / (1 + exp(-score)) and not Sigmoid, which in ONNX Runtime is 1e-3 off at -30 and 0 at -40.
    ones = graph.constant(np.ones(2))
    inverse = graph.op("Exp", graph.op("Concat", score, graph.op("Neg", score), axis=1))
    probability = graph.op("Div", ones, graph.op("Add", inverse, ones))
    positive = graph.op("Cast", graph.op("Greater", score, graph.constant(np.zeros(1))), to=int64)
    number = graph.op("Reshape", positive, graph.constant(np.array([-1])))
    return classifier_outputs(graph, model.classes_, number, probability)
