"""A disk that is full, on a file system of one megabyte."""

import contextlib
import os
import subprocess
import sys

import pyarrow as pa
import pytest

from millstream.errors import LogFull
from millstream.log import Log
from millstream.log.record_batch import Record, decode, encode
from millstream.log.store import Store

LARGE = memoryview(encode([Record(0, 1, None, os.urandom(60_000))]))


@pytest.fixture
def small_disk(tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounting a tmpfs is not permitted here: {mounted.stderr.decode().strip()}")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def fill(partition):
    """Append until the disk is full; returns how many batches went in."""
    for count in range(100):
        try:
            partition.append(LARGE)
        except LogFull:
            return count
    raise AssertionError("the disk never filled")


def fill_up(path):
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_what_did_not_fit_is_invisible_and_appends_go_on_when_there_is_room(small_disk):
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(300_000))
    with Store(small_disk / "log") as store:
        partition = store.create_topic("t").partitions[0]
        fitted = fill(partition)
        assert fitted > 5
        with pytest.raises(LogFull, match="free space and append again"):
            partition.append(LARGE)
        assert partition.flush() == fitted
        ballast.unlink()
        assert partition.append(LARGE) == fitted
        assert partition.flush() == fitted + 1
    with Store(small_disk / "log") as store:
        partition = store.topic("t").partitions[0]
        assert partition.cut_bytes == 0
        assert [r.offset for b in partition.batches() for r in decode(b)] == list(range(fitted + 1))


def test_a_topic_that_does_not_fit_is_not_there(small_disk):
    with Store(small_disk / "log") as store:
        fill(store.create_topic("t").partitions[0])
        fill_up(small_disk / "rest")
        with pytest.raises(LogFull, match="can't create topic 'more'"):
            store.create_topic("more", 2)
        assert list(store.topics) == ["t"]
        (small_disk / "rest").unlink()
        assert store.create_topic("more", 2).name == "more"


def test_a_producer_is_told_and_what_was_acknowledged_is_there(small_disk):
    with Log(small_disk / "log") as log:
        topic = log.create_topic("t", schema=pa.schema([("text", pa.string())]))
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(300_000))
        row = pa.table({"text": ["x" * 40_000]})
        acknowledged = 0
        while acknowledged < 100:
            try:
                acknowledged += topic.append(row)
            except LogFull:
                break
        assert 3 < acknowledged < 100
        assert topic.end_offsets() == [acknowledged]
        ballast.unlink()
        assert topic.append(row) == 1
        assert topic.end_offsets() == [acknowledged + 1]


def test_a_limit_on_file_size_is_a_full_disk_too(tmp_path):
    code = """
import resource, sys
from millstream.errors import LogFull
from millstream.log.record_batch import Record, encode
from millstream.log.store import Store
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
batch = memoryview(encode([Record(0, 1, None, bytes(40_000))]))
with Store(sys.argv[1]) as store:
    partition = store.create_topic("t").partitions[0]
    for count in range(10):
        try:
            partition.append(batch)
        except LogFull:
            break
    print(count, partition.flush())
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["2", "2"]


def test_what_is_published_to_a_full_disk_is_a_prefix(small_disk):
    with Log(small_disk / "log") as log:
        topic = log.create_topic("t", format="bytes")
        values = [b"%05d" % i + os.urandom(200) for i in range(8000)]
        with pytest.raises(LogFull):
            topic.publish(0, values)
        (end,) = topic.end_offsets()
        assert 0 < end < len(values)
        assert [r.value for r in topic.tail(0, len(values))] == values[:end]
