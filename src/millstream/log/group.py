"""A consumer group of one active member: Kafka's classic protocol as a state machine without I/O.

::

                join                    sync (the leader's own assignment)
    EMPTY ------------------> JOINED ----------------------------> STABLE
      ^                          ^------------- join ----------------|
      |-- leave, or no heartbeat for the session time-out -----------|

A second consumer stands by: it is told that the coordinator is loading (14), which clients retry, until the first
leaves or its session ends. Time is passed in, in seconds of a monotonic clock.
Source: https://cwiki.apache.org/confluence/display/KAFKA/Kafka+Client-side+Assignment+Proposal
"""

from __future__ import annotations

from typing import NamedTuple

from kio.schema.errors import ErrorCode

__all__ = ["Group", "Joined"]


class Member(NamedTuple):
    id: str
    protocol: str
    metadata: bytes
    session_timeout: float


class Joined(NamedTuple):
    """The answer to JoinGroup."""

    error: ErrorCode
    member_id: str = ""
    generation: int = -1
    protocol: str = ""
    metadata: bytes = b""


class Group:
    """The membership of one group, empty after a restart: members rejoin, offsets are kept elsewhere."""

    def __init__(self) -> None:
        self.generation = 0
        self.member: Member | None = None
        self.protocol_type = ""
        self._assignment: bytes | None = None
        self._deadline = 0.0

    def join(
        self,
        member_id: str,
        protocols: list[tuple[str, bytes]],
        protocol_type: str,
        session_timeout: float,
        now: float,
    ) -> Joined:
        """`member_id` was given out by the broker; the member becomes leader of a new generation."""
        self._expire(now)
        if not protocols:
            return Joined(ErrorCode.inconsistent_group_protocol, member_id)
        if self.member is not None and self.member.id != member_id:
            return Joined(ErrorCode.coordinator_load_in_progress, member_id)
        name, metadata = protocols[0]
        self.member = Member(member_id, name, metadata, session_timeout)
        self.protocol_type = protocol_type
        self.generation += 1
        self._assignment = None
        self._deadline = now + session_timeout
        return Joined(ErrorCode.none, member_id, self.generation, name, metadata)

    def sync(
        self, member_id: str, generation: int, assignment: bytes | None, now: float
    ) -> tuple[ErrorCode, bytes]:
        """The leader hands in its own assignment and gets it back."""
        error = self.check(member_id, generation, now)
        if error is not ErrorCode.none:
            return error, b""
        if assignment is not None:
            self._assignment = assignment
        return ErrorCode.none, self._assignment or b""

    def check(self, member_id: str, generation: int, now: float) -> ErrorCode:
        """What a heartbeat or a commit of this member and generation is answered; keeps the session alive."""
        self._expire(now)
        if self.member is None or self.member.id != member_id:
            return ErrorCode.unknown_member_id
        if generation != self.generation:
            return ErrorCode.illegal_generation
        self._deadline = now + self.member.session_timeout
        return ErrorCode.none

    def leave(self, member_id: str) -> ErrorCode:
        if self.member is None or self.member.id != member_id:
            return ErrorCode.unknown_member_id
        self.member = None
        return ErrorCode.none

    def empty(self, now: float) -> bool:
        """Whether a consumer without membership may commit."""
        self._expire(now)
        return self.member is None

    def _expire(self, now: float) -> None:
        if self.member is not None and now >= self._deadline:
            self.member = None
