"""What classifiers share: how right they are on rows that carry their own target."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from sklearn.base import ClassifierMixin

from millstream.data import Dataset, Part
from millstream.errors import InputError
from millstream.learn.metrics import Accuracy
from millstream.learn.rows import Rows, training_dataset

__all__ = ["Classifier"]


class Classifier(ClassifierMixin):  # type: ignore[misc]
    """Base of the classifiers: scikit-learn's, whose `score` takes a Dataset too."""

    def score(self, X: Rows, y: Any = None, sample_weight: Any = None) -> float:
        """Accuracy: the share of rows, by weight, whose label is predicted.

        X: rows with y ``(rows,)`` beside them; or a `Dataset` with a target, and y None, read part by part.
        Raises `InputError` where there is no target, or nulls in it.
        """
        if not isinstance(X, Dataset):
            if y is None:
                raise InputError(
                    f"y is None beside X, a {type(X).__name__}; pass the labels, or a Dataset with a target"
                )
            return float(super().score(X, y, sample_weight))
        dataset = training_dataset(X, y, sample_weight)
        target = None if dataset is None else dataset.schema.target
        if target is None:
            raise InputError(
                f"no column of {list(X.schema.names)} is the target; name it: dataset.with_roles(target='late')"
            )
        accuracy = Accuracy()
        for part in X.parts:
            if part.n_rows:
                predicted = self.predict(Dataset(X.schema, [part]))
                accuracy.update(_labels(part, target), predicted, _weights(part, X.schema.weight))
        return accuracy.result


def _labels(part: Part, target: str) -> Any:
    column = part.to_table([target])[target]
    if column.null_count:
        raise InputError(f"target {target!r} has {column.null_count} nulls; drop those rows, or fill them")
    return column.to_numpy()


def _weights(part: Part, weight: str | None) -> Any:
    return None if weight is None else part.to_table([weight])[weight].cast(pa.float64()).to_numpy()
