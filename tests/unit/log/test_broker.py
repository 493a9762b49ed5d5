"""The broker through confluent-kafka as it comes, and through a bare socket where that client is too polite."""

import io
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from kio.index import load_entity_module
from kio.serial import entity_reader, entity_writer
from kio.static.constants import EntityType

from millstream.log import Log
from millstream.log.apis import APIS
from millstream.log.fetch import write_fetch
from millstream.log.record_batch import Record, encode, walk


def produce(log, topic, values, **more):
    producer = Producer({"bootstrap.servers": log.bootstrap, "acks": "all", "linger.ms": 0, **more})
    for value in values:
        producer.produce(topic, value, partition=0, timestamp=more.get("timestamp", 0))
    assert producer.flush(20) == 0


def consume(log, group, topic, n, **more):
    consumer = Consumer(
        {
            "bootstrap.servers": log.bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            **more,
        }
    )
    consumer.subscribe([topic])
    got, deadline = [], time.monotonic() + 30
    while len(got) < n and time.monotonic() < deadline:
        for message in consumer.consume(n - len(got), 0.5):
            assert message.error() is None
            got.append(message)
    return consumer, got


class Socket:
    """A client that sends what it is told."""

    def __init__(self, log):
        host, port = log.bootstrap.split(":")
        self._socket = socket.create_connection((host, int(port)), timeout=10)

    def send(self, key, version, body=b"", correlation_id=7):
        header = struct.pack(">hhi", key, version, correlation_id) + struct.pack(">h", -1)
        if version >= APIS[key].flexible:
            header += b"\0"
        self.raw(struct.pack(">i", len(header) + len(body)) + header + body)

    def raw(self, data):
        self._socket.sendall(data)

    def reply(self):
        (length,) = struct.unpack(">i", self._exactly(4))
        data = self._exactly(length)
        return struct.unpack_from(">i", data)[0], data[4:]

    def _exactly(self, n):
        data = b""
        while len(data) < n:
            more = self._socket.recv(n - len(data))
            if not more:
                raise ConnectionError("closed")
            data += more
        return data

    def close(self):
        self._socket.close()


@pytest.fixture
def wire(log):
    client = Socket(log)
    yield client
    client.close()


def fetch_body(topic, offset, *, wait_ms=0, min_bytes=1, max_bytes=1 << 20, partition_bytes=1 << 20):
    name = struct.pack(">h", len(topic)) + topic.encode()
    partition = struct.pack(">iqi", 0, offset, partition_bytes)
    return (
        struct.pack(">iiiib", -1, wait_ms, min_bytes, max_bytes, 0)
        + struct.pack(">i", 1)
        + name
        + struct.pack(">i", 1)
        + partition
    )


def fetched(body, version=4):
    response = load_entity_module("fetch", version, EntityType.response).FetchResponse
    return entity_reader(response)(body, 0)[0].responses[0].partitions[0]


def test_a_group_goes_on_where_it_committed(log):
    log.create_topic("group", format="bytes")
    produce(log, "group", [b"%d" % i for i in range(10)])
    consumer, first = consume(log, "g1", "group", 6)
    consumer.commit(message=first[-1], asynchronous=False)
    consumer.close()
    consumer, rest = consume(log, "g1", "group", 4)
    consumer.close()
    assert [m.value() for m in first + rest] == [b"%d" % i for i in range(10)]


def test_a_second_consumer_stands_by_and_takes_over(log):
    log.create_topic("standby", format="bytes")
    produce(log, "standby", [b"a", b"b"])
    first, got = consume(log, "g2", "standby", 1)
    first.commit(message=got[0], asynchronous=False)
    second = Consumer({"bootstrap.servers": log.bootstrap, "group.id": "g2", "auto.offset.reset": "earliest"})
    second.subscribe(["standby"])
    assert second.poll(1.0) is None
    first.close()
    message = second.poll(20.0)
    assert message.value() == b"b"
    second.close()


def test_commits_survive_a_restart(tmp_path):
    with Log(tmp_path) as log:
        log.create_topic("t", partitions=2, format="bytes")
        produce(log, "t", [b"a", b"b", b"c"])
        consumer, got = consume(log, "g", "t", 2)
        consumer.commit(message=got[-1], asynchronous=False)
        consumer.close()
    with Log(tmp_path) as log:
        consumer = Consumer({"bootstrap.servers": log.bootstrap, "group.id": "g"})
        committed = consumer.committed([TopicPartition("t", 0), TopicPartition("t", 1)], timeout=20)
        assert [p.offset for p in committed] == [2, -1001]
        consumer.close()


def test_offsets_by_time(log):
    log.create_topic("times", format="bytes")
    producer = Producer({"bootstrap.servers": log.bootstrap})
    for t in (1000, 2000, 3000):
        producer.produce("times", b"x", partition=0, timestamp=t)
        assert producer.flush(20) == 0
    consumer = Consumer({"bootstrap.servers": log.bootstrap, "group.id": "none"})
    ask = lambda t: consumer.offsets_for_times([TopicPartition("times", 0, t)], timeout=20)[0].offset  # noqa: E731
    assert [ask(t) for t in (0, 1000, 1001, 3000)] == [0, 0, 1, 2]
    assert ask(3001) in (-1, 3)  # none: librdkafka says the end
    assert consumer.get_watermark_offsets(TopicPartition("times", 0), timeout=20) == (0, 3)
    consumer.close()


