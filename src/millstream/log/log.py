"""The log as programs open it: a directory with its own broker, or any Kafka cluster."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from millstream.clock import SystemClock
from millstream.errors import InputError, LogError, SchemaError, TopicExists, UnknownTopic
from millstream.log.address import Address, find
from millstream.log.child import Child, find_or_start
from millstream.log.client import CALL_SECONDS, settings, translated
from millstream.log.consumer import read_tail
from millstream.log.direct import send_batch
from millstream.log.producer import Producer, Row
from millstream.log.record_batch import Record
from millstream.log.schemas import SCHEMAS_TOPIC, TopicSchema
from millstream.log.topic import Topic
from millstream.log.topic_name import check_topic_name

__all__ = ["Log", "broker_of"]

_ADDRESSES = re.compile(r"[A-Za-z0-9._\-\[\]:]+:\d{1,5}(,[A-Za-z0-9._\-\[\]:]+:\d{1,5})*\Z")
_EVERY_RECORD = 1 << 62


def broker_of(directory: str | os.PathLike[str]) -> Address | None:
    """Where the broker of `directory` listens, and its pid; None when none is running."""
    return find(Path(directory))


class Log:
    """Topics, in a directory or in a cluster.

    ``Log("events/")`` finds the broker of that directory or starts one as a child process; a broker ends with the
    process that started it, or when that one's `Log` is closed, and later opens of the directory start it
    again. A directory that isn't there is made, unless ``create=False``: then it must hold a log.
    ``Log("kafka://host:9092")`` and ``Log("host:9092")`` are any Kafka cluster. `port` 0 takes a free port.

    Raises `LogError` (the directory can't be written, or holds no log under ``create=False``),
    `AddressInUse` (the port is taken), and on first use
    `BrokerUnavailable` (no broker answers).

    >>> import pyarrow as pa, tempfile
    >>> with tempfile.TemporaryDirectory() as directory, Log(directory) as log:
    ...     clicks = log.create_topic("clicks", partitions=2, schema=pa.schema([("page", pa.string())]))
    ...     clicks.append(pa.table({"page": ["a", "b", "a"]}), key="page")
    ...     sum(clicks.end_offsets())
    3
    3
    """

    def __init__(self, where: str | os.PathLike[str], port: int = 0, create: bool = True) -> None:
        self._where = text = os.fspath(where)
        self.directory: Path | None = None
        self._child: Child | None = None
        if text.startswith("kafka://") or (_ADDRESSES.match(text) and not os.path.isdir(text)):
            self.bootstrap = text.removeprefix("kafka://").rstrip("/")
        else:
            self.directory = Path(text).resolve()
            if not create and not (self.directory / "store.json").is_file():
                raise LogError(
                    f"{text!r} is no log: it has no file store.json; name the folder of a log, or kafka://HOST:PORT; "
                    "millstream.Log(...) makes a log"
                )
            address, self._child = find_or_start(self.directory, port)
            self.bootstrap = address.bootstrap
        self._clients = [AdminClient(settings(self.bootstrap))]
        self._schemas: dict[str, TopicSchema] = {}
        self._producers: dict[bool, Producer] = {}
        self._sending = threading.Lock()
        self._closed = weakref.finalize(self, _close, self._clients, self._producers, self._child)

    def __repr__(self) -> str:
        return f"Log({str(self.directory or self.bootstrap)!r})"

    @property
    def _admin(self) -> AdminClient:
        self.check_open()
        return self._clients[0]

    def check_open(self) -> None:
        """Raise `LogError` once the log is closed."""
        if not self._closed.alive:
            raise LogError(f"{self!r} is closed; open it again with millstream.Log({str(self._where)!r})")

    @property
    def broker(self) -> Address | None:
        """The embedded broker's address and pid; None for a cluster, and once it has stopped."""
        return None if self.directory is None else find(self.directory)

    def topics(self) -> list[str]:
        """Names of the topics, internal ones left out."""
        return sorted(name for name in self._partition_counts() if not name.startswith("__"))

    def _partition_counts(self) -> dict[str, int]:
        listing = translated("listing topics", self._admin.list_topics, timeout=CALL_SECONDS)
        return {name: len(topic.partitions) for name, topic in listing.topics.items()}

    def __contains__(self, name: object) -> bool:
        return name in self._partition_counts()

    def __getitem__(self, name: str) -> Topic:
        """The topic `name`; raises `UnknownTopic`. One that another program made without a schema is of bytes."""
        counts = self._partition_counts()
        if name not in counts:
            there = ", ".join(sorted(n for n in counts if not n.startswith("__"))) or "none"
            raise UnknownTopic(
                f"no topic {name!r} in {self!r}; there are: {there}; make it with create_topic"
            )
        if name not in self._schemas:
            self._load_schemas(SCHEMAS_TOPIC in counts)
        return Topic(self, name, counts[name], self._schemas.get(name, TopicSchema.of(None, "bytes")))

    def create_topic(
        self,
        name: str,
        partitions: int = 1,
        schema: pa.Schema | None = None,
        format: str | None = None,
        exist_ok: bool = False,
    ) -> Topic:
        """Create a topic and bind its schema. `format` is "json" (rows of `schema`, the default with one) or "bytes".
        Text in any layout of Arrow's (large, view, dictionary) becomes a column of strings.

        Raises `InputError` for a name or number that can't be, `SchemaError` for a column that the format can't spell,
        `TopicExists` unless `exist_ok`; with it the topic there must have the same schema (`SchemaError`). A topic
        that is there without a schema, made by another program or by a call that was broken off, gets this one.
        """
        check_topic_name(name)
        if partitions < 1:
            raise InputError(f"topic {name!r}: {partitions} partitions; expected 1 or more")
        spelled = TopicSchema.of(schema, format or ("bytes" if schema is None else "json"))
        try:
            self._create(name, partitions)
        except TopicExists:
            if not exist_ok:
                raise
            there = self[name]
            if name in self._schemas:
                if (there.schema, there.format) != (spelled.schema, spelled.format):
                    raise SchemaError(
                        f"topic {name!r} is there with schema {there.schema.names}; expected the same"
                    ) from None
                return there
        self._bind(name, spelled)
        return self[name]

    def _create(self, name: str, partitions: int) -> None:
        future = self._admin.create_topics([NewTopic(name, partitions, 1 if self.directory else -1)])[name]
        translated(f"creating topic {name!r}", future.result, CALL_SECONDS)

    def _bind(self, name: str, spelled: TopicSchema | None) -> None:
        if SCHEMAS_TOPIC not in self:
            with contextlib.suppress(TopicExists):  # another process was faster
                self._create(SCHEMAS_TOPIC, 1)
        value = None if spelled is None else spelled.to_bytes()
        self.send(SCHEMAS_TOPIC, [(0, name.encode(), value, None)])
        if spelled is not None:
            self._schemas[name] = spelled

    def _load_schemas(self, any_bound: bool) -> None:
        self._schemas.clear()
        if not any_bound:
            return
        for record in read_tail(self.bootstrap, SCHEMAS_TOPIC, 0, _EVERY_RECORD, CALL_SECONDS):
            name = (record.key or b"").decode()
            if record.value is None:
                self._schemas.pop(name, None)
            else:
                self._schemas[name] = TopicSchema.from_bytes(record.value)

    def delete_topic(self, name: str) -> None:
        """Remove a topic and its records; raises `UnknownTopic`."""
        future = self._admin.delete_topics([name])[name]
        translated(f"deleting topic {name!r}", future.result, CALL_SECONDS)
        if self._schemas.pop(name, None) is not None or SCHEMAS_TOPIC in self:
            self._bind(name, None)

    def send(self, topic: str, rows: Iterable[Row], progress: Callable[[int], None] | None = None) -> int:
        """Send records, batched as they come; returns their number once all are durable."""
        self.check_open()
        with self._sending:
            return self._producer(whole=False).send(topic, rows, progress)

    def send_whole(self, topic: str, partition: int, rows: list[Row]) -> int:
        """Send records to one partition in order; returns their number once all are durable. The embedded log keeps
        them as one batch, whole or not at all; on a cluster librdkafka may cut them in two."""
        self.check_open()
        if self.directory is None:
            with self._sending:
                return self._producer(whole=True).send(topic, rows)
        now = SystemClock().now() // 1000
        records = [Record(0, now, key, value, tuple(headers or ())) for _, key, value, headers in rows]
        send_batch(self.bootstrap, topic, partition, records)
        return len(records)

    def _producer(self, *, whole: bool) -> Producer:
        if whole not in self._producers:
            self._producers[whole] = Producer(self.bootstrap, whole=whole)
        return self._producers[whole]

    def end_offsets(self, topic: str, n_partitions: int) -> list[int]:
        """By partition, the offset after the last durable record. Raises `LogError`."""
        asked = {TopicPartition(topic, number): OffsetSpec.latest() for number in range(n_partitions)}
        what = f"end offsets of {topic!r}"
        futures = translated(what, self._admin.list_offsets, asked, request_timeout=CALL_SECONDS)
        return [translated(what, futures[at].result, CALL_SECONDS).offset for at in asked]

    def close(self) -> None:
        """Stop the broker if this `Log` started it, and let go of every connection; may be called twice. What is asked
        of the log or its topics afterwards is a `LogError`."""
        self._closed()

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _close(clients: list[AdminClient], producers: dict[bool, Producer], child: Child | None) -> None:
    for producer in producers.values():
        producer.close()
    producers.clear()
    clients.clear()  # before the broker ends, or they would look for it
    if child is not None:
        child.stop()
