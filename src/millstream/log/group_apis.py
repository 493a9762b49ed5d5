"""FindCoordinator, group membership and committed offsets: the wire around :mod:`millstream.log.group`."""

from __future__ import annotations

import uuid
from typing import Any

from kio.schema.errors import ErrorCode

from millstream.errors import LogError
from millstream.log.apis import Codec, codec
from millstream.log.committed import OFFSETS_TOPIC, CommittedOffset
from millstream.log.group import Group, Joined
from millstream.log.node import NODE_ID, Node
from millstream.log.topic_apis import NO_THROTTLE
from millstream.log.wire import Request

__all__ = [
    "find_coordinator",
    "heartbeat",
    "join_group",
    "leave_group",
    "offset_commit",
    "offset_fetch",
    "sync_group",
]

_GROUP_KEY = 0
_MEMBER_ID_ROUND_TRIP_FROM = 4


async def find_coordinator(node: Node, request: Request) -> list[bytes]:
    """This node coordinates every group; transactions have no coordinator yet."""
    c = codec(request.api_key, request.version)
    of_group = getattr(c.read(request.body), "key_type", _GROUP_KEY) == _GROUP_KEY
    return [
        c.reply(
            throttle_time=NO_THROTTLE,
            error_code=ErrorCode.none if of_group else ErrorCode.coordinator_not_available,
            error_message=None if of_group else "no transactions on this log",
            node_id=NODE_ID if of_group else -1,
            host=node.host if of_group else "",
            port=node.port if of_group else -1,
        )
    ]


async def join_group(node: Node, request: Request) -> list[bytes]:
    c = codec(request.api_key, request.version)
    asked = c.read(request.body)
    joined = _join(node, asked, request.version)
    members: tuple[Any, ...] = ()
    if joined.error is ErrorCode.none:
        instance = getattr(asked, "group_instance_id", None)
        build = c.build
        members = (
            build(
                "JoinGroupResponseMember",
                member_id=joined.member_id,
                group_instance_id=instance,
                metadata=joined.metadata,
            ),
        )
    return [
        c.reply(
            throttle_time=NO_THROTTLE,
            error_code=joined.error,
            generation_id=joined.generation,
            protocol_type=asked.protocol_type,
            protocol_name=joined.protocol,
            leader=joined.member_id,
            member_id=joined.member_id,
            members=members,
        )
    ]


def _join(node: Node, asked: Any, version: int) -> Joined:
    if not asked.group_id:
        return Joined(ErrorCode.invalid_group_id)
    group = node.groups.get(asked.group_id)
    if group is None:
        if len(node.groups) >= node.limits.groups:
            return Joined(ErrorCode.coordinator_not_available)
        group = node.groups[asked.group_id] = Group()
    member_id = asked.member_id
    if not member_id:
        member_id = uuid.uuid4().hex
        if version >= _MEMBER_ID_ROUND_TRIP_FROM:
            return Joined(ErrorCode.member_id_required, member_id)
    protocols = [(p.name, bytes(p.metadata)) for p in asked.protocols]
    session = asked.session_timeout.total_seconds()
    return group.join(member_id, protocols, asked.protocol_type, session, node.clock.monotonic())


async def sync_group(node: Node, request: Request) -> list[bytes]:
    c = codec(request.api_key, request.version)
    asked = c.read(request.body)
    group = node.groups.get(asked.group_id) or Group()
    own = next((bytes(a.assignment) for a in asked.assignments if a.member_id == asked.member_id), None)
    error, assignment = group.sync(asked.member_id, asked.generation_id, own, node.clock.monotonic())
    protocol = group.member.protocol if group.member else ""
    return [
        c.reply(
            throttle_time=NO_THROTTLE,
            error_code=error,
            protocol_type=group.protocol_type,
            protocol_name=protocol,
            assignment=assignment,
        )
    ]


async def heartbeat(node: Node, request: Request) -> list[bytes]:
    c = codec(request.api_key, request.version)
    asked = c.read(request.body)
    group = node.groups.get(asked.group_id) or Group()
    error = group.check(asked.member_id, asked.generation_id, node.clock.monotonic())
    return [c.reply(throttle_time=NO_THROTTLE, error_code=error)]


