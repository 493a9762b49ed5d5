"""Writing a topic: acks=all, and an answer only when every record is durable.

A retry inside the client could store a record twice, as this producer isn't an idempotent one; so nothing is
retried. An error therefore means: of this call some records may be stored, and none twice. Who must know which reads
the tail (`Topic.tail`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TypeAlias

from confluent_kafka import KafkaError, KafkaException, Message, Producer as KafkaProducer

from millstream.errors import BrokerUnavailable
from millstream.log.client import as_log_error, settings

__all__ = ["WHOLE_BYTES", "WHOLE_ROWS", "Headers", "Producer", "Row"]

Headers: TypeAlias = list[tuple[str, bytes | None]]
Row: TypeAlias = tuple[
    int | None, bytes | None, bytes | None, Headers | None
]  # partition, key, value, headers

DELIVERY_SECONDS = 30.0
WHOLE_ROWS = 10_000
WHOLE_BYTES = 256 << 10
_PROGRESS_EVERY = 8192


class Producer:
    """One confluent-kafka producer, used by one thread at a time. Order is kept within a partition.

    With ``whole=True`` a `send` of at most `WHOLE_ROWS` rows and `WHOLE_BYTES` goes out as one record batch, but for
    rows that meet the end of the flush before: one request is in flight at a time.
    """

    def __init__(self, bootstrap: str, *, whole: bool = False) -> None:
        self._errors: list[KafkaError] = []
        self._producer = KafkaProducer(
            settings(
                bootstrap,
                **{
                    "acks": "all",
                    "retries": 0,
                    "max.in.flight.requests.per.connection": 1 if whole else 5,
                    "linger.ms": 300_000 if whole else 5,
                    "batch.size": 4 * WHOLE_BYTES,
                    "batch.num.messages": 2 * WHOLE_ROWS,
                    "queue.buffering.max.messages": 200_000,
                    "queue.buffering.max.kbytes": 262_144,
                    "message.timeout.ms": 301_000 if whole else int(DELIVERY_SECONDS * 1000),
                    "message.max.bytes": 8_000_000,
                    "partitioner": "murmur2_random",
                    "delivery.report.only.error": True,
                    "on_delivery": self._note,
                },
            )
        )

    def _note(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._errors.append(error)

    def send(self, topic: str, rows: Iterable[Row], progress: Callable[[int], None] | None = None) -> int:
        """Send every row and wait for all of them; returns their number. Raises `LogError` (see the module)."""
        self._errors.clear()
        try:
            sent = self._hand_over(topic, rows, progress)
            self._finish(topic)
        except BaseException:  # a bad row, Ctrl-C: what waits in the queue must not leave with the next call
            self._producer.purge()
            self._producer.flush(1.0)
            raise
        if progress is not None:
            progress(sent)
        return sent

    def _hand_over(self, topic: str, rows: Iterable[Row], progress: Callable[[int], None] | None) -> int:
        sent = 0
        produce = self._producer.produce
        for partition, key, value, headers in rows:
            where = {} if partition is None else {"partition": partition}
            more = {} if headers is None else {"headers": headers}
            while True:
                try:
                    produce(topic, value, key, **where, **more)
                    break
                except BufferError:
                    self._producer.poll(0.01)
                except KafkaException as fault:
                    self._errors.append(fault.args[0])
                    break
            sent += 1
            if sent % _PROGRESS_EVERY == 0:
                self._producer.poll(0)
                self._check(topic)
                if progress is not None:
                    progress(sent)
        return sent

    def _finish(self, topic: str) -> None:
        deadline = time.monotonic() + DELIVERY_SECONDS
        while left := self._producer.flush(0.5):
            if self._errors:
                break
            if time.monotonic() > deadline:
                raise BrokerUnavailable(
                    f"writing {topic!r}: {left} records unanswered after {DELIVERY_SECONDS:.0f} s; is the broker up?"
                )
        self._check(topic)

    def _check(self, topic: str) -> None:
        if self._errors:
            raise as_log_error(self._errors[0], f"writing {topic!r}")

    def close(self) -> None:
        """Drop what was never sent and let go of the connections."""
        self._producer.purge()
        self._producer.flush(1.0)
