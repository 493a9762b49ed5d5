"""A segment: one file of record batches, named by the offset of its first record.

The file holds whole batches back to back and nothing else. `recover` walks it from the start and checks every CRC.
After an unclean stop the last segment may end in a torn tail, which it cuts; anything else that isn't whole is
damage, which it names and leaves alone. A sparse index in memory (one entry per `INDEX_EVERY` bytes) leads to the
batch of an offset or of a timestamp; it is rebuilt from the file, so there is nothing on disk to disagree with it.
"""

from __future__ import annotations

import bisect
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from shlex import quote

from millstream.errors import CorruptBatch
from millstream.log.record_batch import HEADER_BYTES, BatchHeader, check, peek
from millstream.log.torn_tail import whole_batch_after

__all__ = ["INDEX_EVERY", "Segment", "segment_paths"]

INDEX_EVERY = 4096
_FLAGS = os.O_RDWR | os.O_CLOEXEC


def segment_paths(directory: Path) -> list[Path]:
    """The segment files of a partition's directory, by first offset."""
    return sorted(p for p in directory.glob("*.log") if p.stem.isdigit())


class Segment:
    """An open segment file.

    `size` is where the next batch goes; `next_offset` is the offset it would get. Only the partition writes.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self.path = path
        self.base_offset = int(path.stem)
        self.fd = os.open(path, _FLAGS | (os.O_CREAT | os.O_EXCL if create else 0), 0o644)
        self.size = 0
        self.next_offset = self.base_offset
        self.max_timestamp = -1
        self._offsets: list[int] = []  # sparse index: base offset,
        self._positions: list[int] = []  # position,
        self._timestamps: list[int] = []  # and the largest timestamp before that batch

    @classmethod
    def create(cls, directory: Path, base_offset: int) -> Segment:
        """A new, empty segment whose directory entry is on disk; raises OSError."""
        segment = cls(directory / f"{base_offset:020d}.log", create=True)
        sync_directory(directory)
        return segment

    @classmethod
    def recover(
        cls, path: Path, *, not_torn: str | None, found: Callable[[BatchHeader], None]
    ) -> tuple[Segment, int]:
        """Open and check every batch, `found` told of each whole one: (segment, bytes of torn tail cut off). Raises
        `CorruptBatch` for damage, which any bad batch is when `not_torn` tells why a torn tail can't be here."""
        segment = cls(path)
        length = os.fstat(segment.fd).st_size
        while segment.size < length:
            try:
                header = segment._check_batch(segment.size, length)
            except CorruptBatch as fault:
                if why := not_torn or segment._why_damaged(length):
                    segment.close()
                    raise segment._damaged(fault, why) from fault
                os.ftruncate(segment.fd, segment.size)
                break
            segment._note(header)
            found(header)
        os.fsync(segment.fd)
        return segment, length - segment.size

    def _why_damaged(self, length: int) -> str:
        """Why the bad batch at the end of what was read isn't a torn tail; empty if it may be one."""
        whole = whole_batch_after(self.fd, self.size, length, self.next_offset)
        return "" if whole is None else f"a whole batch follows at byte {whole}"

    def _damaged(self, fault: CorruptBatch, why: str) -> CorruptBatch:
        cut = f"truncate -s {self.size} {quote(str(self.path))}"
        return CorruptBatch(
            f"{self.path} is damaged at byte {self.size} ({fault}), and no crash left that: {why}; restore the file "
            f"from a copy, or give up its records from offset {self.next_offset} on: {cut}"
        )

    def _check_batch(self, position: int, length: int) -> BatchHeader:
        header = peek(os.pread(self.fd, HEADER_BYTES, position))
        if position + header.size > length:
            raise CorruptBatch(f"a batch of {header.size} bytes runs past the end of the file")
        check(memoryview(os.pread(self.fd, header.size, position)))
        if header.base_offset != self.next_offset:
            raise CorruptBatch(f"offset {header.base_offset}, expected {self.next_offset}")
        return header

    def write(self, buffers: Sequence[memoryview], header: BatchHeader) -> None:
        """Write one batch at the end. On OSError `size` stands where it stood; the file may hold a torn tail."""
        pending, position = [b for b in buffers if len(b)], self.size
        while pending:
            written = os.pwritev(self.fd, pending, position)
            position += written
            while pending and written >= len(pending[0]):
                written -= len(pending.pop(0))
            if written:
                pending[0] = pending[0][written:]
        self._note(header)

    def _note(self, header: BatchHeader) -> None:
        if not self._positions or self.size - self._positions[-1] >= INDEX_EVERY:
            self._offsets.append(header.base_offset)
            self._positions.append(self.size)
            self._timestamps.append(self.max_timestamp)
        self.size += header.size
        self.next_offset = header.next_offset
        self.max_timestamp = max(self.max_timestamp, header.max_timestamp)

    def cut(self) -> None:
        """Drop whatever the file holds past `size`; raises OSError."""
        os.ftruncate(self.fd, self.size)

    def position_of(self, offset: int) -> int:
        """Where the batch that holds `offset` starts; `size` when the offset is past the end."""
        for position, header in self._headers(bisect.bisect_right(self._offsets, offset) - 1):
            if header.next_offset > offset:
                return position
        return self.size

    def position_at_time(self, timestamp: int) -> int | None:
        """Where the first batch with a record at or after `timestamp` (milliseconds) starts, or None."""
        if self.max_timestamp < timestamp:
            return None
        for position, header in self._headers(bisect.bisect_left(self._timestamps, timestamp) - 1):
            if header.max_timestamp >= timestamp:
                return position
        return None

    def _headers(self, entry: int) -> Iterator[tuple[int, BatchHeader]]:
        position = self._positions[entry] if entry >= 0 else 0
        while position < self.size:
            header = peek(os.pread(self.fd, HEADER_BYTES, position))
            yield position, header
            position += header.size

    def read(self, position: int, count: int) -> bytes:
        """At most `count` bytes from `position`, never past `size`."""
        return os.pread(self.fd, min(count, self.size - position), position)

    def close(self) -> None:
        os.close(self.fd)


def sync_directory(directory: Path) -> None:
    """fsync a directory, so that the names in it survive a crash (KAFKA-3968)."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