async def leave_group(node: Node, request: Request) -> list[bytes]:
    c = codec(request.api_key, request.version)
    asked = c.read(request.body)
    group = node.groups.get(asked.group_id) or Group()
    if hasattr(asked, "members"):
        members = tuple(
            c.build(
                "MemberResponse",
                member_id=m.member_id,
                group_instance_id=m.group_instance_id,
                error_code=group.leave(m.member_id),
            )
            for m in asked.members
        )
        return [c.reply(throttle_time=NO_THROTTLE, error_code=ErrorCode.none, members=members)]
    return [c.reply(throttle_time=NO_THROTTLE, error_code=group.leave(asked.member_id))]


async def offset_commit(node: Node, request: Request) -> list[bytes]:
    """Append the commits to the internal topic; they count and are answered after its fsync."""
    c = codec(request.api_key, request.version)
    asked = c.read(request.body)
    error = _may_commit(node, asked)
    commits, unknown = {}, set()
    for topic in asked.topics:
        for partition in topic.partitions:
            at = (str(topic.name), int(partition.partition_index))
            if node.partition(*at) is None:
                unknown.add(at)
                continue
            epoch = getattr(partition, "committed_leader_epoch", -1)
            metadata = partition.committed_metadata or ""
            commits[at] = CommittedOffset(int(partition.committed_offset), int(epoch), metadata)
    if error is ErrorCode.none and commits:
        error = await _commit(node, asked.group_id, commits)
    return [_commit_reply(c, asked, error, unknown)]


def _may_commit(node: Node, asked: Any) -> ErrorCode:
    group, now = node.groups.get(asked.group_id), node.clock.monotonic()
    generation = asked.generation_id_or_member_epoch
    if generation < 0 and not asked.member_id:
        return ErrorCode.none if group is None or group.empty(now) else ErrorCode.unknown_member_id
    return (group or Group()).check(asked.member_id, generation, now)


async def _commit(node: Node, group: str, commits: dict[tuple[str, int], CommittedOffset]) -> ErrorCode:
    try:
        if OFFSETS_TOPIC not in node.store.topics:
            node.store.create_topic(OFFSETS_TOPIC)
        partition = node.store.topics[OFFSETS_TOPIC].partitions[0]
        partition.append(memoryview(node.offsets.batch(group, commits, node.now_ms())))
        await node.commits.durable(partition)
    except LogError:
        return ErrorCode.coordinator_not_available
    node.offsets.commit(group, commits)
    return ErrorCode.none


def _commit_reply(c: Codec, asked: Any, error: ErrorCode, unknown: set[tuple[str, int]]) -> bytes:
    def outcome(at: tuple[str, int]) -> ErrorCode:
        return ErrorCode.unknown_topic_or_partition if at in unknown and error is ErrorCode.none else error

    topics = tuple(
        c.build(
            "OffsetCommitResponseTopic",
            name=topic.name,
            partitions=tuple(
                c.build(
                    "OffsetCommitResponsePartition",
                    partition_index=p.partition_index,
                    error_code=outcome((topic.name, p.partition_index)),
                )
                for p in topic.partitions
            ),
        )
        for topic in asked.topics
    )
    return c.reply(throttle_time=NO_THROTTLE, topics=topics)


async def offset_fetch(node: Node, request: Request) -> list[bytes]:
    """Committed offsets, -1 where there is none; every one of the group for a null topic list."""
    c = codec(request.api_key, request.version)
    asked = c.read(request.body)
    committed = node.offsets.of(asked.group_id)
    wanted: dict[str, list[int]] = {}
    if asked.topics is None:
        for topic, partition in committed:
            wanted.setdefault(topic, []).append(partition)
    else:
        for item in asked.topics:
            wanted.setdefault(item.name, []).extend(item.partition_indexes)
    nothing = CommittedOffset(-1, -1, "")
    topics = tuple(
        c.build(
            "OffsetFetchResponseTopic",
            name=topic,
            partitions=tuple(
                _fetched(c, partition, committed.get((topic, partition), nothing)) for partition in partitions
            ),
        )
        for topic, partitions in wanted.items()
    )
    return [c.reply(throttle_time=NO_THROTTLE, topics=topics, error_code=ErrorCode.none)]


def _fetched(c: Codec, partition: int, commit: CommittedOffset) -> Any:
    return c.build(
        "OffsetFetchResponsePartition",
        partition_index=partition,
        committed_offset=commit.offset,
        committed_leader_epoch=commit.leader_epoch,
        metadata=commit.metadata,
        error_code=ErrorCode.none,
    )