def test_seeking_reads_again(log):
    log.create_topic("seek", format="bytes")
    produce(log, "seek", [b"a", b"b"])
    consumer, _ = consume(log, "g3", "seek", 2)
    consumer.seek(TopicPartition("seek", 0, OFFSET_BEGINNING))
    assert consumer.poll(20).value() == b"a"
    consumer.close()


def test_keys_headers_and_timestamps_pass_through(log):
    log.create_topic("whole", format="bytes")
    producer = Producer({"bootstrap.servers": log.bootstrap})
    producer.produce(
        "whole", b"v", key=b"k", headers=[("a", b"1"), ("a", None)], timestamp=1234567, partition=0
    )
    producer.flush(20)
    consumer, (message,) = consume(log, "g4", "whole", 1)
    assert (message.key(), message.value(), message.timestamp()[1]) == (b"k", b"v", 1234567)
    assert message.headers() == [("a", b"1"), ("a", None)]
    consumer.close()


def test_topics_are_not_made_by_asking(log):
    producer = Producer({"bootstrap.servers": log.bootstrap, "message.timeout.ms": 1500})
    errors = []
    producer.produce("unasked", b"x", on_delivery=lambda error, _: errors.append(error))
    producer.flush(10)
    assert errors[0] is not None
    assert "unasked" not in log


def test_topics_are_made_by_asking_where_the_broker_was_told_so(tmp_path):
    code = (
        "import sys; from millstream.log import serve;"
        "serve(sys.argv[1], auto_create=2, on_ready=lambda address: print(address, flush=True))"
    )
    server = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        producer = Producer({"bootstrap.servers": server.stdout.readline().strip()})
        producer.produce("unasked", b"x")
        assert producer.flush(20) == 0
        with Log(tmp_path) as log:
            assert sum(log["unasked"].end_offsets()) == 1
            assert log["unasked"].n_partitions == 2
    finally:
        server.terminate()
        server.communicate(timeout=20)


@pytest.mark.parametrize(
    ("topic", "code"),
    [
        (NewTopic("bad name", 1), "TOPIC_EXCEPTION"),
        (NewTopic("zero", 0), "INVALID_PARTITIONS"),
        (NewTopic("replicated", 1, 3), "INVALID_REPLICATION_FACTOR"),
        (NewTopic("configured", 1, config={"retention.ms": "1"}), "INVALID_CONFIG"),
        (NewTopic("__consumer_offsets", 1), "TOPIC_EXCEPTION"),
    ],
)
def test_topics_that_cannot_be_made_are_refused_by_code(log, topic, code):
    admin = AdminClient({"bootstrap.servers": log.bootstrap})
    with pytest.raises(KafkaException) as refused:
        admin.create_topics([topic])[topic.topic].result(20)
    assert code in refused.value.args[0].name()
    assert topic.topic not in log.topics()


def test_advertised_versions_come_from_the_table(wire):
    wire.send(18, 0)
    correlation_id, body = wire.reply()
    keys = entity_reader(load_entity_module("api_versions", 0, EntityType.response).ApiVersionsResponse)(
        body, 0
    )[0]
    assert correlation_id == 7
    assert {(k.api_key, k.min_version, k.max_version) for k in keys.api_keys} == {
        (a.key, a.oldest, a.newest) for a in APIS.values()
    }


def test_a_version_of_apiversions_unknown_is_answered_in_version_0(wire):
    wire.send(18, 99, b"\0")
    _, body = wire.reply()
    answer = entity_reader(load_entity_module("api_versions", 0, EntityType.response).ApiVersionsResponse)(
        body, 0
    )[0]
    assert answer.error_code.name == "unsupported_version"
    assert len(answer.api_keys) == len(APIS)


def test_a_fetch_waits_for_records_and_wakes_with_them(log, wire):
    log.create_topic("poll", format="bytes")
    threading.Timer(0.4, produce, (log, "poll", [b"late"])).start()
    began = time.monotonic()
    wire.send(1, 4, fetch_body("poll", 0, wait_ms=20_000))
    _, body = wire.reply()
    assert 0.3 < time.monotonic() - began < 15
    assert [h.n_records for _, h in walk(memoryview(bytes(fetched(body).records)))] == [1]


def test_a_fetch_without_records_answers_after_its_wait(log, wire):
    log.create_topic("quiet", format="bytes")
    began = time.monotonic()
    wire.send(1, 4, fetch_body("quiet", 0, wait_ms=300))
    _, body = wire.reply()
    assert time.monotonic() - began > 0.25
    assert (fetched(body).high_watermark, fetched(body).records) in ((0, b""), (0, None))


