"""``millstream train``: fit a model on a Parquet file, in parallel, and register it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import complaints, output, table
from .models import RegistryPath

if TYPE_CHECKING:
    import pyarrow as pa
    from sklearn.pipeline import Pipeline

    from millstream.data import Dataset
    from millstream.parallel import Engine

__all__ = ["ModelName", "model_over", "train"]


class ModelName(StrEnum):
    """What `train` can fit."""

    LOGISTIC_REGRESSION = "logistic-regression"
    KMEANS = "kmeans"


def train(
    data: Annotated[str, typer.Argument(help="Parquet file, folder or pattern.")],
    model: Annotated[ModelName, typer.Option(help="What to fit.")] = ModelName.LOGISTIC_REGRESSION,
    target: Annotated[str | None, typer.Option(help="Column to predict; a clustering has none.")] = None,
    features: Annotated[
        str | None, typer.Option(help="Columns to predict from, separated by commas; all others by default.")
    ] = None,
    clusters: Annotated[int, typer.Option(help="Number of clusters of kmeans.", min=1)] = 8,
    workers: Annotated[int, typer.Option(help="Threads that train.", min=1)] = 2,
    seed: Annotated[int, typer.Option(help="Seed of everything drawn at random.")] = 0,
    name: Annotated[str | None, typer.Option(help="Register the fitted model under this name.")] = None,
    registry: RegistryPath = Path("models"),
) -> None:
    """Fit a model and, with --name, register it.

    Text columns become one-hot, numbers are standardised and their nulls replaced by the mean; these transforms are
    part of the model.

    Example: millstream train rides.parquet --target late --workers 8 --name rides
    """
    import millstream as ms

    if model is ModelName.LOGISTIC_REGRESSION and target is None:
        raise typer.BadParameter("logistic-regression needs a column to predict: --target COLUMN")
    columns = [name.strip() for name in features.split(",")] if features else None
    rows = ms.read_parquet(data, features=columns, target=target)
    if columns is None:
        rows = without_times(rows)
    engine = ms.Threads(workers)
    with complaints.status(f"training {model} on {rows.n_rows:,} rows, {workers} workers"):
        estimator = model_over(rows, final_step(model, clusters, seed, engine), engine).fit(rows)
    report = estimator[-1].fit_report_
    quality = {} if target is None else quality_of(estimator, rows)
    table(
        f"{model}, {rows.n_rows:,} rows in {len(rows.parts)} parts",
        ("workers", "steps", "seconds", "waiting", *(f"{name}, training rows" for name in quality)),
        [
            (
                workers,
                len(report.steps),
                f"{report.seconds:.2f}",
                f"{report.share_of_waiting:.0%}",
                *(f"{value:.4f}" for value in quality.values()),
            )
        ],
    )
    if name:
        version = ms.Registry(registry).register(
            name, estimator, data=rows, metrics=quality, lineage={"data": data, "seed": seed}
        )
        output.print(f"registered {version.name} version {version.number}, digest {version.digest[:12]}")


def without_times(rows: Dataset) -> Dataset:
    """The rows without the columns that are neither numbers nor text (times, lists): no model reads these."""
    import pyarrow as pa

    fields = [rows.schema[name] for name in rows.schema.features]
    unused = [f for f in fields if not (f.is_number or is_text(f.type) or pa.types.is_boolean(f.type))]
    if not unused:
        return rows
    complaints.print("not used: " + ", ".join(f"{field.name} ({field.type})" for field in unused))
    skipped = {field.name for field in unused}
    return rows.select([name for name in rows.schema.names if name not in skipped])


def quality_of(estimator: Any, rows: Dataset) -> dict[str, float]:
    """Accuracy, and for two classes the area under the ROC curve, on the rows themselves."""
    import numpy as np

    from millstream.learn.metrics import Accuracy, RocAuc

    target = rows.schema.target
    y = np.asarray(rows.select([target]).to_table()[target].to_numpy()) if target else np.empty(0)
    probability = estimator.predict_proba(rows)
    classes = estimator[-1].classes_
    quality = {"accuracy": Accuracy().update(y, classes[probability.argmax(axis=1)]).result}
    if len(classes) == 2:
        quality["auc"] = RocAuc().update((y == classes[1]).astype(np.int64), probability[:, 1]).result
    return quality


def final_step(model: ModelName, clusters: int, seed: int, engine: Engine) -> Any:
    """The estimator of that name."""
    from millstream.learn import KMeans, LogisticRegression

    if model is ModelName.KMEANS:
        return KMeans(n_clusters=clusters, random_state=seed, engine=engine)
    return LogisticRegression(engine=engine)


def model_over(rows: Dataset, last: Any, engine: Engine) -> Pipeline:
    """A pipeline that brings the feature columns of `rows` to numbers and ends in `last`."""
    from sklearn.pipeline import Pipeline

    from millstream.learn import ColumnTransformer, OneHotEncoder, SimpleImputer, StandardScaler

    fields = [rows.schema[name] for name in rows.schema.features]
    text = [field.name for field in fields if is_text(field.type)]
    numbers = [field.name for field in fields if not is_text(field.type)]
    steps: list[tuple[str, Any, list[str]]] = []
    if text:
        steps.append(("text", OneHotEncoder(handle_unknown="ignore", engine=engine), text))
    if numbers:
        scaled = Pipeline(
            [("impute", SimpleImputer(engine=engine)), ("scale", StandardScaler(engine=engine))]
        )
        steps.append(("numbers", scaled, numbers))
    return Pipeline([("columns", ColumnTransformer(steps)), ("model", last)])


def is_text(dtype: pa.DataType) -> bool:
    """Whether a column of this type is one-hot encoded."""
    import pyarrow as pa

    text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_dictionary)
    return any(is_kind(dtype) for is_kind in text)
