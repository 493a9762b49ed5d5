"""From a fitted estimator and its data to a bundle.

One pass over the data gives both the training distribution and the golden rows: rows evenly spaced from the
first to the last, and for every column with gaps (null or NaN) the first row that has one, so that each
target also answers for missing values. The golden outputs are those of the estimator's own methods, never of
the exported graph.

A column of integers or Booleans that has nulls in the data is double in the signature, where a null is NaN, as it
is in the blocks the estimator was trained on; without nulls it is int64.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millstream import learn
from millstream.data import Dataset, from_arrow, from_numpy
from millstream.errors import InputError
from millstream.models.bundle import Bundle, Golden
from millstream.models.feeds import plain_text
from millstream.models.outputs import to_batch
from millstream.models.reference import training_distribution
from millstream.models.signature import Signature

__all__ = ["write_bundle"]

_SOFTWARE = ("millstream", "numpy", "onnx", "onnxruntime", "pyarrow", "scikit-learn")


def write_bundle(
    root: Path,
    estimator: Any,
    data: Any,
    *,
    metrics: Mapping[str, float],
    lineage: Mapping[str, Any],
    golden_rows: int,
) -> Bundle:
    """Export `estimator` and write its bundle under `root`.

    `data`: a Dataset (its features count), a table (the columns the estimator was fitted on), or an array of
    shape (rows, features).
    """
    dataset = _features(estimator, data)
    if golden_rows < 1 or not dataset.n_rows:
        raise InputError(
            f"{golden_rows} golden rows of {dataset.n_rows} rows of data; both must be at least 1"
        )
    chosen = _GoldenRows(dataset.n_rows, golden_rows)
    reference = training_distribution(chosen.watch(dataset.batches()))
    golden_inputs = chosen.batch()
    golden = Golden(golden_inputs, to_batch(learn.outputs(estimator, _as_fitted(golden_inputs))))
    model = learn.to_onnx(
        estimator,
        None if _is_matrix(dataset.schema.arrow) else _declared(dataset.schema.arrow, reference),
        n_features=dataset.n_features if _is_matrix(dataset.schema.arrow) else None,
    )
    return Bundle.write(
        root,
        model=model.SerializeToString(deterministic=True),
        signature=Signature.of(model, golden.outputs, getattr(estimator, "classes_", None)),
        golden=golden,
        reference=reference,
        lineage={
            **lineage,
            "estimator": _describe(estimator),
            "data": {"rows": dataset.n_rows, "columns": {f.name: str(f.type) for f in dataset.schema.arrow}},
            "metrics": dict(metrics),
            "software": {"python": platform.python_version(), **{name: version(name) for name in _SOFTWARE}},
        },
    )


class _GoldenRows:
    """Picks the golden rows out of batches that flow by."""

    def __init__(self, n_rows: int, wanted: int) -> None:
        self._wanted = np.unique(np.linspace(0, n_rows - 1, min(wanted, n_rows)).astype(np.int64))
        self._first_row = 0
        self._gaps_seen: set[str] = set()
        self._picked: list[pa.RecordBatch] = []

    def watch(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            self._pick(batch)
            yield batch

    def _pick(self, batch: pa.RecordBatch) -> None:
        low, high = np.searchsorted(self._wanted, [self._first_row, self._first_row + batch.num_rows])
        rows = set((self._wanted[low:high] - self._first_row).tolist())
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if name not in self._gaps_seen and (gap := _first_gap(column)) is not None:
                self._gaps_seen.add(name)
                rows.add(gap)
        if rows:
            self._picked.append(_with_plain_text(batch).take(pa.array(sorted(rows))))
        self._first_row += batch.num_rows

    def batch(self) -> pa.RecordBatch:
        table = pa.Table.from_batches(self._picked).combine_chunks()
        return table.to_batches()[0]


def _with_plain_text(batch: pa.RecordBatch) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [plain_text(column) for column in batch.columns], names=batch.schema.names
    )


def _first_gap(column: pa.Array) -> int | None:
    """The first row with a null or a NaN in a column or a matrix."""
    is_matrix = pa.types.is_fixed_size_list(column.type)
    width = column.type.list_size if is_matrix else 1
    values = column.flatten() if is_matrix else column
    missing = values.is_null(nan_is_null=pa.types.is_floating(values.type))
    first = pc.index(missing, True).as_py()
    return None if first < 0 else int(first) // width


def _features(estimator: Any, data: Any) -> Dataset:
    """The data as a Dataset of the feature columns alone."""
    if isinstance(data, np.ndarray):
        data = from_numpy(data)
    elif hasattr(data, "__arrow_c_stream__"):  # a table, a batch, a data frame
        fitted = getattr(estimator, "feature_names_in_", None)
        data = from_arrow(data, features=None if fitted is None else [str(name) for name in fitted])
    if not isinstance(data, Dataset):
        raise InputError(
            f"data is a {type(data).__name__}; expected a Dataset, an Arrow table, a data frame or a NumPy array"
        )
    return data.select(data.schema.features)


def _declared(schema: pa.Schema, reference: Mapping[str, Any]) -> pa.Schema:
    """The columns as the model declares them: integers and Booleans that have nulls in the data are double."""
    for i, field in enumerate(schema):
        whole = pa.types.is_integer(field.type) or pa.types.is_boolean(field.type)
        if whole and reference.get(field.name, {}).get("nulls"):
            schema = schema.set(i, pa.field(field.name, pa.float64()))
    return schema


def _is_matrix(schema: pa.Schema) -> bool:
    return len(schema) == 1 and pa.types.is_fixed_size_list(schema.field(0).type)


def _as_fitted(batch: pa.RecordBatch) -> Any:
    """Golden rows in the form the estimator was fitted on: an array or a table."""
    if not _is_matrix(batch.schema):
        return pa.Table.from_batches([batch])
    width = batch.schema.field(0).type.list_size
    return batch.column(0).flatten().to_numpy(zero_copy_only=False).reshape(-1, width)


def _describe(estimator: Any) -> dict[str, Any]:
    kind = type(estimator)
    parameters = {name: repr(value) for name, value in estimator.get_params(deep=True).items()}
    return {"class": f"{kind.__module__}.{kind.__qualname__}", "parameters": parameters}
