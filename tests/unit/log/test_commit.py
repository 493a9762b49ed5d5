"""Group commit: acknowledged means fsynced, and one fsync serves all who wait."""

import asyncio
import errno
import os
import threading

import pytest

from millstream.errors import LogError
from millstream.log.commit import GroupCommit
from millstream.log.partition import Partition
from millstream.log.record_batch import Record, encode

BATCH = memoryview(encode([Record(0, 1, None, b"a")]))


@pytest.fixture
def partition(tmp_path):
    opened = Partition(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def slow_disk(monkeypatch):
    """fdatasync waits until it is let go; `calls` counts how often it ran."""
    gate, calls = threading.Event(), []

    def sync(fd):
        calls.append(fd)
        assert gate.wait(10)

    monkeypatch.setattr(os, "fdatasync", sync)
    return gate, calls


def test_nothing_is_acknowledged_before_its_fsync(partition, slow_disk):
    gate, _ = slow_disk

    async def run():
        commits = GroupCommit()
        partition.append(BATCH)
        waiting = asyncio.create_task(commits.durable(partition))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        assert partition.high_watermark == 0
        gate.set()
        await waiting
        assert partition.high_watermark == 1
        await commits.close()

    asyncio.run(run())


def test_those_who_come_during_an_fsync_share_the_next(partition, slow_disk):
    gate, calls = slow_disk

    async def run():
        commits = GroupCommit()
        waiting = []
        for _ in range(20):
            partition.append(BATCH)
            waiting.append(asyncio.create_task(commits.durable(partition)))
            await asyncio.sleep(0.005)
        gate.set()
        await asyncio.gather(*waiting)
        assert len(calls) == 2
        assert partition.high_watermark == 20
        await commits.close()

    asyncio.run(run())


def test_a_failed_fsync_is_told_to_all_who_wait(partition, monkeypatch):
    def fail(fd):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)

    async def run():
        commits = GroupCommit()
        partition.append(BATCH)
        outcomes = await asyncio.gather(
            commits.durable(partition), commits.durable(partition), return_exceptions=True
        )
        assert all(isinstance(outcome, LogError) for outcome in outcomes)
        assert partition.high_watermark == 0
        await commits.close()

    asyncio.run(run())


def test_watchers_are_woken_by_a_moved_high_watermark(partition):
    async def run():
        commits, moved, other = GroupCommit(), asyncio.Event(), asyncio.Event()
        commits.watch([partition], moved)
        commits.watch([partition], other)
        commits.unwatch([partition], other)
        partition.append(BATCH)
        await commits.durable(partition)
        assert moved.is_set()
        assert not other.is_set()
        await commits.close()

    asyncio.run(run())
