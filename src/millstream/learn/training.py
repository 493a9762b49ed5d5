"""From an estimator's parameters to a run of `fit`: engine, seed, and what is left behind."""

from __future__ import annotations

from typing import Any

from sklearn.utils import check_random_state

from millstream.data import Dataset
from millstream.parallel import Algorithm, fit

__all__ = ["seed_of", "train"]


def seed_of(random_state: Any) -> int:
    """An integer as it is; from None or a RandomState one drawn there, as scikit-learn's estimators do."""
    if isinstance(random_state, int):
        return random_state
    return int(check_random_state(random_state).randint(2**31 - 1))


def train(estimator: Any, algorithm: Algorithm, dataset: Dataset, seed: int = 0) -> Any:
    """Run the algorithm on the estimator's engine; leaves ``fit_report_`` behind and returns the parameters."""
    result = fit(algorithm, dataset, engine=estimator.engine, sync=estimator.sync, seed=seed)
    estimator.fit_report_ = result.report
    return result.params
