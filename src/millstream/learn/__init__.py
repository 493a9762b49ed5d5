"""What is learned: estimators by their textbook names, in scikit-learn's API, on every engine.

::

    rows (array, Dataset, table) ── border (rows.py) ── Algorithm ── parallel.fit ── fitted attributes
                                                                                      │
                                                       predict, transform  ──────────┤
                                                       to_onnx, outputs    ──────────┘

An estimator is two things: a class with scikit-learn's methods, and an algorithm (`init`, `local`, `update`) that its
``fit`` hands to `millstream.parallel.fit`. Fitted attributes have the same bits on every engine and at every width.
`millstream.learn.metrics` holds the metrics that merge over parts.
"""

from millstream.learn import metrics
from millstream.learn.column_transformer import ColumnTransformer
from millstream.learn.kmeans import KMeans
from millstream.learn.logistic_regression import LogisticRegression
from millstream.learn.one_hot_encoder import OneHotEncoder
from millstream.learn.onnx_form import estimators, onnx_form, outputs, to_onnx
from millstream.learn.pipeline import Pipeline
from millstream.learn.simple_imputer import SimpleImputer
from millstream.learn.standard_scaler import StandardScaler

__all__ = [
    "ColumnTransformer",
    "KMeans",
    "LogisticRegression",
    "OneHotEncoder",
    "Pipeline",
    "SimpleImputer",
    "StandardScaler",
    "estimators",
    "metrics",
    "onnx_form",
    "outputs",
    "to_onnx",
]
