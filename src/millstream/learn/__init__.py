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
from millstream.learn.kmeans import KMeans
from millstream.learn.logistic_regression import LogisticRegression
from millstream.learn.one_hot_encoder import OneHotEncoder
from millstream.learn.simple_imputer import SimpleImputer
from millstream.learn.standard_scaler import StandardScaler

__all__ = [
    "KMeans",
    "LogisticRegression",
    "OneHotEncoder",
    "SimpleImputer",
    "StandardScaler",
    "metrics",
]
