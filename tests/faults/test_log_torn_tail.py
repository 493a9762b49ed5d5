"""A crash stops the writer anywhere: opening cuts exactly the batch that isn't whole, and nothing that a crash can't
have left. Damage elsewhere is an error, and the file stays as it is."""

import os
import subprocess
import sys

import pytest

from millstream.errors import CorruptBatch
from millstream.log import Log
from millstream.log.partition import Partition
from millstream.log.record_batch import Record, decode, encode
from millstream.log.store import Store


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


def test_every_byte_before_the_last_batch_flipped_is_damage(whole):
    """Whole batches stand behind it, so no crash left this."""
    segment, data, begins = whole
    for at in range(begins):
        broken = bytearray(data)
        broken[at] ^= 0xFF
        segment.write_bytes(broken)
        try:
            partition = Partition(segment.parent)
        except CorruptBatch:
            pass
        else:  # a leader epoch: outside the CRC, and no record depends on it
            assert values(partition) == [b"one", b"two", b"three", b"last", b"of all"]
            partition.close()
        assert segment.read_bytes() == broken


def test_what_looks_like_a_batch_but_is_not_whole_is_part_of_the_tail(whole):
    """Many magic bytes, offsets that could be, lengths that fit: only a right CRC is a batch."""
    segment, data, begins = whole
    header = bytearray(data[begins : begins + 61])
    header[17] ^= 1
    segment.write_bytes(data[:begins] + bytes(header) * 300 + b"\2" * 3000)
    partition = Partition(segment.parent)
    assert partition.cut_bytes == 61 * 300 + 3000
    partition.close()


@pytest.mark.parametrize("stop", ["clean", "unclean"])
def test_a_bit_flipped_in_acknowledged_records_is_named_and_the_file_kept(tmp_path, stop):
    with Store(tmp_path) as store:
        partition = store.create_topic("t").partitions[0]
        for start in range(0, 2000, 100):
            partition.append(batch(*(b"%04d" % i for i in range(start, start + 100))))
    if stop == "unclean":
        _stop_uncleanly(tmp_path)
    segment = tmp_path / "topics" / "t" / "0" / f"{0:020d}.log"
    broken = bytearray(segment.read_bytes())
    position = len(broken) // 4  # where the sixth of 20 equal batches begins
    broken[position + 500] ^= 1
    segment.write_bytes(broken)
    for _ in range(2):  # a second try meets the same
        with pytest.raises(CorruptBatch) as told:
            Store(tmp_path)
        assert f"{segment} is damaged at byte {position}" in str(told.value)
        assert segment.read_bytes() == broken
    with pytest.raises(CorruptBatch, match="restore the file from a copy"):
        Log(tmp_path)
    assert f"truncate -s {position} {segment}" in str(told.value)
    os.truncate(segment, position)  # what the message offers
    with Store(tmp_path) as store:
        assert store.topic("t").partitions[0].end_offset == 500


def test_a_tail_that_is_not_whole_after_a_clean_stop_is_damage(tmp_path):
    with Store(tmp_path) as store:
        partition = store.create_topic("t").partitions[0]
        for _ in range(3):
            partition.append(batch(b"a"))
    segment = tmp_path / "topics" / "t" / "0" / f"{0:020d}.log"
    broken = segment.read_bytes()[:-1]
    segment.write_bytes(broken)
    for _ in range(2):
        with pytest.raises(CorruptBatch, match="stopped cleanly"):
            Store(tmp_path)
        assert segment.read_bytes() == broken


def test_a_torn_tail_after_an_unclean_stop_is_cut(tmp_path):
    with Store(tmp_path) as store:
        partition = store.create_topic("t").partitions[0]
        for _ in range(3):
            partition.append(batch(b"a"))
    _stop_uncleanly(tmp_path)
    segment = tmp_path / "topics" / "t" / "0" / f"{0:020d}.log"
    segment.write_bytes(segment.read_bytes()[:-1])
    with Store(tmp_path) as store:
        assert store.topic("t").partitions[0].end_offset == 2


def _stop_uncleanly(directory):
    code = "import os, sys; from millstream.log.store import Store; Store(sys.argv[1]); os._exit(1)"
    subprocess.run([sys.executable, "-c", code, str(directory)], timeout=60, check=False)
