"""Record batch v2 as bytes."""

import struct

import pytest
from hypothesis import given, settings, strategies as st

from millstream.errors import CorruptBatch
from millstream.log.record_batch import HEADER_BYTES, Record, check, decode, encode, peek, placed, walk

content = st.none() | st.binary(max_size=300)
header = st.tuples(st.text(max_size=8), content)
records = st.lists(
    st.builds(
        Record, st.just(0), st.integers(0, 2**45), content, content, st.lists(header, max_size=3).map(tuple)
    ),
    min_size=1,
    max_size=20,
)


@settings(max_examples=60, deadline=None)
@given(records=records, base=st.integers(0, 2**40))
def test_what_is_encoded_is_decoded(records, base):
    batch = memoryview(encode(records, base_offset=base))
    assert check(batch).next_offset == base + len(records)
    assert decode(batch) == [r._replace(offset=base + i) for i, r in enumerate(records)]


def test_fields_stand_where_the_drawing_says():
    batch = encode([Record(0, 1000, None, b"a"), Record(0, 1003, None, b"b")], base_offset=7, leader_epoch=3)
    field = lambda kind, at: struct.unpack_from(kind, batch, at)[0]  # noqa: E731
    assert field(">q", 0) == 7
    assert field(">i", 8) == len(batch) - 12
    assert field(">i", 12) == 3
    assert field(">b", 16) == 2
    assert field(">i", 23) == 1
    assert (field(">q", 27), field(">q", 35)) == (1000, 1003)
    assert field(">i", 57) == 2


def test_placing_a_batch_keeps_its_crc():
    batch = memoryview(encode([Record(0, 1, None, b"a")]))
    moved = b"".join(placed(batch, 99, 5))
    assert (check(memoryview(moved)).base_offset, check(memoryview(moved)).leader_epoch) == (99, 5)


def test_every_flipped_bit_of_the_signed_part_is_seen():
    batch = encode([Record(0, 1, b"key", b"value")])
    for at in range(17, len(batch)):
        for bit in range(8):
            broken = bytearray(batch)
            broken[at] ^= 1 << bit
            with pytest.raises(CorruptBatch):
                check(memoryview(broken))


@pytest.mark.parametrize("size", [0, 11, HEADER_BYTES - 1])
def test_less_than_a_header_is_corrupt(size):
    with pytest.raises(CorruptBatch, match="a batch header takes 61"):
        peek(memoryview(encode([Record(0, 1, None, b"a")]))[:size])


def test_walk_leaves_out_a_part_of_a_batch():
    one = encode([Record(0, 1, None, b"a")])
    assert [at for at, _ in walk(memoryview(one + one + one[:-1]))] == [0, len(one)]


def test_records_that_do_not_fill_their_batch_are_corrupt():
    batch = bytearray(encode([Record(0, 1, None, b"a")]))
    struct.pack_into(">i", batch, 57, 2)
    with pytest.raises(CorruptBatch, match="record 1 is cut short"):
        decode(memoryview(batch))
