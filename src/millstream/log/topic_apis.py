"""Metadata, CreateTopics, DeleteTopics and ListOffsets."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from kio.schema.errors import ErrorCode

from millstream.errors import InputError, LogError, TopicExists
from millstream.log.apis import Codec, codec, storage_error
from millstream.log.committed import OFFSETS_TOPIC
from millstream.log.node import NODE_ID, Node
from millstream.log.partition import TimedOffset
from millstream.log.store import MAX_PARTITIONS, TopicFiles
from millstream.log.topic_name import check_topic_name
from millstream.log.wire import Malformed, Request

__all__ = ["create_topics", "delete_topics", "list_offsets", "metadata"]

NO_THROTTLE = timedelta(0)
_BY_ID_FROM = 12  # versions 10 and 11 have the field, but no way to answer it
EARLIEST, LATEST = -2, -1


async def metadata(node: Node, request: Request) -> list[bytes]:
    """Brokers and topics; all topics for a null list (an empty one in version 0)."""
    c = codec(request.api_key, request.version)
    asked = c.read(request.body)
    may_create = node.auto_create is not None and getattr(asked, "allow_auto_topic_creation", True)
    if request.version < _BY_ID_FROM and any(topic.name is None for topic in asked.topics or ()):
        raise Malformed(
            f"Metadata version {request.version} asks by id; topics have ids from {_BY_ID_FROM} on"
        )
    if asked.topics is None or (request.version == 0 and not asked.topics):
        topics = [_describe(c, node, topic) for topic in node.store.topics.values()]
    else:
        topics = [_described(c, node, topic, may_create) for topic in asked.topics]
    broker = c.build("MetadataResponseBroker", node_id=NODE_ID, host=node.host, port=node.port, rack=None)
    return [
        c.reply(
            throttle_time=NO_THROTTLE,
            brokers=(broker,),
            cluster_id=node.store.id,
            controller_id=NODE_ID,
            topics=tuple(topics),
        )
    ]


def _described(c: Codec, node: Node, asked: Any, may_create: bool) -> Any:
    name = asked.name
    if name is None:  # by id
        found = next((t for t in node.store.topics.values() if t.id == asked.topic_id), None)
        if found is not None:
            return _describe(c, node, found)
        return _unknown(c, None, ErrorCode.unknown_topic_id, asked.topic_id)
    if name in node.store.topics:
        return _describe(c, node, node.store.topics[name])
    try:
        check_topic_name(name)
    except InputError:
        return _unknown(c, name, ErrorCode.invalid_topic_exception)
    if not may_create or node.auto_create is None:
        return _unknown(c, name, ErrorCode.unknown_topic_or_partition)
    try:
        return _describe(c, node, node.store.create_topic(name, node.auto_create))
    except LogError as fault:
        return _unknown(c, name, storage_error(fault))


def _unknown(c: Codec, name: str | None, error: ErrorCode, topic_id: Any = None) -> Any:
    return c.build("MetadataResponseTopic", error_code=error, name=name, topic_id=topic_id, partitions=())


def _describe(c: Codec, node: Node, topic: TopicFiles) -> Any:
    partitions = tuple(
        c.build(
            "MetadataResponsePartition",
            error_code=ErrorCode.none,
            partition_index=number,
            leader_id=NODE_ID,
            leader_epoch=node.store.leader_epoch,
            replica_nodes=(NODE_ID,),
            isr_nodes=(NODE_ID,),
        )
        for number in range(len(topic.partitions))
    )
    return c.build(
        "MetadataResponseTopic",
        error_code=ErrorCode.none,
        name=topic.name,
        topic_id=topic.id,
        is_internal=topic.name == OFFSETS_TOPIC,
        partitions=partitions,
    )


async def create_topics(node: Node, request: Request) -> list[bytes]:
    """Each topic on its own; configurations are accepted when empty and refused otherwise."""
    c = codec(request.api_key, request.version)
    asked = c.read(request.body)
    results = []
    for topic in asked.topics:
        error, message = _create(node, topic, asked.validate_only)
        partitions = len(node.store.topics[topic.name].partitions) if topic.name in node.store.topics else -1
        results.append(
            c.build(
                "CreatableTopicResult",
                name=topic.name,
                error_code=error,
                error_message=message,
                num_partitions=partitions,
                replication_factor=1,
                configs=(),
            )
        )
    return [c.reply(throttle_time=NO_THROTTLE, topics=tuple(results))]


def _create(node: Node, topic: Any, validate_only: bool) -> tuple[ErrorCode, str | None]:
    partitions = 1 if topic.num_partitions == -1 else topic.num_partitions
    if topic.replication_factor not in (-1, 1):
        return ErrorCode.invalid_replication_factor, "one node: expected replication factor 1 or -1"
    if not 1 <= partitions <= MAX_PARTITIONS:
        return ErrorCode.invalid_partitions, f"{partitions} partitions; expected 1 to {MAX_PARTITIONS}"
    if topic.assignments:
        return ErrorCode.invalid_replica_assignment, "one node: leave the assignment empty"
    if topic.configs:
        names = ", ".join(sorted(config.name for config in topic.configs))
        return ErrorCode.invalid_config, f"topic configuration is not supported; leave out {names}"
    if topic.name == OFFSETS_TOPIC:
        return ErrorCode.invalid_topic_exception, f"{OFFSETS_TOPIC} is the broker's own"
    try:
        if validate_only:
            check_topic_name(topic.name)
        else:
            node.store.create_topic(topic.name, partitions)
    except InputError as fault:
        return ErrorCode.invalid_topic_exception, str(fault)
    except TopicExists as fault:
        return ErrorCode.topic_already_exists, str(fault)
    except LogError as fault:
        return storage_error(fault), str(fault)
    return ErrorCode.none, None


async def delete_topics(node: Node, request: Request) -> list[bytes]:
    """Each topic on its own, after the fsyncs that run on it."""
    c = codec(request.api_key, request.version)
    results = []
    for name in c.read(request.body).topic_names:
        error = ErrorCode.none
        if name not in node.store.topics or name == OFFSETS_TOPIC:
            error = ErrorCode.unknown_topic_or_partition
        else:
            await node.commits.idle(node.store.topics[name].partitions)
            if name in node.store.topics:
                node.store.delete_topic(name)
        results.append(c.build("DeletableTopicResult", name=name, error_code=error, error_message=None))
    return [c.reply(throttle_time=NO_THROTTLE, responses=tuple(results))]


async def list_offsets(node: Node, request: Request) -> list[bytes]:
    """The earliest (-2) or latest (-1) offset, or the first at or after
    a time in milliseconds."""
    c = codec(request.api_key, request.version)
    topics = []
    for topic in c.read(request.body).topics:
        partitions = tuple(_list_offset(c, node, topic.name, asked) for asked in topic.partitions)
        topics.append(c.build("ListOffsetsTopicResponse", name=topic.name, partitions=partitions))
    return [c.reply(throttle_time=NO_THROTTLE, topics=tuple(topics))]


def _list_offset(c: Codec, node: Node, topic: str, asked: Any) -> Any:
    partition = node.partition(topic, asked.partition_index)
    found, error = TimedOffset(-1, -1), ErrorCode.none
    if partition is None:
        error = ErrorCode.unknown_topic_or_partition
    elif asked.timestamp == EARLIEST:
        found = TimedOffset(partition.start_offset, -1)
    elif asked.timestamp == LATEST:
        found = TimedOffset(partition.high_watermark, -1)
    elif asked.timestamp >= 0:
        found = partition.offset_at_time(asked.timestamp)
    else:
        error = ErrorCode.unsupported_for_message_format
    return c.build(
        "ListOffsetsPartitionResponse",
        partition_index=asked.partition_index,
        error_code=error,
        timestamp=found.timestamp,
        offset=found.offset,
        leader_epoch=node.store.leader_epoch,
    )
