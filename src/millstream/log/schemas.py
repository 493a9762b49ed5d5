"""What a topic's records mean: the internal topic ``__millstream_schemas``, so that any cluster can hold it.

The key of a record is a topic's name; its value is JSON, ``{"format": "json", "schema": BASE64}``, the schema
as an Arrow IPC message or null. The last record of a key counts; a null value is a deleted topic.
"""

from __future__ import annotations

import base64
from typing import NamedTuple

import msgspec
import pyarrow as pa

from millstream.errors import CorruptBatch, InputError, SchemaError
from millstream.log.json_format import check_json_schema
from millstream.log.one_text_type import plain_schema

__all__ = ["BYTES_SCHEMA", "SCHEMAS_TOPIC", "TopicSchema"]

SCHEMAS_TOPIC = "__millstream_schemas"
BYTES_SCHEMA = pa.schema([("key", pa.binary()), ("value", pa.binary())])


class _Wire(msgspec.Struct):
    format: str
    schema: str | None


class TopicSchema(NamedTuple):
    """A format and the columns of a topic."""

    format: str
    schema: pa.Schema

    @classmethod
    def of(cls, schema: pa.Schema | None, format: str) -> TopicSchema:
        """Checked: raises `InputError` for an unknown format and `SchemaError` for a schema that doesn't fit it."""
        if not isinstance(schema, pa.Schema | None):
            raise InputError(
                f"schema={schema!r}; expected a pa.Schema, such as pa.schema([...]), table.schema or "
                "pa.Table.from_pandas(frame).schema"
            )
        if schema is not None:
            schema = plain_schema(schema.remove_metadata())
        if format == "bytes":
            if schema is not None and schema != BYTES_SCHEMA:
                raise SchemaError(
                    'format "bytes" has the columns key and value; leave the schema out, or use "json"'
                )
            return cls(format, BYTES_SCHEMA)
        if format != "json":
            raise InputError(f'format {format!r}; expected "json" or "bytes"')
        if schema is None:
            raise SchemaError('format "json" needs a schema; pass schema=pa.schema([...]) or format="bytes"')
        return cls(format, check_json_schema(schema))

    def to_bytes(self) -> bytes:
        coded = None if self.format == "bytes" else base64.b64encode(self.schema.serialize()).decode()
        return msgspec.json.encode(_Wire(self.format, coded))

    @classmethod
    def from_bytes(cls, value: bytes) -> TopicSchema:
        try:
            wire = msgspec.json.decode(value, type=_Wire)
            schema = (
                None
                if wire.schema is None
                else pa.ipc.read_schema(pa.py_buffer(base64.b64decode(wire.schema)))
            )
        except (msgspec.DecodeError, ValueError, OSError) as fault:
            raise CorruptBatch(f"a record of {SCHEMAS_TOPIC} is no schema: {fault}") from fault
        return cls.of(schema, wire.format)
