"""The record kernels against the plain Python decoder, and on bytes that are no records."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from millstream.kernels.records import batch_spans, record_spans
from millstream.log.record_batch import HEADER_BYTES, Record, decode, encode

content = st.none() | st.binary(max_size=200)
records = st.lists(
    st.builds(Record, st.just(0), st.integers(0, 2**42), content, content, st.just((("h", b"x"),))),
    min_size=1,
    max_size=30,
)


def by_kernel(batch):
    data = np.frombuffer(batch, np.uint8)
    found = np.empty((4, 8), np.int64)
    assert batch_spans(data, 0, 1 << 62, found) == (1, len(batch))
    _, _, base, count, base_timestamp, _, _, append_time = found[0].tolist()
    out = np.empty((count, 6), np.int64)
    assert record_spans(data, HEADER_BYTES, len(batch), count, base, base_timestamp, append_time, out)
    span = lambda start, length: None if length < 0 else bytes(batch[start : start + length])  # noqa: E731
    return [(o, t, span(ks, kl), span(vs, vl)) for o, t, ks, kl, vs, vl in out.tolist()]


@settings(max_examples=80, deadline=None)
@given(records=records, base=st.integers(0, 2**50))
def test_the_kernel_reads_what_the_reference_reads(records, base):
    batch = encode(records, base_offset=base)
    assert by_kernel(batch) == [tuple(r[:4]) for r in decode(memoryview(batch))]


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=300), count=st.integers(0, 50))
def test_any_bytes_give_an_answer(data, count):
    array = np.frombuffer(data, np.uint8)
    out = np.empty((count, 6), np.int64)
    if record_spans(array, 0, len(array), count, 0, 0, -1, out):
        inside = (out[:, 2] >= 0) & (out[:, 2] + np.maximum(out[:, 3], 0) <= len(array))
        assert (inside & (out[:, 4] + np.maximum(out[:, 5], 0) <= len(array))).all()
    found, at = batch_spans(array, 0, 1 << 62, np.empty((8, 8), np.int64))
    assert 0 <= found <= 8
    assert 0 <= at <= len(array)


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_batch_cut_short_is_not_taken(cut):
    batch = encode([Record(0, 1, b"key", b"v" * 50), Record(0, 2, None, None)])
    data = np.frombuffer(batch[:-cut], np.uint8)
    assert batch_spans(data, 0, 1 << 62, np.empty((4, 8), np.int64)) == (0, 0)
    assert not record_spans(data, HEADER_BYTES, len(data), 2, 0, 0, -1, np.empty((2, 6), np.int64))


@pytest.mark.parametrize("field", [4, 5])  # key length, value length: a byte each behind length and deltas
def test_a_key_or_value_that_runs_past_its_record_is_refused(field):
    body = bytearray(encode([Record(0, 1, b"", b"value")])[HEADER_BYTES:])
    array = np.frombuffer(bytes(body), np.uint8)
    out = np.empty((1, 6), np.int64)
    assert record_spans(array, 0, len(array), 1, 0, 0, -1, out)
    body[field] = 40  # zigzag of 20
    array = np.frombuffer(bytes(body) + bytes(100), np.uint8)
    assert not record_spans(array, 0, len(body), 1, 0, 0, -1, out)
