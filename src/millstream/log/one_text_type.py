"""One type for text and one for bytes, whatever wrote them.

Arrow has several layouts for the same values: pandas 3 writes ``large_string``, its categoricals are dictionaries, and
DuckDB and Polars write views. Inside a topic or a stream all are ``string`` or ``binary``, so that one program's rows
meet another's by name and value.
"""

from __future__ import annotations

from typing import Protocol

import pyarrow as pa

from millstream.errors import InputError

__all__ = ["ArrowStream", "as_table", "one_text_type", "plain_schema", "plain_table"]


class ArrowStream(Protocol):
    """What hands out its rows by Arrow's PyCapsule interface: pandas, Polars and DuckDB data frames."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object: ...


def one_text_type(kind: pa.DataType) -> pa.DataType:
    """``string`` for text and ``binary`` for bytes in any layout, dictionaries of them included; else `kind` itself.

    >>> one_text_type(pa.large_string()), one_text_type(pa.dictionary(pa.int8(), pa.string()))
    (DataType(string), DataType(string))
    """
    values = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_string(values) or pa.types.is_large_string(values) or pa.types.is_string_view(values):
        return pa.string()
    if pa.types.is_binary(values) or pa.types.is_large_binary(values) or pa.types.is_binary_view(values):
        return pa.binary()
    return kind


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The same columns with one type for text; `schema` itself where they have it."""
    kinds = [one_text_type(kind) for kind in schema.types]
    if kinds == schema.types:
        return schema
    fields = [field.with_type(kind) for field, kind in zip(schema, kinds, strict=True)]
    return pa.schema(fields, schema.metadata)


def as_table(value: object, expected: str) -> pa.Table:
    """A table of what holds one: an Arrow table or record batch, or a data frame that hands out Arrow's C stream
    (pandas, Polars, DuckDB). `InputError` names `expected` for anything else."""
    if isinstance(value, pa.Table):
        return value
    if isinstance(value, pa.RecordBatch):
        return pa.Table.from_batches([value])
    if hasattr(value, "__arrow_c_stream__"):
        return pa.RecordBatchReader.from_stream(value).read_all()
    raise InputError(f"{expected}; got a {type(value).__name__}; make one with pa.table(...)")


def plain_table(table: pa.Table) -> pa.Table:
    """The same rows with one type for text; `table` itself where they have it."""
    schema = plain_schema(table.schema)
    return table if schema is table.schema or schema == table.schema else table.cast(schema)
