"""Produce, versions 3 to 8, coded by hand: batches stay views into the frame that brought them.

::

    request   transactional id nullable string | acks int16 | timeout ms int32 |
              [topic string | [partition int32, records bytes]]
    reply     [topic string | [partition int32, error int16, base offset int64, append time int64,
              from v5: log start offset int64, from v8: [record errors], error message nullable string]] |
              throttle ms int32

Source: ProduceRequest.json and ProduceResponse.json of Kafka.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from millstream.log.wire import FrameReader, Malformed, array, string

__all__ = ["Appended", "ProducePartition", "ProduceRequest", "read_produce", "write_produce"]

_RESULT = struct.Struct(">ihqq")


class ProducePartition(NamedTuple):
    topic: str
    partition: int
    records: memoryview


class ProduceRequest(NamedTuple):
    transactional_id: str | None
    acks: int
    partitions: list[ProducePartition]


class Appended(NamedTuple):
    """The answer for one partition."""

    topic: str
    partition: int
    error: int
    base_offset: int = -1
    start_offset: int = -1
    message: str | None = None


def read_produce(body: memoryview, version: int) -> ProduceRequest:
    """Raises `Malformed`. Every partition is answered on its own, so a bad batch fails alone."""
    frame = FrameReader(body)
    transactional_id, acks = frame.nullable_string(), frame.int16()
    if acks not in (-1, 0, 1):
        raise Malformed(f"acks {acks}; expected -1, 0 or 1")
    frame.int32()
    partitions = []
    for _ in range(frame.count(6)):
        topic = frame.string()
        for _ in range(frame.count(8)):
            partitions.append(ProducePartition(topic, frame.int32(), frame.view() or memoryview(b"")))
    frame.end()
    return ProduceRequest(transactional_id, acks, partitions)


def write_produce(results: list[Appended], version: int) -> bytes:
    """The reply's body; `results` of one topic stand together."""
    topics: dict[str, list[bytes]] = {}
    for result in results:
        topics.setdefault(result.topic, []).append(_write_result(result, version))
    return array([string(topic) + array(items) for topic, items in topics.items()]) + struct.pack(">i", 0)


def _write_result(result: Appended, version: int) -> bytes:
    coded = _RESULT.pack(result.partition, result.error, result.base_offset, -1)
    if version >= 5:
        coded += struct.pack(">q", result.start_offset)
    if version >= 8:
        message = struct.pack(">h", -1) if result.message is None else string(result.message)
        coded += array([]) + message
    return coded
