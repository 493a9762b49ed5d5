"""The one node of the embedded cluster: what the APIs act upon. It holds state and no sockets."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from millstream.clock import Clock
from millstream.errors import UnknownTopic
from millstream.log.commit import GroupCommit
from millstream.log.committed import OFFSETS_TOPIC, CommittedOffsets
from millstream.log.group import Group
from millstream.log.partition import Partition
from millstream.log.store import Store

__all__ = ["NODE_ID", "Limits", "Node"]

NODE_ID = 0


@dataclass(frozen=True)
class Limits:
    """What a stranger may ask of the broker."""

    connections: int = 1024
    request_bytes: int = 64 << 20
    batch_bytes: int = 16 << 20
    fetch_bytes: int = 64 << 20
    pipelined_requests: int = 8
    groups: int = 10_000
    long_poll: timedelta = timedelta(seconds=60)
    frame_time: timedelta = timedelta(seconds=60)
    idle_time: timedelta = timedelta(minutes=20)


@dataclass
class Node:
    """State of a running broker.

    `auto_create` is the number of partitions that a topic gets when a client's Metadata request names it and allows
    its creation; None, the default, creates nothing that was not asked for.
    """

    store: Store
    host: str
    port: int
    clock: Clock
    limits: Limits = field(default_factory=Limits)
    auto_create: int | None = None
    commits: GroupCommit = field(default_factory=GroupCommit)
    offsets: CommittedOffsets = field(default_factory=CommittedOffsets)
    groups: dict[str, Group] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if OFFSETS_TOPIC in self.store.topics:
            self.offsets.replay(self.store.topics[OFFSETS_TOPIC].partitions[0])

    def partition(self, topic: str, number: int) -> Partition | None:
        """The open partition, or None when there is no such topic or number."""
        try:
            partitions = self.store.topic(topic).partitions
        except UnknownTopic:
            return None
        return partitions[number] if 0 <= number < len(partitions) else None

    def now_ms(self) -> int:
        return self.clock.now() // 1000
