"""Committed offsets of consumer groups: records of the internal topic ``__consumer_offsets``, so that there is one
way to recover.

::

    key     version int16 = 1 | group string | topic string | partition int32
    value   version int16 = 3 | offset int64 | leader epoch int32 | metadata string | commit time ms int64

These are Kafka's own forms (OffsetCommitKey.json, OffsetCommitValue.json); the last record of a key counts.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from millstream.errors import CorruptBatch
from millstream.log.partition import Partition
from millstream.log.record_batch import Record, decode, encode
from millstream.log.wire import FrameReader, Malformed, string

__all__ = ["OFFSETS_TOPIC", "CommittedOffset", "CommittedOffsets"]

OFFSETS_TOPIC = "__consumer_offsets"


class CommittedOffset(NamedTuple):
    offset: int
    leader_epoch: int
    metadata: str


class CommittedOffsets:
    """What each group has committed, by topic and partition."""

    def __init__(self) -> None:
        self._groups: dict[str, dict[tuple[str, int], CommittedOffset]] = {}

    def replay(self, partition: Partition) -> None:
        """Read the internal topic from its start."""
        for batch in partition.batches():
            for record in decode(batch):
                self._apply(record)

    def _apply(self, record: Record) -> None:
        try:
            group, topic, partition = _read_key(record.key or b"")
            if record.value is None:
                self._groups.get(group, {}).pop((topic, partition), None)
                return
            self._groups.setdefault(group, {})[topic, partition] = _read_value(record.value)
        except Malformed as fault:
            raise CorruptBatch(f"{OFFSETS_TOPIC} at offset {record.offset}: {fault}") from fault

    def batch(self, group: str, commits: dict[tuple[str, int], CommittedOffset], now: int) -> bytes:
        """The commits as a record batch to append; they count once `commit` is called, after the fsync."""
        return encode(
            [Record(0, now, _key(group, *at), _value(commit, now)) for at, commit in commits.items()]
        )

    def commit(self, group: str, commits: dict[tuple[str, int], CommittedOffset]) -> None:
        self._groups.setdefault(group, {}).update(commits)

    def of(self, group: str) -> dict[tuple[str, int], CommittedOffset]:
        return self._groups.get(group, {})


def _key(group: str, topic: str, partition: int) -> bytes:
    return struct.pack(">h", 1) + string(group) + string(topic) + struct.pack(">i", partition)


def _read_key(key: bytes) -> tuple[str, str, int]:
    frame = FrameReader(memoryview(key))
    frame.int16()
    return frame.string(), frame.string(), frame.int32()


def _value(commit: CommittedOffset, now: int) -> bytes:
    fixed = struct.pack(">hqi", 3, commit.offset, commit.leader_epoch)
    return fixed + string(commit.metadata) + struct.pack(">q", now)


def _read_value(value: bytes) -> CommittedOffset:
    frame = FrameReader(memoryview(value))
    frame.int16()
    return CommittedOffset(frame.int64(), frame.int32(), frame.string())
