"""What a partition promises, without a broker."""

import errno
import os

import pytest

from millstream.errors import CorruptBatch, InputError, LogError, LogFull
from millstream.log.partition import Partition
from millstream.log.record_batch import Record, decode, encode, walk


def batch(*values, timestamp=1):
    return memoryview(encode([Record(0, timestamp, None, v) for v in values]))


def values(partition, start=0):
    return [r.value for b in partition.batches(start) for r in decode(b)]


@pytest.fixture
def partition(tmp_path):
    opened = Partition(tmp_path)
    yield opened
    opened.close()


def test_offsets_are_consecutive(partition):
    assert [partition.append(batch(b"a", b"b")), partition.append(batch(b"c"))] == [0, 2]
    assert partition.end_offset == 3


def test_nothing_is_visible_before_a_flush(partition):
    partition.append(batch(b"a"))
    assert (partition.high_watermark, values(partition)) == (0, [])
    assert partition.flush() == 1
    assert values(partition) == [b"a"]


def test_a_flush_covers_what_was_appended_before_it_began(partition):
    partition.append(batch(b"a"))
    flush = partition.begin_flush()
    partition.append(batch(b"b"))
    flush.sync()
    assert partition.finish_flush(flush) == 1
    assert values(partition) == [b"a"]


def test_reopened_it_goes_on(tmp_path):
    first = Partition(tmp_path)
    first.append(batch(b"a"))
    first.flush()
    first.close()
    second = Partition(tmp_path)
    assert (second.high_watermark, second.append(batch(b"b"))) == (1, 1)
    second.close()


def test_segments_roll_and_read_as_one(tmp_path):
    partition = Partition(tmp_path, segment_bytes=500)
    for i in range(50):
        partition.append(batch(b"%d" % i))
    partition.flush()
    assert len(list(tmp_path.glob("*.log"))) > 5
    assert values(partition) == [b"%d" % i for i in range(50)]
    assert values(partition, start=33)[0] == b"33"
    partition.close()
    reopened = Partition(tmp_path, segment_bytes=500)
    assert values(reopened) == [b"%d" % i for i in range(50)]
    reopened.close()


def test_a_read_holds_whole_batches_up_to_its_limit(partition):
    for _ in range(10):
        partition.append(batch(b"x" * 100))
    partition.flush()
    size = len(batch(b"x" * 100))
    data = partition.read(3, size * 2 + 10)
    assert [h.base_offset for _, h in walk(memoryview(data))] == [3, 4]
    assert len(data) == size * 2


def test_a_batch_larger_than_the_limit_is_read_whole(partition):
    partition.append(batch(b"x" * 10_000))
    partition.flush()
    assert len(partition.read(0, 1)) == len(batch(b"x" * 10_000))


@pytest.mark.parametrize("offset", [-1, 2])
def test_an_offset_outside_is_refused(partition, offset):
    partition.append(batch(b"a"))
    partition.flush()
    with pytest.raises(IndexError, match=f"offset {offset}"):
        partition.read(offset, 100)


def test_the_first_record_at_or_after_a_time(tmp_path):
    partition = Partition(tmp_path, segment_bytes=400)
    for t in (100, 300, 200, 500, 400):
        partition.append(memoryview(encode([Record(0, t, None, b"a"), Record(0, t + 50, None, b"b")])))
    partition.flush()
    times = [100, 150, 300, 350, 200, 250, 500, 550, 400, 450]
    for asked in range(0, 700, 10):
        first = next((i for i, t in enumerate(times) if t >= asked), -1)
        assert partition.offset_at_time(asked).offset == first
    partition.close()


def test_time_and_offset_are_found_among_many_batches(partition):
    for i in range(2000):
        partition.append(batch(b"v%d" % i, timestamp=i * 10))
    partition.flush()
    assert partition.offset_at_time(12_345) == (1235, 12_350)
    assert values(partition, start=1999) == [b"v1999"]


@pytest.mark.parametrize("damage", [slice(20, 21), slice(70, 71)])
def test_a_batch_with_a_bad_crc_is_refused_and_leaves_nothing(partition, damage):
    bad = bytearray(batch(b"a" * 50))
    bad[damage] = b"\xff"
    with pytest.raises(CorruptBatch):
        partition.append(memoryview(bad))
    assert partition.end_offset == 0
    assert partition.append(batch(b"good")) == 0


def test_a_transactional_batch_is_refused(partition):
    from crc32c import crc32c

    bad = bytearray(batch(b"a"))
    bad[22] |= 0x10
    bad[17:21] = crc32c(bytes(bad[21:])).to_bytes(4, "big")
    with pytest.raises(InputError, match="transactional"):
        partition.append(memoryview(bad))


def test_a_failed_write_is_cut_off_and_the_partition_goes_on(partition, monkeypatch):
    """The device writes half of the batch, then has no room; the true disk stands in tests/faults."""
    partition.append(batch(b"before"))
    real, calls = os.pwritev, []

    def short(fd, buffers, position):
        calls.append(position)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, [buffers[0]], position)

    monkeypatch.setattr(os, "pwritev", short)
    with pytest.raises(LogFull, match="No space left"):
        partition.append(batch(b"lost"))
    monkeypatch.undo()
    assert partition.append(batch(b"after")) == 1
    partition.flush()
    assert values(partition) == [b"before", b"after"]


def test_short_writes_are_continued(partition, monkeypatch):
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda fd, buffers, at: real(fd, [memoryview(buffers[0])[:7]], at))
    partition.append(batch(b"a" * 100))
    monkeypatch.undo()
    partition.flush()
    assert values(partition) == [b"a" * 100]


def test_after_a_failed_fsync_it_is_read_only(partition, monkeypatch):
    partition.append(batch(b"kept"))
    partition.flush()
    partition.append(batch(b"doubtful"))

    def fail(fd):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(LogError, match="read-only: fsync failed"):
        partition.flush()
    monkeypatch.undo()
    with pytest.raises(LogError, match="open the log again"):
        partition.append(batch(b"more"))
    partition.flush()  # a later fsync that succeeds says nothing about the one that failed
    assert values(partition) == [b"kept"]


def test_damage_in_an_older_segment_is_an_error_and_changes_nothing(tmp_path):
    partition = Partition(tmp_path, segment_bytes=200)
    for _ in range(6):
        partition.append(batch(b"x" * 50))
    partition.flush()
    partition.close()
    oldest = min(tmp_path.glob("*.log"))
    damaged = bytearray(oldest.read_bytes())
    damaged[80] ^= 1
    oldest.write_bytes(damaged)
    with pytest.raises(CorruptBatch):
        Partition(tmp_path)
    assert oldest.read_bytes() == damaged
