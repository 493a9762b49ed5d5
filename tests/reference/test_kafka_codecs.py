"""The hand-coded Produce and Fetch against kio, whose code comes from Kafka's own message definitions."""

import io
from datetime import timedelta

import pytest
from kio.index import load_entity_module
from kio.serial import entity_reader, entity_writer
from kio.static.constants import EntityType

from millstream.log.apis import APIS
from millstream.log.fetch import Fetched, FetchPartition, read_fetch, write_fetch
from millstream.log.produce import Appended, read_produce, write_produce
from millstream.log.record_batch import Record, encode

BATCH = encode([Record(0, 5, b"k", b"v")])


def versions(key):
    return range(APIS[key].oldest, APIS[key].newest + 1)


def coded(module, entity, **values):
    entity = getattr(module, entity)
    known = {k: v for k, v in values.items() if k in entity.__dataclass_fields__}
    buffer = io.BytesIO()
    entity_writer(entity)(buffer, entity(**known))
    return memoryview(buffer.getvalue())


def build(module, entity, **values):
    entity = getattr(module, entity)
    return entity(**{k: v for k, v in values.items() if k in entity.__dataclass_fields__})


def read(module, name, data):
    value, size = entity_reader(getattr(module, name))(data, 0)
    assert size == len(data)
    return value


@pytest.mark.parametrize("version", versions(0))
def test_produce_requests(version):
    m = load_entity_module("produce", version, EntityType.request)
    partitions = tuple(build(m, "PartitionProduceData", index=i, records=BATCH) for i in (0, 3))
    topics = (build(m, "TopicProduceData", name="clicks", partition_data=partitions),)
    body = coded(
        m,
        "ProduceRequest",
        transactional_id=None,
        acks=-1,
        timeout=timedelta(seconds=1),
        topic_data=topics,
    )
    asked = read_produce(body, version)
    assert (asked.transactional_id, asked.acks) == (None, -1)
    assert [(p.topic, p.partition, bytes(p.records)) for p in asked.partitions] == [
        ("clicks", 0, BATCH),
        ("clicks", 3, BATCH),
    ]


@pytest.mark.parametrize("version", versions(0))
def test_produce_replies(version):
    m = load_entity_module("produce", version, EntityType.response)
    results = [Appended("a", 0, 0, 17, 2), Appended("a", 1, 56, message="full"), Appended("b", 0, 3)]
    reply = read(m, "ProduceResponse", memoryview(write_produce(results, version)))
    got = [
        (t.name, p.index, int(p.error_code), p.base_offset)
        for t in reply.responses
        for p in t.partition_responses
    ]
    assert got == [("a", 0, 0, 17), ("a", 1, 56, -1), ("b", 0, 3, -1)]
    if version >= 8:
        assert reply.responses[0].partition_responses[1].error_message == "full"


@pytest.mark.parametrize("version", versions(1))
def test_fetch_requests(version):
    m = load_entity_module("fetch", version, EntityType.request)
    partition = build(
        m, "FetchPartition", partition=2, fetch_offset=99, partition_max_bytes=1000, current_leader_epoch=1
    )
    topics = (build(m, "FetchTopic", topic="clicks", partitions=(partition,)),)
    body = coded(
        m,
        "FetchRequest",
        replica_id=-1,
        max_wait=timedelta(milliseconds=500),
        min_bytes=1,
        max_bytes=5000,
        isolation_level=1,
        topics=topics,
        forgotten_topics_data=(),
    )
    asked = read_fetch(body, version)
    assert (asked.max_wait_ms, asked.min_bytes, asked.max_bytes) == (500, 1, 5000)
    assert asked.partitions == [FetchPartition("clicks", 2, 99, 1000)]


@pytest.mark.parametrize("version", versions(1))
def test_fetch_replies(version):
    m = load_entity_module("fetch", version, EntityType.response)
    results = [Fetched("a", 0, 0, 10, 2, BATCH), Fetched("a", 1, 1, 5, 0), Fetched("b", 0, 3)]
    reply = read(m, "FetchResponse", memoryview(b"".join(write_fetch(results, version))))
    got = [
        (t.topic, p.partition_index, int(p.error_code), p.high_watermark, bytes(p.records or b""))
        for t in reply.responses
        for p in t.partitions
    ]
    assert got == [("a", 0, 0, 10, BATCH), ("a", 1, 1, 5, b""), ("b", 0, 3, -1, b"")]
