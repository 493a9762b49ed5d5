"""Rows as JSON and back, bit for bit."""

import json
import math
import struct
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st

from millstream.errors import SchemaError
from millstream.log.json_format import check_json_schema, decode_json, encode_json

SCHEMA = pa.schema(
    [
        ("i", pa.int64()),
        ("u", pa.uint64()),
        ("f", pa.float64()),
        ("g", pa.float32()),
        ("s", pa.string()),
        ("b", pa.bool_()),
        ("t", pa.timestamp("us", "UTC")),
        ("l", pa.list_(pa.float64())),
    ]
)
finite = st.floats(allow_nan=False, allow_infinity=False)
row = st.fixed_dictionaries(
    {
        "i": st.none() | st.integers(-(2**63), 2**63 - 1),
        "u": st.none() | st.integers(0, 2**64 - 1),
        "f": st.none() | finite,
        "g": st.none() | st.floats(allow_nan=False, allow_infinity=False, width=32),
        "s": st.none() | st.text(max_size=20),
        "b": st.none() | st.booleans(),
        "t": st.none() | st.datetimes(timezones=st.just(UTC)),
        "l": st.none() | st.lists(finite, max_size=3),
    }
)


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(row, max_size=8))
def test_every_value_comes_back(rows):
    batch = pa.RecordBatch.from_pylist(rows, SCHEMA)
    values = encode_json(batch)
    assert decode_json(values, SCHEMA).equals(batch)
    assert all(set(json.loads(v)) == set(SCHEMA.names) for v in values.to_pylist())


@given(number=finite)
@settings(max_examples=300, deadline=None)
def test_floats_keep_their_bits(number):
    batch = pa.record_batch({"f": [number]})
    back = decode_json(encode_json(batch), batch.schema)["f"][0].as_py()
    assert struct.pack("d", back) == struct.pack("d", number)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_json_has_no_form_for_is_refused(number):
    with pytest.raises(SchemaError, match="column 'f' holds NaN or infinity"):
        encode_json(pa.record_batch({"f": [1.0, number]}))


def test_a_timestamp_is_an_integer_of_microseconds():
    batch = pa.record_batch({"t": pa.array([datetime(2013, 1, 1, tzinfo=UTC)], pa.timestamp("ms", "UTC"))})
    assert encode_json(batch).to_pylist() == [b'{"t":1356998400000000}']
    assert decode_json(encode_json(batch), batch.schema).equals(batch)


def test_members_unknown_are_ignored_and_missing_ones_null():
    schema = pa.schema([("a", pa.int64()), ("b", pa.string())])
    rows = decode_json([b'{"z": [1], "a": 1}', None, b'{\n"b": "x"\n}'], schema)
    assert rows.to_pylist() == [{"a": 1, "b": None}, {"a": None, "b": None}, {"a": None, "b": "x"}]


@pytest.mark.parametrize(
    "values",
    [
        [b"nope"],
        [b""],
        [b"[1]"],
        [b'{"a": "x"}'],
        [b'{"a": 1.5}'],
        [b'{"a": 1}{"a": 2}'],
        [b'{"a": 1}{"a": 2}', b""],
        [b'{"a": 1', b'"b": 2}'],
        [b'{"a": 1', b'{"a": 2}}'],
        [b"null"],
    ],
)
def test_a_record_that_is_not_one_object_is_refused(values):
    with pytest.raises(SchemaError):
        decode_json(values, pa.schema([("a", pa.int64())]))


@pytest.mark.parametrize("kind", [pa.string(), pa.int64()], ids=str)
def test_text_that_is_not_utf8_is_refused(kind):
    with pytest.raises(SchemaError):
        decode_json([b'{"a": "ok"}', b'{"a": "\xff"}'], pa.schema([("a", kind)]))


@pytest.mark.parametrize(
    "kind", [pa.decimal128(5, 2), pa.binary(), pa.struct([("x", pa.int64())]), pa.date32()]
)
def test_a_type_without_a_form_is_refused_by_name(kind):
    with pytest.raises(SchemaError, match="column 'odd'"):
        check_json_schema(pa.schema([("odd", kind)]))


def test_no_rows():
    assert decode_json([], SCHEMA).num_rows == 0
    assert len(encode_json(pa.RecordBatch.from_pylist([], SCHEMA))) == 0
