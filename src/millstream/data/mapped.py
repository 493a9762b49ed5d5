"""Rows computed when they are read: other columns, or fewer rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from millstream.data.part import Part
from millstream.data.schema import Field, Role, Schema
from millstream.errors import SchemaError

__all__ = ["Filtered", "Mapped", "filtered_parts", "mapped_schema"]


@dataclass(frozen=True)
class Mapped:
    """The batches of a part, each passed through a function that keeps the number of rows."""

    part: Part
    function: Callable[[pa.RecordBatch], pa.RecordBatch]
    schema: Schema

    def __call__(self, columns: Sequence[str], /) -> Iterator[pa.RecordBatch]:
        expected = self.schema.arrow
        for batch in self.part.batches():
            result = self.function(batch)
            if result.num_rows != batch.num_rows:
                raise SchemaError(
                    f"the function of map_batches made {result.num_rows} rows of {batch.num_rows}; "
                    "it must keep their number: use filter to drop rows"
                )
            _same_columns(result.schema, expected)
            yield result.select(list(columns))


@dataclass(frozen=True)
class Filtered:
    """The rows of a part for which a predicate is true."""

    part: Part
    predicate: Callable[[pa.RecordBatch], Any]

    def __call__(self, columns: Sequence[str], /) -> Iterator[pa.RecordBatch]:
        for batch in self.part.batches():
            yield batch.select(list(columns)).filter(self._mask(batch))

    def count(self) -> int:
        """Rows that remain."""
        return sum(int(self._mask(batch).true_count) for batch in self.part.batches())

    def _mask(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        answer = self.predicate(batch)
        mask = pa.array(np.asarray(answer)) if not isinstance(answer, pa.Array | pa.ChunkedArray) else answer
        if isinstance(mask, pa.ChunkedArray):
            mask = mask.combine_chunks()
        if not pa.types.is_boolean(mask.type) or len(mask) != batch.num_rows:
            raise SchemaError(
                f"the predicate of filter returned {len(mask)} values of type {mask.type} for "
                f"{batch.num_rows} rows; it must return one Boolean a row"
            )
        return mask


def filtered_parts(sources: Sequence[tuple[Part, Filtered]]) -> list[Part]:
    """Parts over the rows that remain, numbered anew."""
    parts: list[Part] = []
    first_row = 0
    for part, rows in sources:
        n_rows = rows.count()
        parts.append(Part(part.index, first_row, n_rows, part.schema, rows))
        first_row += n_rows
    return parts


def mapped_schema(
    before: Schema, function: Callable[[pa.RecordBatch], pa.RecordBatch], schema: Any
) -> Schema:
    """The schema after `function`: as given, or found by calling it on a batch without rows."""
    if isinstance(schema, Schema):
        return schema
    if schema is None:
        empty = pa.RecordBatch.from_arrays([pa.array([], f.type) for f in before.fields], schema=before.arrow)
        schema = function(empty).schema
    fields: list[pa.Field] = list(schema)
    return Schema(tuple(_inherited(before, field) for field in fields))


def _inherited(before: Schema, field: pa.Field) -> Field:
    if field.name not in before:
        return Field(field.name, field.type, Role.FEATURE)
    old = before[field.name]
    return Field(field.name, field.type, old.role, old.columns if old.type == field.type else ())


def _same_columns(got: pa.Schema, expected: pa.Schema) -> None:
    for field in expected:
        at = got.get_field_index(field.name)
        if at < 0:
            raise SchemaError(
                f"the function of map_batches returned no column {field.name!r}; it returned {got.names}, "
                f"and the schema says {expected.names}"
            )
        if got.field(at).type != field.type:
            raise SchemaError(
                f"the function of map_batches returned {field.name!r} as {got.field(at).type}; "
                f"the schema says {field.type}: cast it, or pass the schema it returns"
            )
