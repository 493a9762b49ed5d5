"""Reading a topic live: chunks of records from given positions, through confluent-kafka.

There is no consumer group: the caller keeps the positions, and so owns what has been read.
"""

from __future__ import annotations

import time
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from confluent_kafka import Consumer as KafkaConsumer, KafkaError, Message, TopicPartition

from millstream.errors import LogError
from millstream.log.client import as_log_error, settings, translated
from millstream.log.unreadable import named

if TYPE_CHECKING:
    from millstream.log.topic import Topic

__all__ = ["Chunk", "Consumer", "TailRecord"]

_LINGER_MS = 500


class Chunk(NamedTuple):
    """Consecutive records of one partition.

    `offsets` and `timestamps` (microseconds since 1970 UTC): (n,) int64; `keys`, `values`: n bytes or None; `batch`:
    the n decoded rows, in the topic's schema.
    """

    partition: int
    offsets: npt.NDArray[np.int64]
    timestamps: npt.NDArray[np.int64]
    keys: list[bytes | None]
    values: list[bytes | None]
    batch: pa.RecordBatch


class TailRecord(NamedTuple):
    """One record with its headers; `timestamp` is in microseconds since 1970 UTC."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


class Consumer:
    """Reads `topic` from `positions`, {partition: next offset}. Close it, or use `with`."""

    def __init__(self, topic: Topic, positions: dict[int, int]) -> None:
        self._topic = topic
        self._fault: KafkaError | None = None
        self._consumer = KafkaConsumer(consumer_settings(topic.log.bootstrap, error_cb=self._note))
        assignment = [TopicPartition(topic.name, number, offset) for number, offset in positions.items()]
        translated(f"reading {topic.name!r}", self._consumer.assign, assignment)

    def _note(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN or error.fatal():
            self._fault = error

    def poll(self, max_rows: int, timeout: timedelta) -> list[Chunk]:
        """What has arrived, at most `max_rows` records; waits up to `timeout` for the first. At most one chunk a
        partition, in order of partition. Raises `BrokerUnavailable` when the broker is gone, `LogError` for an
        offset outside the topic, and `SchemaError` for a record that the schema doesn't read."""
        return [
            self._chunk(number, messages)
            for number, messages in sorted(self._messages(max_rows, timeout).items())
        ]

    def _messages(self, max_rows: int, timeout: timedelta) -> dict[int, list[Message]]:
        what = f"reading {self._topic.name!r}"
        messages = translated(what, self._consumer.consume, 1, timeout.total_seconds())
        if messages and max_rows > 1:
            messages += translated(what, self._consumer.consume, max_rows - 1, 0)
        if not messages and self._fault is not None:
            fault, self._fault = self._fault, None
            raise as_log_error(fault, what)
        by_partition: dict[int, list[Message]] = {}
        for message in messages:
            if message.error():
                raise as_log_error(message.error(), what)
            by_partition.setdefault(message.partition(), []).append(message)
        return by_partition

    def _chunk(self, number: int, messages: list[Message]) -> Chunk:
        keys, values = [m.key() for m in messages], [m.value() for m in messages]
        offsets = np.array([m.offset() for m in messages], np.int64)
        timestamps = np.array([m.timestamp()[1] for m in messages], np.int64) * 1000
        topic = self._topic
        rows = named(topic.name, number, offsets, lambda part: topic.decode(values[part], keys[part]))
        return Chunk(number, offsets, timestamps, keys, values, rows)

    def close(self) -> None:
        """Close the connections; may be called twice."""
        self._consumer.close()

    def __enter__(self) -> Consumer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def consumer_settings(bootstrap: str, **more: object) -> dict[str, object]:
    """A consumer that neither joins a group nor commits, and errs rather than jump to another offset."""
    return settings(
        bootstrap,
        **{
            "group.id": f"millstream-reader-{uuid.uuid4().hex}",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "allow.auto.create.topics": False,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": _LINGER_MS,
            "fetch.error.backoff.ms": 50,
            "fetch.queue.backoff.ms": 10,
            **more,
        },
    )


def read_tail(bootstrap: str, topic: str, partition: int, n: int, seconds: float) -> list[TailRecord]:
    """The last `n` records before the end offset of now; fewer if there are fewer. Raises `LogError`."""
    what = f"reading the tail of {topic!r} partition {partition}"
    consumer = KafkaConsumer(
        consumer_settings(bootstrap, **{"enable.partition.eof": True, "fetch.wait.max.ms": 10})
    )
    try:
        at = TopicPartition(topic, partition)
        low, high = translated(what, consumer.get_watermark_offsets, at, timeout=seconds)
        start, reach = max(low, high - n), n
        while True:
            records = _read_range(consumer, TopicPartition(topic, partition, start), high, seconds, what)
            if len(records) >= n or start <= low:
                return records[-n:] if n else []
            reach *= 2  # control records and compaction leave gaps in the offsets: look further back
            start = max(low, high - reach)
    finally:
        consumer.close()


def _read_range(
    consumer: KafkaConsumer, at: TopicPartition, end: int, seconds: float, what: str
) -> list[TailRecord]:
    records: list[TailRecord] = []
    if at.offset >= end:
        return records
    consumer.assign([at])
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for message in translated(what, consumer.consume, 1000, 0.05):
            error = message.error()
            if error is not None and error.code() == KafkaError._PARTITION_EOF:
                return records
            if error is not None:
                raise as_log_error(error, what)
            if message.offset() < end:
                headers = message.headers() or []
                stamp = message.timestamp()[1] * 1000
                records.append(TailRecord(message.offset(), stamp, message.key(), message.value(), headers))
            if message.offset() >= end - 1:
                return records
    raise LogError(f"{what}: offset {end} not reached within {seconds:.0f} s; is the broker overloaded?")
