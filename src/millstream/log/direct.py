"""One record batch straight to the embedded broker: the whole batch, once, with its own answer.

librdkafka decides itself where a batch ends, so a failure between two batches of one call could leave a gap. The
embedded log has one node and no redirects; a batch built and sent by hand is kept whole or not at all.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence

from kio.schema.errors import ErrorCode

from millstream.errors import BrokerUnavailable, LogError, LogFull, UnknownTopic
from millstream.log.record_batch import Record, encode
from millstream.log.wire import FrameReader, Malformed, array, string

__all__ = ["send_batch"]

ANSWER_SECONDS = 30.0
_VERSION = 8  # the first whose answer says why
_CORRELATION = 1
_ERRORS = {ErrorCode.kafka_storage_error: LogFull, ErrorCode.unknown_topic_or_partition: UnknownTopic}


def send_batch(bootstrap: str, topic: str, partition: int, records: Sequence[Record]) -> int:
    """Append `records` as one batch to the broker at `bootstrap`; returns the first offset once it is durable.

    Raises `LogFull`, `UnknownTopic` or `LogError` when nothing of it was kept, and `BrokerUnavailable` when no answer
    came within `ANSWER_SECONDS`: then it is there as a whole or not at all.
    """
    host, _, port = bootstrap.rpartition(":")
    batch = encode(records)
    data = struct.pack(">ii", partition, len(batch)) + batch
    body = struct.pack(">hhi", -1, -1, int(ANSWER_SECONDS * 1000)) + array([string(topic) + array([data])])
    request = struct.pack(">hhi", 0, _VERSION, _CORRELATION) + string("millstream") + body
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            reply = _receive(connection)
        return _base_offset(reply, topic)
    except (OSError, EOFError, Malformed) as fault:
        raise BrokerUnavailable(
            f"writing {topic!r}: no answer from the broker at {bootstrap} ({fault})"
        ) from fault


def _receive(connection: socket.socket) -> memoryview:
    deadline = time.monotonic() + ANSWER_SECONDS
    received = bytearray()
    wanted = 4
    while len(received) < wanted:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        more = connection.recv(wanted - len(received))
        if not more:
            raise EOFError("it hung up")
        received += more
        if wanted == len(received) == 4:
            wanted += int.from_bytes(received, "big")
    return memoryview(bytes(received[4:]))


def _base_offset(reply: memoryview, topic: str) -> int:
    frame = FrameReader(reply)
    frame.int32()  # correlation id: the connection carried one request
    frame.count(6)
    frame.string()
    frame.count(22)
    partition, error, base_offset = frame.int32(), ErrorCode(frame.int16()), frame.int64()
    frame.int64()  # append time
    frame.int64()  # log start offset
    frame.count(6)  # errors by record, of which our broker has none
    why = frame.nullable_string() or error.name
    if error is not ErrorCode.none:
        raise _ERRORS.get(error, LogError)(
            f"writing {topic!r} partition {partition}: {why}; nothing was kept"
        )
    return base_offset
