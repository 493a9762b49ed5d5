"""The feature plan: what was known when a flight was planned, and the model that reads it.

`features` is built once and run twice: over the history of the topics for the training table, and over the live
topics in the stream deployment. Promise 1 says that both give the same rows.
"""

from __future__ import annotations

from datetime import timedelta

from sklearn.pipeline import Pipeline

import millstream as ms
from millstream.learn import (
    ColumnTransformer,
    LogisticRegression,
    OneHotEncoder,
    SimpleImputer,
    StandardScaler,
)
from millstream.parallel import Engine

from .events import WEATHER

__all__ = ["CATEGORIES", "LATE_AFTER", "NUMBERS", "STREAMED", "delay_model", "features"]

LATE_AFTER = timedelta(minutes=15)
"""A flight that arrives later than this is late: the label."""

CATEGORIES = ("carrier", "origin", "dest", "hour")
HOURS = (1, 3)
STREAMED = tuple(
    f"{scope}_{what}_{hours}h"
    for scope in ("origin", "carrier")
    for hours in HOURS
    for what in ("delay", "departures")
)
"""The trailing aggregates: mean delay and number of departures at the origin, and there by the same carrier."""

NUMBERS = ("distance", *WEATHER, *STREAMED)


def features(plans: ms.Stream, departures: ms.Stream, weather: ms.Stream) -> ms.Stream:
    """For each planned flight what was known then: trailing delays and the latest weather at its origin."""
    rows = plans
    for scope, keys in (("origin", "origin"), ("carrier", ("origin", "carrier"))):
        for hours in HOURS:
            aggregates = {
                f"{scope}_delay_{hours}h": ms.mean("dep_delay"),
                f"{scope}_departures_{hours}h": ms.count(),
            }
            rows = rows.lookback(departures, on=keys, over=timedelta(hours=hours), **aggregates)
    return rows.latest(weather, on="origin", columns=WEATHER)


def delay_model(numbers: tuple[str, ...] = NUMBERS, engine: Engine | None = None) -> Pipeline:
    """Logistic regression over one-hot categories and standardised numbers; nulls become the mean."""
    scaled = Pipeline([("impute", SimpleImputer(engine=engine)), ("scale", StandardScaler(engine=engine))])
    columns = ColumnTransformer(
        [
            ("category", OneHotEncoder(handle_unknown="ignore", engine=engine), list(CATEGORIES)),
            ("number", scaled, list(numbers)),
        ]
    )
    return Pipeline([("columns", columns), ("model", LogisticRegression(engine=engine))])
