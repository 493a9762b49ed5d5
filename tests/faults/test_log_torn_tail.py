"""A crash stops the writer anywhere: opening cuts exactly the batch that isn't whole."""

import pytest

from millstream.log.partition import Partition
from millstream.log.record_batch import Record, decode, encode


def batch(*values):
    return memoryview(encode([Record(0, 1, b"k", v) for v in values]))


def values(partition):
    return [r.value for b in partition.batches() for r in decode(b)]


@pytest.fixture
def whole(tmp_path):
    """The bytes of a segment of three batches, and where the last begins."""
    partition = Partition(tmp_path)
    partition.append(batch(b"one", b"two"))
    partition.append(batch(b"three"))
    partition.flush()
    (segment,) = tmp_path.glob("*.log")
    begins = segment.stat().st_size
    partition.append(batch(b"last", b"of all"))
    partition.flush()
    partition.close()
    return segment, segment.read_bytes(), begins


def test_cut_at_every_byte_of_the_last_batch(whole):
    segment, data, begins = whole
    for end in range(begins, len(data)):
        segment.write_bytes(data[:end])
        partition = Partition(segment.parent)
        assert partition.cut_bytes == end - begins
        assert values(partition) == [b"one", b"two", b"three"]
        assert segment.stat().st_size == begins
        assert partition.append(batch(b"next")) == 3
        partition.flush()
        assert values(partition)[-1] == b"next"
        partition.close()


def test_every_byte_of_the_last_batch_flipped(whole):
    segment, data, begins = whole
    for at in range(begins, len(data)):
        if begins + 12 <= at < begins + 16:
            continue  # the leader epoch: outside the CRC, and no record depends on it
        broken = bytearray(data)
        broken[at] ^= 0xFF
        segment.write_bytes(broken)
        partition = Partition(segment.parent)
        assert values(partition) == [b"one", b"two", b"three"]
        partition.close()


def test_zeros_behind_the_last_batch_are_cut(whole):
    """What a file system leaves that had grown the file before the data came."""
    segment, data, _ = whole
    segment.write_bytes(data + bytes(5000))
    partition = Partition(segment.parent)
    assert partition.cut_bytes == 5000
    assert values(partition) == [b"one", b"two", b"three", b"last", b"of all"]
    partition.close()


def test_an_empty_last_segment_goes_on(tmp_path):
    partition = Partition(tmp_path, segment_bytes=100)
    partition.append(batch(b"x" * 50))
    partition.append(batch(b"y" * 50))
    partition.flush()
    partition.close()
    newest = max(tmp_path.glob("*.log"))
    newest.write_bytes(b"")
    reopened = Partition(tmp_path, segment_bytes=100)
    assert (reopened.append(batch(b"z")), reopened.flush()) == (1, 2)
    assert values(reopened) == [b"x" * 50, b"z"]
    reopened.close()
