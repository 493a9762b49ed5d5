"""Fetch, versions 4 to 11, coded by hand: slices of segments go out as they lie on disk.

::

    request   replica int32 | max wait ms int32 | min bytes int32 | max bytes int32 | isolation int8 |
              v7: session id int32, session epoch int32 |
              [topic string | [partition int32, v9: leader epoch int32, offset int64, v5: log start int64,
              max bytes int32]] |
              v7: [forgotten topic string, [partition int32]] | v11: rack string
    reply     throttle ms int32 | v7: error int16, session id int32 |
              [topic string | [partition int32, error int16, high watermark int64, last stable offset int64,
              v5: log start int64, [aborted], v11: preferred replica int32, records bytes]]

Fetch sessions are declined by session id 0, as KIP-227 allows. Source: FetchRequest.json of Kafka.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from millstream.log.wire import FrameReader, array, string

__all__ = ["FetchPartition", "FetchRequest", "Fetched", "read_fetch", "write_fetch"]


class FetchPartition(NamedTuple):
    topic: str
    partition: int
    offset: int
    max_bytes: int


class FetchRequest(NamedTuple):
    max_wait_ms: int
    min_bytes: int
    max_bytes: int
    partitions: list[FetchPartition]


class Fetched(NamedTuple):
    """The answer for one partition."""

    topic: str
    partition: int
    error: int
    high_watermark: int = -1
    start_offset: int = -1
    records: bytes = b""


def read_fetch(body: memoryview, version: int) -> FetchRequest:
    """Raises `Malformed`."""
    frame = FrameReader(body)
    frame.int32()
    max_wait_ms, min_bytes, max_bytes = frame.int32(), frame.int32(), frame.int32()
    frame.int8()
    if version >= 7:
        frame.int32()
        frame.int32()
    partitions = []
    for _ in range(frame.count(6)):
        topic = frame.string()
        partitions += [_read_partition(frame, topic, version) for _ in range(frame.count(16))]
    if version >= 7:
        for _ in range(frame.count(6)):
            frame.string()
            for _ in range(frame.count(4)):
                frame.int32()
    if version >= 11:
        frame.string()
    frame.end()
    return FetchRequest(max_wait_ms, min_bytes, max_bytes, partitions)


def _read_partition(frame: FrameReader, topic: str, version: int) -> FetchPartition:
    partition = frame.int32()
    if version >= 9:
        frame.int32()
    offset = frame.int64()
    if version >= 5:
        frame.int64()
    return FetchPartition(topic, partition, offset, frame.int32())


def write_fetch(results: list[Fetched], version: int) -> list[bytes]:
    """The reply's body as pieces to write, so that records are copied once, by the socket."""
    topics: dict[str, list[Fetched]] = {}
    for result in results:
        topics.setdefault(result.topic, []).append(result)
    pieces = [struct.pack(">i", 0)]
    if version >= 7:
        pieces.append(struct.pack(">hi", 0, 0))
    pieces.append(struct.pack(">i", len(topics)))
    for topic, partitions in topics.items():
        pieces.append(string(topic) + struct.pack(">i", len(partitions)))
        for result in partitions:
            pieces += (_write_result(result, version), result.records)
    return pieces


def _write_result(result: Fetched, version: int) -> bytes:
    coded = struct.pack(">ihqq", result.partition, result.error, result.high_watermark, result.high_watermark)
    if version >= 5:
        coded += struct.pack(">q", result.start_offset)
    coded += array([])
    if version >= 11:
        coded += struct.pack(">i", -1)
    return coded + struct.pack(">i", len(result.records))
