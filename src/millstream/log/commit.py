"""Group commit: one fsync acknowledges every append that was waiting for it.

While an fsync of a partition runs on a thread, further appends gather; the next fsync covers them all. So a lone
producer pays one fsync a request, and many pay one between them. Partitions sync in parallel.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from millstream.errors import LogError
from millstream.log.partition import Partition

__all__ = ["GroupCommit"]

SYNC_THREADS = 4


class GroupCommit:
    """Makes appends durable and wakes those who wait for records. Lives on one event loop."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(SYNC_THREADS, thread_name_prefix="millstream-fsync")
        self._waiting: dict[Partition, list[tuple[int, asyncio.Future[None]]]] = {}
        self._running: dict[Partition, asyncio.Task[None]] = {}
        self._watchers: dict[Partition, set[asyncio.Event]] = {}

    async def durable(self, partition: Partition) -> None:
        """Return once everything appended to `partition` so far is on disk; raises `LogError` if it can't be."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(partition, []).append((partition.end_offset, done))
        if partition not in self._running:
            self._running[partition] = asyncio.create_task(self._sync_while_waited_for(partition))
        await done

    async def _sync_while_waited_for(self, partition: Partition) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting.get(partition):
                flush = partition.begin_flush()
                try:
                    await loop.run_in_executor(self._threads, flush.sync)
                except OSError as fault:
                    self._fail(partition, partition.fail_flush(fault))
                else:
                    self._release(partition, partition.finish_flush(flush))
        finally:
            self._waiting.pop(partition, None)
            del self._running[partition]

    def _release(self, partition: Partition, high_watermark: int) -> None:
        waiting = self._waiting[partition]
        self._waiting[partition] = [(end, done) for end, done in waiting if end > high_watermark]
        for end, done in waiting:
            if end <= high_watermark and not done.done():
                done.set_result(None)
        for event in self._watchers.get(partition, ()):
            event.set()

    def _fail(self, partition: Partition, error: LogError) -> None:
        for _, done in self._waiting.pop(partition, []):
            if not done.done():
                done.set_exception(error)

    def watch(self, partitions: list[Partition], event: asyncio.Event) -> None:
        """Set `event` whenever the high watermark of one of `partitions` moves, until `unwatch`."""
        for partition in partitions:
            self._watchers.setdefault(partition, set()).add(event)

    def unwatch(self, partitions: list[Partition], event: asyncio.Event) -> None:
        for partition in partitions:
            watchers = self._watchers.get(partition, set())
            watchers.discard(event)
            if not watchers:
                self._watchers.pop(partition, None)

    async def idle(self, partitions: list[Partition]) -> None:
        """Return when no fsync of these partitions runs or waits."""
        while running := [self._running[p] for p in partitions if p in self._running]:
            await asyncio.wait(running)

    async def close(self) -> None:
        """Let running fsyncs end and stop the threads."""
        await self.idle(list(self._running))
        self._threads.shutdown()
