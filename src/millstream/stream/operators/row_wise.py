"""Filter, map, select and predict: operators whose rows pass one by one, without state."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millstream.errors import SchemaError
from millstream.log.one_text_type import plain_schema
from millstream.stream import plan
from millstream.stream.frame import Batch, Frame
from millstream.stream.operators.operator import Operator

__all__ = ["FilterOperator", "MapBatchesOperator", "PredictOperator", "SelectOperator"]


class FilterOperator(Operator):
    row_wise = True

    def __init__(self, node: plan.Filter) -> None:
        self._node = node

    def batch(self, port: int, batch: Batch) -> Iterable[Frame]:
        mask = self._node.predicate(batch.rows)
        if isinstance(mask, np.ndarray):
            mask = pa.array(mask)
        if isinstance(mask, pa.ChunkedArray):
            mask = mask.combine_chunks()
        if not isinstance(mask, pa.Array) or not pa.types.is_boolean(mask.type) or len(mask) != len(batch):
            raise SchemaError(
                f"{self._node.label()} gave {_described(mask)}; expected a Boolean array of {len(batch)} values"
            )
        kept = batch.keep(pc.fill_null(mask, False).to_numpy(zero_copy_only=False))
        return (kept,) if len(kept) else ()


class SelectOperator(Operator):
    row_wise = True

    def __init__(self, node: plan.Select) -> None:
        self._names = list(node.names)

    def batch(self, port: int, batch: Batch) -> Iterable[Frame]:
        return (batch.with_rows(batch.rows.select(self._names)),)


class MapBatchesOperator(Operator):
    row_wise = True

    def __init__(self, node: plan.MapBatches) -> None:
        self._node = node

    def batch(self, port: int, batch: Batch) -> Iterable[Frame]:
        rows = self._node.function(batch.rows)
        return (batch.with_rows(_checked(rows, self._node.gives, len(batch), self._node.label())),)


class PredictOperator(Operator):
    row_wise = True

    def __init__(self, node: plan.Predict) -> None:
        self._node = node
        self._schema = node.schema

    def batch(self, port: int, batch: Batch) -> Iterable[Frame]:
        rows = self._node.predictor.predict(batch.rows)
        label = f"{self._node.label()} version {self._node.predictor.version}"
        return (batch.with_rows(_checked(rows, self._schema, len(batch), label)),)


def _checked(rows: pa.RecordBatch, schema: pa.Schema, n: int, label: str) -> pa.RecordBatch:
    fits = isinstance(rows, pa.RecordBatch) and rows.num_rows == n
    wanted = plain_schema(schema)
    given = plain_schema(rows.schema) if fits else wanted
    if not fits or (given.names, given.types) != (wanted.names, wanted.types):
        raise SchemaError(
            f"{label} gave {_described(rows)}; expected a RecordBatch of {n} rows, one for each row in, with columns "
            f"{', '.join(f'{f.name} {f.type}' for f in schema)}"
        )
    if rows.schema.types != schema.types:
        rows = rows.cast(schema)
    return pa.RecordBatch.from_arrays(rows.columns, schema=schema)


def _described(value: object) -> str:
    if isinstance(value, pa.RecordBatch):
        columns = ", ".join(f"{f.name} {f.type}" for f in value.schema)
        return f"a RecordBatch of {value.num_rows} rows with columns {columns}"
    if isinstance(value, pa.Array):
        return f"an array of {len(value)} {value.type}"
    return f"a {type(value).__name__}"
