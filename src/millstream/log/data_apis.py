"""Produce and Fetch: what they do to the partitions; and InitProducerId, which an idempotent producer begins with."""

from __future__ import annotations

import asyncio
import contextlib
import secrets

from kio.schema.errors import ErrorCode

from millstream.errors import CorruptBatch, InputError, LogError
from millstream.log.apis import codec, storage_error
from millstream.log.committed import OFFSETS_TOPIC
from millstream.log.fetch import Fetched, FetchPartition, FetchRequest, read_fetch, write_fetch
from millstream.log.idempotence import FencedProducer, OutOfSequence
from millstream.log.node import Node
from millstream.log.partition import Partition
from millstream.log.produce import Appended, ProducePartition, read_produce, write_produce
from millstream.log.topic_apis import NO_THROTTLE
from millstream.log.wire import Request

__all__ = ["fetch", "init_producer_id", "produce"]

_PRODUCER_ID_BITS = 62


async def init_producer_id(node: Node, request: Request) -> list[bytes]:
    """A fresh id at epoch 0. Ids are drawn at random from so many that none comes twice, over restarts too, and
    nothing has to be kept of those that never write. Transactions are refused."""
    c = codec(request.api_key, request.version)
    if c.read(request.body).transactional_id is not None:
        error = ErrorCode.transactional_id_authorization_failed
        return [c.reply(throttle_time=NO_THROTTLE, error_code=error, producer_id=-1, producer_epoch=-1)]
    drawn = secrets.randbits(_PRODUCER_ID_BITS)
    return [
        c.reply(throttle_time=NO_THROTTLE, error_code=ErrorCode.none, producer_id=drawn, producer_epoch=0)
    ]


async def produce(node: Node, request: Request) -> list[bytes] | None:
    """Append every batch, then answer after the fsync that covers them; nothing is answered to acks=0."""
    asked = read_produce(request.body, request.version)
    appended = [_append(node, item, asked.transactional_id) for item in asked.partitions]
    results = [await _acknowledge(node, result, partition) for result, partition in appended]
    return [write_produce(results, request.version)] if asked.acks else None


def _append(
    node: Node, item: ProducePartition, transactional_id: str | None
) -> tuple[Appended, Partition | None]:
    def refused(error: ErrorCode, why: str) -> tuple[Appended, None]:
        return Appended(item.topic, item.partition, int(error), message=why), None

    partition = node.partition(item.topic, item.partition)
    if partition is None:
        return refused(
            ErrorCode.unknown_topic_or_partition, f"no partition {item.partition} of {item.topic!r}"
        )
    if item.topic == OFFSETS_TOPIC or transactional_id is not None:
        return refused(
            ErrorCode.invalid_topic_exception, "internal topics and transactions are not for producers"
        )
    if len(item.records) > node.limits.batch_bytes:
        return refused(ErrorCode.message_too_large, f"at most {node.limits.batch_bytes} bytes a batch")
    try:
        base = partition.append(item.records)
    except CorruptBatch as fault:
        return refused(ErrorCode.corrupt_message, str(fault))
    except InputError as fault:
        return refused(ErrorCode.invalid_record, str(fault))
    except OutOfSequence as fault:
        return refused(ErrorCode.out_of_order_sequence_number, str(fault))
    except FencedProducer as fault:
        return refused(ErrorCode.invalid_producer_epoch, str(fault))
    except LogError as fault:
        return refused(storage_error(fault), str(fault))
    return Appended(item.topic, item.partition, 0, base, partition.start_offset), partition


async def _acknowledge(node: Node, result: Appended, partition: Partition | None) -> Appended:
    if partition is None:
        return result
    try:
        await node.commits.durable(partition)
    except LogError as fault:
        return Appended(result.topic, result.partition, int(storage_error(fault)), message=str(fault))
    return result


async def fetch(node: Node, request: Request) -> list[bytes]:
    """Answer with at least `min_bytes`, or what is there after `max_wait`; an error answers at once."""
    asked = read_fetch(request.body, request.version)
    loop = asyncio.get_running_loop()
    wait = min(max(asked.max_wait_ms, 0) / 1000, node.limits.long_poll.total_seconds())
    deadline = loop.time() + wait
    watched = [p for p in (node.partition(i.topic, i.partition) for i in asked.partitions) if p is not None]
    moved = asyncio.Event()
    node.commits.watch(watched, moved)
    try:
        while True:
            results = _read_all(node, asked)
            enough = sum(len(r.records) for r in results) >= asked.min_bytes or any(r.error for r in results)
            if enough or (left := deadline - loop.time()) <= 0:
                return write_fetch(results, request.version)
            moved.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await moved.wait()
    finally:
        node.commits.unwatch(watched, moved)


def _read_all(node: Node, asked: FetchRequest) -> list[Fetched]:
    room = min(max(asked.max_bytes, 0), node.limits.fetch_bytes)
    results: list[Fetched] = []
    for item in asked.partitions:
        result = _read_one(node, item, room, whole_first=not any(r.records for r in results))
        room -= len(result.records)
        results.append(result)
    return results


def _read_one(node: Node, item: FetchPartition, room: int, *, whole_first: bool) -> Fetched:
    """A batch larger than every limit is still sent when nothing stands before it, so that clients get on."""
    partition = node.partition(item.topic, item.partition)
    if partition is None:
        return Fetched(item.topic, item.partition, int(ErrorCode.unknown_topic_or_partition))
    limit = min(item.max_bytes, room)
    try:
        records = partition.read(item.offset, max(limit, 0)) if limit > 0 or whole_first else b""
    except IndexError:
        error = int(ErrorCode.offset_out_of_range)
        return Fetched(item.topic, item.partition, error, partition.high_watermark, partition.start_offset)
    if len(records) > limit and not whole_first:
        records = b""
    return Fetched(item.topic, item.partition, 0, partition.high_watermark, partition.start_offset, records)
