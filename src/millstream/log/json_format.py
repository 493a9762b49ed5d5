"""The formats of a topic: what a record's value means.

``json``
    One JSON object a record, one member a column. Integers, floats, strings, booleans and null stand for themselves;
    a timestamp is an integer, its microseconds since 1970 UTC. Floats are written with the fewest digits that read
    back to the same bits. NaN and infinities have no JSON form and are refused: make them null first. Members that
    the schema doesn't name are ignored on reading, missing ones are null.
``bytes``
    The value is opaque; the columns are ``key`` and ``value``.

Both directions work on whole columns: rows become Python objects only where a column is a list or needs escapes.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from millstream.errors import SchemaError

__all__ = ["check_finite", "check_json_schema", "decode_json", "decode_lines", "encode_json"]

_NEEDS_ESCAPE = r'["\\\x00-\x1f\x7f]'
_MICROSECONDS = pa.timestamp("us")


def check_json_schema(schema: pa.Schema) -> pa.Schema:
    """`schema` itself if every column has a JSON form; else `SchemaError`."""
    if len(set(schema.names)) != len(schema.names) or not schema.names:
        raise SchemaError(f"a topic's schema needs columns of different names; got {schema.names}")
    for field in schema:
        if not _has_form(field.type):
            raise SchemaError(
                f"column {field.name!r} is {field.type}, which has no JSON form here; cast it to a number, string, "
                'boolean, timestamp("us", "UTC") or a list of numbers, or use format="bytes"'
            )
    return schema


def _has_form(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind):
        return _is_plain(kind.value_type)
    return _is_plain(kind) or pa.types.is_string(kind) or pa.types.is_timestamp(kind)


def _is_plain(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or kind in (pa.float32(), pa.float64(), pa.bool_())


def encode_json(batch: pa.RecordBatch) -> pa.Array:
    """One JSON object a row: an array of binary, `batch.num_rows` long. Raises `SchemaError` on NaN or infinity.

    >>> batch = pa.record_batch({"page": ["a", None], "dwell": [0.1, 2.0]})
    >>> encode_json(batch).to_pylist()
    [b'{"page":"a","dwell":0.1}', b'{"page":null,"dwell":2}']
    """
    pieces: list[object] = []
    separator = "{"
    for field, column in zip(batch.schema, batch.columns, strict=True):
        pieces += [f"{separator}{msgspec.json.encode(field.name).decode()}:", _encode_column(field, column)]
        separator = ","
    return pc.binary_join_element_wise(*pieces, "}", "").cast(pa.binary())


def _encode_column(field: pa.Field, column: pa.Array) -> pa.Array:
    kind = field.type
    if pa.types.is_timestamp(kind):
        text = column.cast(_MICROSECONDS if kind.tz is None else pa.timestamp("us", kind.tz)).cast(pa.int64())
        text = text.cast(pa.string())
    elif pa.types.is_floating(kind):
        _check_finite(field.name, column)
        text = column.cast(pa.string())
    elif pa.types.is_string(kind):
        text = _quote(column)
    elif pa.types.is_list(kind):
        if pa.types.is_floating(kind.value_type):
            _check_finite(field.name, column.flatten())
        text = pa.array([msgspec.json.encode(value).decode() for value in column.to_pylist()], pa.string())
    else:
        text = column.cast(pa.string())
    return pc.fill_null(text, "null")


def check_finite(table: pa.Table) -> None:
    """Raises `SchemaError` for NaN or infinity in a column of floats, so that nothing is sent of such a table."""
    for field, column in zip(table.schema, table.columns, strict=True):
        if pa.types.is_floating(field.type):
            _check_finite(field.name, column)


def _check_finite(name: str, column: pa.Array | pa.ChunkedArray) -> None:
    if not pc.all(pc.is_finite(column), min_count=0).as_py():
        raise SchemaError(
            f"column {name!r} holds NaN or infinity, which JSON has no form for; make them null first"
        )


def _quote(column: pa.Array) -> pa.Array:
    if pc.any(pc.match_substring_regex(column, _NEEDS_ESCAPE), min_count=0).as_py():
        return pa.array(
            [None if v is None else msgspec.json.encode(v).decode() for v in column.to_pylist()], pa.string()
        )
    return pc.binary_join_element_wise('"', column, '"', "")


def decode_json(values: Sequence[bytes | None] | pa.Array, schema: pa.Schema) -> pa.RecordBatch:
    """The rows that `values` spell, one a record; a null value is a row of nulls. Raises `SchemaError`."""
    rows = values if isinstance(values, pa.Array) else pa.array(values, pa.binary())
    if not pc.all(pc.starts_with(rows.cast(pa.binary()), b"{"), min_count=0).as_py():
        raise SchemaError(
            f"a record doesn't start with '{{'; expected one JSON object each: {_words(schema)}"
        )
    lines = pc.binary_join_element_wise(pc.fill_null(rows.cast(pa.binary()), b"{}"), b"", b"\n")
    offsets = memoryview(lines.buffers()[1]).cast("i")
    start, end = offsets[lines.offset], offsets[lines.offset + len(lines)]
    return decode_lines(
        lines.buffers()[2].slice(start, end - start) if end > start else pa.py_buffer(b""), len(rows), schema
    )


def decode_lines(lines: pa.Buffer, rows: int, schema: pa.Schema) -> pa.RecordBatch:
    """`rows` JSON objects, each ended by a newline, as a record batch of `schema`. Raises `SchemaError`."""
    if not rows:
        return pa.RecordBatch.from_pylist([], schema)
    wire = pa.schema([pa.field(f.name, _wire_type(f.type)) for f in schema])
    try:
        table = _parse(lines, wire, newlines=False)
        if table.num_rows != rows:  # a producer wrote objects over several lines
            table = _parse(lines, wire, newlines=True)
        table.validate(full=True)  # the parser doesn't look whether text is UTF-8
    except pa.ArrowInvalid as fault:
        raise SchemaError(
            f"records don't match the topic's schema: {fault}; expected {_words(schema)}"
        ) from fault
    if table.num_rows != rows:
        raise SchemaError(f"{rows} records hold {table.num_rows} JSON objects; expected one each")
    (batch,) = table.combine_chunks().to_batches() or [None]
    columns = [
        c if c.type == f.type else _from_wire(c, f.type) for c, f in zip(batch.columns, schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _parse(lines: pa.Buffer, wire: pa.Schema, *, newlines: bool) -> pa.Table:
    return pj.read_json(
        pa.BufferReader(lines),
        read_options=pj.ReadOptions(use_threads=False, block_size=max(lines.size, 1)),
        parse_options=pj.ParseOptions(
            explicit_schema=wire, unexpected_field_behavior="ignore", newlines_in_values=newlines
        ),
    )


def _wire_type(kind: pa.DataType) -> pa.DataType:
    return pa.int64() if pa.types.is_timestamp(kind) else kind


def _from_wire(column: pa.Array, kind: pa.DataType) -> pa.Array:
    return column.cast(pa.timestamp("us", kind.tz)).cast(kind)


def _words(schema: pa.Schema) -> str:
    return ", ".join(f"{f.name}: {f.type}" for f in schema)
