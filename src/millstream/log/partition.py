"""A partition: an ordered, durable sequence of record batches in segment files.

What it promises:

- `append` gives consecutive offsets and makes nothing visible. `flush` (or the three steps it is made of, for a
  group commit on another thread) moves the **high watermark** to what an fsync has covered; readers never pass it.
- A failed append leaves nothing: the file is cut back to its last good end. When that isn't possible, or when an
  fsync failed or a file was removed under it, the partition goes read-only until it is opened again, because after a
  failed fsync the kernel may have dropped the pages it could not write.
- Opening after an unclean stop cuts a torn tail off the last segment. Any other damage is a `CorruptBatch` that
  leaves the files alone.

Not thread-safe: one thread appends and reads; only `Flush.sync` may run on another.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from millstream.errors import CorruptBatch, InputError, LogError, LogFull
from millstream.log.idempotence import Producers
from millstream.log.record_batch import CONTROL, TRANSACTIONAL, BatchHeader, check, decode, peek, placed, walk
from millstream.log.segment import Segment, segment_paths

__all__ = ["NO_ROOM", "SEGMENT_BYTES", "Flush", "Partition", "TimedOffset"]

SEGMENT_BYTES = 256 << 20
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class TimedOffset(NamedTuple):
    """An offset and the timestamp of its record, in milliseconds; (-1, -1) is none."""

    offset: int
    timestamp: int


class Flush(NamedTuple):
    """What one fsync will cover: these segments, up to this offset and this end of the last segment."""

    segments: tuple[Segment, ...]
    offset: int

    def sync(self) -> None:
        """fdatasync every segment; raises OSError, of a file that has no name left too. May run on another thread."""
        for segment in self.segments:
            os.fdatasync(segment.fd)
            if not os.fstat(segment.fd).st_nlink:
                raise FileNotFoundError(errno.ENOENT, f"{segment.path} was removed")


class Partition:
    """An open partition, see the module. `cut_bytes` says how much torn tail opening removed; after a `clean` stop
    there is none to remove."""

    def __init__(
        self,
        directory: Path,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        leader_epoch: int = 0,
        clean: bool = False,
    ) -> None:
        self.directory = directory
        self.leader_epoch = leader_epoch
        self.segment_bytes = segment_bytes
        self.cut_bytes = 0
        self.broken: str | None = None  # why the partition is read-only
        self._sync_failed = False
        self._producers = Producers()
        self._segments = self._open(clean)
        self._unsynced: list[Segment] = []
        self.high_watermark = self.end_offset

    def _open(self, clean: bool) -> list[Segment]:
        paths = segment_paths(self.directory)
        if not paths:
            return [Segment.create(self.directory, 0)]
        segments: list[Segment] = []
        for path in paths:
            not_torn = "the log was stopped cleanly" if clean else None
            if path is not paths[-1]:
                not_torn = "later segments follow, which must then be moved away too"
            segment, cut = Segment.recover(path, not_torn=not_torn, found=self._producers.note)
            self.cut_bytes += cut
            if segments and segments[-1].next_offset != segment.base_offset:
                raise CorruptBatch(
                    f"{self.directory}: segment {path.name} follows offset {segments[-1].next_offset}; restore the "
                    "missing records from a copy, or move this and later segment files away"
                )
            segments.append(segment)
        return segments

    @property
    def start_offset(self) -> int:
        return self._segments[0].base_offset

    @property
    def end_offset(self) -> int:
        """The offset the next record gets; at or past the high watermark."""
        return self._segments[-1].next_offset

    def append(self, batch: memoryview) -> int:
        """Append one batch and return the offset of its first record; not durable before the next flush. A batch that
        an idempotent producer sends again isn't kept again: its offset is where it stands.

        Raises `CorruptBatch` (bad CRC or form), `InputError` (transactional), `LogFull` (no room; nothing changed, try
        again when there is), `OutOfSequence` and `FencedProducer`, and `LogError` when the partition is read-only.
        """
        header = check(batch)
        if header.n_records < 1 or header.last_offset_delta != header.n_records - 1:
            raise CorruptBatch(f"{header.n_records} records up to offset delta {header.last_offset_delta}")
        if header.attributes & (TRANSACTIONAL | CONTROL):
            raise InputError(f"attributes {header.attributes:#x}: this log takes no transactional batches")
        if self.broken:
            raise LogError(f"{self.directory} is read-only: {self.broken}; open the log again")
        stands = self._producers.duplicate_of(header)
        if stands is not None:
            return stands
        base = self.end_offset
        header = header._replace(base_offset=base)
        try:
            self._write(placed(batch, base, self.leader_epoch), header)
        except OSError as fault:
            raise self._undo(fault) from fault
        self._producers.note(header)
        return base

    def _write(self, buffers: list[memoryview], header: BatchHeader) -> None:
        active = self._segments[-1]
        if active.size and active.size + header.size > self.segment_bytes:
            active = Segment.create(self.directory, header.base_offset)
            self._segments.append(active)
        active.write(buffers, header)
        if active not in self._unsynced:
            self._unsynced.append(active)

    def _undo(self, fault: OSError) -> LogError:
        try:
            self._segments[-1].cut()
        except OSError as second:
            self.broken = f"an append failed ({fault.strerror}) and so did cutting it off ({second.strerror})"
        if fault.errno in NO_ROOM:
            return LogFull(
                f"no room for a batch in {self.directory}: {fault.strerror}; free space and append again, "
                "nothing of it was kept"
            )
        return LogError(f"append to {self.directory} failed: {fault.strerror}; nothing of it was kept")

    def flush(self) -> int:
        """Make everything appended durable and visible; returns the high watermark. Raises `LogError`."""
        flush = self.begin_flush()
        try:
            flush.sync()
        except OSError as fault:
            raise self.fail_flush(fault) from fault
        return self.finish_flush(flush)

    def begin_flush(self) -> Flush:
        """Take what an fsync must cover; appends may go on meanwhile."""
        segments, self._unsynced = tuple(self._unsynced), []
        return Flush(segments, self.end_offset)

    def finish_flush(self, flush: Flush) -> int:
        """The fsync succeeded: move the high watermark."""
        if not self._sync_failed:
            self.high_watermark = max(self.high_watermark, flush.offset)
        return self.high_watermark

    def fail_flush(self, fault: OSError) -> LogError:
        """The fsync failed: read-only from here, and what it did not cover stays invisible."""
        self._sync_failed = True
        self.broken = f"fsync failed ({fault.strerror}), so the last records may be lost"
        return LogError(f"{self.directory} is read-only: {self.broken}; open the log again")

    def read(self, offset: int, max_bytes: int) -> bytes:
        """Whole batches from the one that holds `offset`, below the high watermark: at most `max_bytes`, but the
        first batch always whole. Empty at the high watermark; `IndexError` for an offset outside the log."""
        if not self.start_offset <= offset <= self.end_offset:
            raise IndexError(
                f"offset {offset}: {self.directory} holds {self.start_offset} to {self.high_watermark}"
            )
        if offset >= self.high_watermark:
            return b""
        segment = self._segment_of(offset)
        position = segment.position_of(offset)
        data = segment.read(position, max(max_bytes, 4096))
        first = peek(data).size
        if first > len(data):
            data = segment.read(position, first)
        return data[: self._visible(memoryview(data), max(max_bytes, first))]

    def _visible(self, data: memoryview, limit: int) -> int:
        end = 0
        for position, header in walk(data):
            if position + header.size > limit or header.next_offset > self.high_watermark:
                break
            end = position + header.size
        return end

    def _segment_of(self, offset: int) -> Segment:
        return next(s for s in reversed(self._segments) if s.base_offset <= offset)

    def batches(self, start: int = 0) -> Iterator[memoryview]:
        """Every visible batch from the one that holds `start`."""
        offset = max(start, self.start_offset)
        while data := self.read(offset, 1 << 20):
            view = memoryview(data)
            for position, header in walk(view):
                yield view[position : position + header.size]
                offset = header.next_offset

    def offset_at_time(self, timestamp: int) -> TimedOffset:
        """The first visible record at or after `timestamp` (milliseconds), or (-1, -1)."""
        for segment in self._segments:
            position = segment.position_at_time(timestamp)
            if position is None:
                continue
            for batch in self.batches(peek(segment.read(position, 4096)).base_offset):
                if peek(batch).max_timestamp < timestamp:
                    continue
                for record in decode(batch):
                    if record.timestamp >= timestamp:
                        return TimedOffset(record.offset, record.timestamp)
        return TimedOffset(-1, -1)

    def close(self) -> None:
        """Close the files; what was not flushed may be lost."""
        for segment in self._segments:
            segment.close()