def test_a_fetch_honours_min_and_max_bytes(log, wire):
    log.create_topic("bytes", format="bytes")
    for _ in range(5):
        produce(log, "bytes", [b"x" * 1000])
    wire.send(1, 4, fetch_body("bytes", 0, partition_bytes=2500))
    _, body = wire.reply()
    assert len(list(walk(memoryview(bytes(fetched(body).records))))) == 2
    wire.send(1, 4, fetch_body("bytes", 0, max_bytes=10))
    _, body = wire.reply()
    assert len(list(walk(memoryview(bytes(fetched(body).records))))) == 1
    began = time.monotonic()
    wire.send(1, 4, fetch_body("bytes", 3, min_bytes=100_000, wait_ms=300))
    _, body = wire.reply()
    assert time.monotonic() - began > 0.25
    assert len(list(walk(memoryview(bytes(fetched(body).records))))) == 2


def test_replies_keep_the_order_of_requests(log, wire):
    log.create_topic("pipeline", format="bytes")
    wire.send(1, 4, fetch_body("pipeline", 0, wait_ms=300), correlation_id=1)
    for number in range(2, 20):
        wire.send(18, 0, correlation_id=number)
    assert [wire.reply()[0] for _ in range(19)] == list(range(1, 20))


def produce_body(topic, records, acks=-1):
    name = struct.pack(">h", len(topic)) + topic.encode()
    data = struct.pack(">ii", 0, len(records)) + records
    return struct.pack(">hhi", -1, acks, 1000) + struct.pack(">i", 1) + name + struct.pack(">i", 1) + data


def produced(body):
    response = load_entity_module("produce", 3, EntityType.response).ProduceResponse
    return entity_reader(response)(body, 0)[0].responses[0].partition_responses[0]


def test_a_batch_with_a_bad_crc_is_an_error_and_the_connection_lives(log, wire):
    topic = log.create_topic("crc", format="bytes")
    bad = bytearray(encode([Record(0, 1, None, b"value")]))
    bad[-1] ^= 1
    wire.send(0, 3, produce_body("crc", bytes(bad)))
    assert produced(wire.reply()[1]).error_code.name == "corrupt_message"
    assert topic.end_offsets() == [0]
    wire.send(0, 3, produce_body("crc", encode([Record(0, 1, None, b"value")])))
    assert produced(wire.reply()[1]).base_offset == 0
    assert topic.end_offsets() == [1]


@pytest.mark.parametrize(
    ("topic", "records", "error"),
    [
        ("nowhere", encode([Record(0, 1, None, b"v")]), "unknown_topic_or_partition"),
        ("refusals", b"", "corrupt_message"),
        ("refusals", b"x" * 100, "corrupt_message"),
        ("refusals", encode([Record(0, 1, None, b"v")]) * 2, "corrupt_message"),
        ("refusals", encode([Record(0, 1, None, bytes(17 << 20))]), "message_too_large"),
        ("__consumer_offsets", encode([Record(0, 1, None, b"v")]), "invalid_topic_exception"),
    ],
)
def test_a_produce_that_cannot_be_is_answered_by_code(log, wire, topic, records, error):
    log.create_topic("refusals", format="bytes", exist_ok=True)
    consumer = Consumer({"bootstrap.servers": log.bootstrap, "group.id": "makes-the-offsets-topic"})
    consumer.commit(offsets=[TopicPartition("refusals", 0, 0)], asynchronous=False)
    consumer.close()
    wire.send(0, 3, produce_body(topic, records))
    assert produced(wire.reply()[1]).error_code.name == error
    assert log["refusals"].end_offsets() == [0]


def test_acks_0_is_stored_and_not_answered(log, wire):
    topic = log.create_topic("silent", format="bytes")
    wire.send(0, 3, produce_body("silent", encode([Record(0, 1, None, b"v")]), acks=0), correlation_id=1)
    wire.send(18, 0, correlation_id=2)
    assert wire.reply()[0] == 2
    deadline = time.monotonic() + 10
    while topic.end_offsets() != [1]:
        assert time.monotonic() < deadline


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6])
def test_every_version_of_list_offsets_answers(log, wire, version):
    log.create_topic("versions", format="bytes", exist_ok=True)
    m = load_entity_module("list_offsets", version, EntityType.request)
    some = lambda e, **v: e(**{k: x for k, x in v.items() if k in e.__dataclass_fields__})  # noqa: E731
    partition = some(m.ListOffsetsPartition, partition_index=0, timestamp=-1, current_leader_epoch=-1)
    topic = m.ListOffsetsTopic(name="versions", partitions=(partition,))
    buffer = io.BytesIO()
    request = some(m.ListOffsetsRequest, replica_id=-1, isolation_level=0, topics=(topic,))
    entity_writer(m.ListOffsetsRequest)(buffer, request)
    wire.send(2, version, buffer.getvalue())
    _, body = wire.reply()
    response = load_entity_module("list_offsets", version, EntityType.response).ListOffsetsResponse
    answer, size = entity_reader(response)(body[1:] if version >= 6 else body, 0)
    assert answer.topics[0].partitions[0].offset == 0
    assert size == len(body) - (version >= 6)


def test_fetch_of_no_topic_is_empty():
    assert b"".join(write_fetch([], 4)) == struct.pack(">ii", 0, 0)
