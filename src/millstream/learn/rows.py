"""The border of the estimators: whatever rows a caller has, parsed once into what the algorithms read.

Arrays and data frames take scikit-learn's own checks and raise its own errors. A `Dataset`, a `pyarrow.Table` or a
`RecordBatch` is taken by column: at ``fit`` its features are remembered as fields (`fields_in_`), and at ``predict`` or
``transform`` the same columns are looked for by name, so further columns and another order do no harm, while a missing
column or one of another kind is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted, validate_data

from millstream.data import Block, Dataset, Field, Schema, as_table, from_arrow
from millstream.errors import InputError, SchemaError, SignatureError

__all__ = [
    "Rows",
    "as_dataset",
    "batch_matrix",
    "columns_of",
    "frame_as_table",
    "is_string",
    "matrices",
    "numeric_dtype",
    "refuse_not_finite",
    "remember_features",
    "training_dataset",
]

Rows = Any  # ndarray | Dataset | pyarrow.Table | pyarrow.RecordBatch | data frame | nested lists
Array = NDArray[np.floating]


def as_dataset(X: Rows) -> Dataset | None:
    """X itself, or an Arrow table or batch as a dataset; None for arrays and frames."""
    if isinstance(X, Dataset):
        return X
    if isinstance(X, pa.Table | pa.RecordBatch):
        return from_arrow(X)
    return None


def frame_as_table(X: Rows) -> pa.Table | None:
    """A data frame (pandas, polars) as an Arrow table of its columns, without an index; None for anything else."""
    if (
        isinstance(X, pa.Table | pa.RecordBatch)
        or not hasattr(X, "__arrow_c_stream__")
        or not hasattr(X, "columns")
    ):
        return None
    return as_table(X)


def training_dataset(X: Rows, y: Any, sample_weight: Any = None) -> Dataset | None:
    """The rows of ``fit`` if they come by column, with the target and weight given beside a table put into it."""
    dataset = as_dataset(X)
    if dataset is None or (y is None and sample_weight is None):
        return dataset
    if isinstance(X, Dataset):
        raise InputError(
            "y and sample_weight came beside a Dataset, which carries its own; "
            "name them there: dataset.with_roles(target=..., weight=...)"
        )
    table = pa.table(X) if isinstance(X, pa.Table) else pa.Table.from_batches([X])
    for name, values in (("y", y), ("sample_weight", sample_weight)):
        if values is not None:
            table = table.append_column(name, pa.array(values))
    return from_arrow(
        table, target=None if y is None else "y", weight=None if sample_weight is None else "sample_weight"
    )


def remember_features(estimator: Any, schema: Schema) -> None:
    """What ``fit`` leaves behind about a dataset: ``fields_in_``, ``feature_names_in_``, ``n_features_in_``."""
    if not schema.features:
        raise InputError(f"no column of {list(schema.names)} is a feature; name them with features=[...]")
    estimator.fields_in_ = tuple(schema[name] for name in schema.features)
    estimator.feature_names_in_ = np.array(schema.feature_names, dtype=object)
    estimator.n_features_in_ = len(schema.feature_names)


def numeric_dtype(dataset: Dataset) -> np.dtype[Any]:
    """float32 or float64: the features as a matrix. Raises `SchemaError` naming features that are no numbers."""
    if dataset.dtype is None:
        fields = [dataset.schema[name] for name in dataset.schema.features]
        strange = {
            field.name: str(field.type) for field in fields if not (field.is_number or field.is_matrix)
        }
        raise SchemaError(
            f"expected features that are numbers; these came otherwise: {strange}. "
            "Encode them first (OneHotEncoder, ColumnTransformer), or leave them out of features="
        )
    return dataset.dtype


def columns_of(estimator: Any, schema: Schema) -> tuple[str, ...]:
    """The columns of `schema` that hold the estimator's features, in the order of ``fit``.

    Raises `SignatureError` naming the column, what was expected and what came.
    """
    name = type(estimator).__name__
    fields: Sequence[Field] = getattr(estimator, "fields_in_", ())
    if fields and all(field.name in schema for field in fields):
        for field in fields:
            _same_kind(name, field, schema[field.name])
        return tuple(field.name for field in fields)
    features = schema.feature_names
    known = tuple(getattr(estimator, "feature_names_in_", ()))
    if len(features) != estimator.n_features_in_ or (known and features != known):
        missing = [field.name for field in fields if field.name not in schema]
        expected = (
            f"column {missing[0]!r} ({len(known)} features in all)"
            if missing
            else f"{estimator.n_features_in_} features"
        )
        raise SignatureError(
            f"{name} expects {expected}; {len(features)} features came: {_shown(features)}. "
            "Pass the columns it was fitted on"
        )
    return schema.features


def matrices(estimator: Any, X: Rows, allow_nan: bool = False) -> Iterator[Array]:
    """The rows to predict as ``(rows, features)`` float32 or float64, in order; a dataset part by part."""
    check_is_fitted(estimator)
    dataset = as_dataset(X)
    if dataset is None:
        finite: bool | str = "allow-nan" if allow_nan else True
        kinds = [np.float64, np.float32]
        yield validate_data(estimator, X, reset=False, dtype=kinds, order="C", ensure_all_finite=finite)
        return
    columns = columns_of(estimator, dataset.schema)
    features = dataset.select(columns).with_roles(features=columns)
    yield np.empty(
        (0, estimator.n_features_in_), dtype=features.dtype
    )  # so that no rows give an empty answer
    for part in features.parts:
        for block in part.blocks():
            if not allow_nan:
                refuse_not_finite(block)
            yield block.X


def refuse_not_finite(block: Block) -> None:
    """Raises `InputError` naming column and row if the block holds NaN or an infinity."""
    with np.errstate(invalid="ignore", over="ignore"):
        total = block.X.sum()  # a NaN or an infinity survives every sum: one read, no temporary
    if np.isfinite(total):
        return
    bad = np.argwhere(~np.isfinite(block.X))
    if len(bad):
        row, column = bad[0]
        raise InputError(
            f"column {block.feature_names[column]!r} holds {block.X[row, column]} in row {block.first_row + row}; "
            "expected finite numbers: drop the row, or fill it with SimpleImputer"
        )


def _same_kind(estimator: str, expected: Field, came: Field) -> None:
    if _kind(expected) != _kind(came):
        raise SignatureError(
            f"{estimator} expects column {expected.name!r} as {expected.type}, and {came.type} came: "
            "cast it to what the estimator was fitted on"
        )


def _kind(field: Field) -> str:
    if field.is_matrix:
        return f"matrix of {field.type.list_size}"
    return "number" if field.is_number else "string" if is_string(field.type) else str(field.type)


def is_string(kind: pa.DataType) -> bool:
    """True for every way Arrow has to hold strings."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")


def batch_matrix(batch: pa.RecordBatch, columns: Sequence[str]) -> Array:
    """The named numeric columns of a batch as ``(rows, features)``, a null as NaN."""
    rows = from_arrow(batch.select(list(columns)))
    blocks = [block.X for part in rows.parts for block in part.blocks()]
    return (
        np.concatenate(blocks)
        if len(blocks) > 1
        else blocks[0]
        if blocks
        else np.empty((0, rows.n_features or 0))
    )
