"""Which rows of a job a topic holds: one pass over its records that keeps a number a partition, and no record."""

from __future__ import annotations

import time
from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from millstream.errors import LogError
from millstream.log import Topic
from millstream.log.client import CALL_SECONDS, as_log_error, translated
from millstream.log.consumer import consumer_settings

__all__ = ["JOB_HEADER", "NUMBER_HEADER", "last_numbers"]

JOB_HEADER = "millstream-job"
NUMBER_HEADER = "millstream-number"
SILENCE_SECONDS = 30.0
AT_ONCE = 1000


def last_numbers(topic: Topic, job: str, starts: Mapping[int, int]) -> dict[int, int]:
    """By partition, the number of the job's last row between an offset and the end of now; none where it has none.

    Reads every record in between, about 64 MB ahead at most. Raises LogError if 30 s pass without a record.
    """
    ends = topic.end_offsets()
    reading = {p: ends[p] for p, start in starts.items() if start < ends[p]}
    if not reading:
        return {}
    what = f"looking for rows of job {job!r} in topic {topic.name!r}"
    consumer = Consumer(consumer_settings(topic.log.bootstrap, **{"enable.partition.eof": True}))
    try:
        at = [_from(consumer, TopicPartition(topic.name, p), starts[p], what) for p in reading]
        translated(what, consumer.assign, at)
        return _pass_over(consumer, job.encode(), reading, what)
    finally:
        consumer.close()


def _from(consumer: Consumer, at: TopicPartition, start: int, what: str) -> TopicPartition:
    """`start`, or the first record that retention has left."""
    low, _ = translated(what, consumer.get_watermark_offsets, at, timeout=CALL_SECONDS)
    return TopicPartition(at.topic, at.partition, max(low, start))


def _pass_over(consumer: Consumer, job: bytes, reading: dict[int, int], what: str) -> dict[int, int]:
    """reading: by partition the offset to stop before."""
    last: dict[int, int] = {}
    heard = time.monotonic()
    while reading:
        messages = translated(what, consumer.consume, AT_ONCE, 0.05)
        if messages:
            heard = time.monotonic()
        elif time.monotonic() - heard > SILENCE_SECONDS:
            raise LogError(f"{what}: nothing came for {SILENCE_SECONDS:.0f} s; is the broker running?")
        for message in messages:
            partition, error = message.partition(), message.error()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                raise as_log_error(error, what)
            end = reading.get(partition)
            if end is None:
                continue
            if error is None and message.offset() < end:
                number = _number(message, job)
                last |= {} if number is None else {partition: number}
            if error is not None or message.offset() >= end - 1:
                del reading[partition]
    return last


def _number(message: Message, job: bytes) -> int | None:
    """The number of the job's row in this record; None for a record of another writer."""
    headers = dict(message.headers() or ())
    return int(headers[NUMBER_HEADER] or b"") if headers.get(JOB_HEADER) == job else None
