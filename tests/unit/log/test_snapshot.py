"""read_topic: a topic as a dataset."""

import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka import Producer

from millstream.data import Role
from millstream.errors import InputError, SchemaError
from millstream.log import Log, read_topic

SCHEMA = pa.schema([("id", pa.int64()), ("x", pa.float64()), ("label", pa.int64())])


def rows(n):
    ids = np.arange(n)
    return pa.table({"id": ids, "x": ids * 0.1, "label": ids % 2, "to": pa.array(ids % 2, pa.int32())})


@pytest.fixture(scope="module")
def topic(log):
    made = log.create_topic("snapshot", partitions=3, schema=SCHEMA)
    made.append(rows(100_000), partition="to")
    return made


def test_every_row_is_there_with_its_position(topic):
    table = read_topic(topic).to_table()
    assert table.schema.names == [*SCHEMA.names, "_partition", "_offset", "_timestamp"]
    for number in (0, 1):
        mine = table.filter(pa.compute.equal(table["_partition"], number))
        assert mine["_offset"].to_pylist() == list(range(50_000))
        assert mine["id"].to_pylist() == list(range(number, 100_000, 2))
    assert table.num_rows == 100_000
    assert table["_timestamp"].type == pa.timestamp("us", "UTC")


def test_parts_are_ranges_of_offsets_and_an_empty_partition_has_one(topic):
    parts = read_topic(topic).parts
    assert [p.n_rows for p in parts] == [32_768, 17_232, 32_768, 17_232, 0]
    assert [p.first_row for p in parts] == [0, 32_768, 50_000, 82_768, 100_000]
    assert sum(b.num_rows for p in parts for b in p.batches()) == 100_000


def test_roles(topic):
    dataset = read_topic(topic, target="label")
    assert dataset.schema.features == ("id", "x")
    assert dataset.schema.targets == ("label",)
    assert dataset.schema["_offset"].role is Role.OTHER
    block = next(iter(dataset.parts[0].blocks()))
    assert block.feature_names == ("id", "x")


def test_a_range_of_offsets(topic):
    table = read_topic(topic, {1: (40_000, 40_010), 0: (7, 7)}).to_table()
    assert table["_offset"].to_pylist() == list(range(40_000, 40_010))
    assert table["id"].to_pylist() == [2 * i + 1 for i in range(40_000, 40_010)]


@pytest.mark.parametrize("asked", [{0: (0, 50_001)}, {3: (0, 0)}, {0: (-1, 4)}, {0: (5, 4)}])
def test_offsets_outside_the_topic_are_refused(topic, asked):
    with pytest.raises(InputError, match="offsets"):
        read_topic(topic, asked)


def test_it_stands_still_while_the_topic_grows(log):
    topic = log.create_topic("grows", schema=SCHEMA)
    topic.append(rows(10))
    dataset = read_topic(topic)
    topic.append(rows(10))
    assert dataset.n_rows == len(dataset.to_table()) == 10
    assert read_topic(topic).n_rows == 20


def test_a_cluster_gives_the_same_rows(topic):
    with Log(f"kafka://{topic.log.bootstrap}") as cluster:
        there = read_topic(cluster["snapshot"])
        assert there.to_table().combine_chunks().equals(read_topic(topic).to_table().combine_chunks())
        assert [p.n_rows for p in there.parts] == [p.n_rows for p in read_topic(topic).parts]


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_compressed_batches_of_any_producer(log, codec):
    topic = log.create_topic(f"packed-{codec}", format="bytes")
    producer = Producer({"bootstrap.servers": log.bootstrap, "compression.type": codec, "linger.ms": 20})
    sent = [b"value %d " % i * 20 for i in range(2000)]
    for value in sent:
        producer.produce(topic.name, value, key=b"k")
    assert producer.flush(20) == 0
    table = read_topic(topic).to_table()
    assert table["value"].to_pylist() == sent
    assert table["_offset"].to_pylist() == list(range(2000))
    stored = sum(p.stat().st_size for p in (log.directory / "topics" / topic.name).rglob("*.log"))
    assert stored < sum(map(len, sent)) / 2


def test_null_and_empty_values_of_bytes(log):
    topic = log.create_topic("nulls", format="bytes")
    topic.publish(0, [b"", None, b"x"], keys=[None, b"", b"k"])
    assert read_topic(topic).select(["key", "value"]).to_table().to_pylist() == [
        {"key": None, "value": b""},
        {"key": b"", "value": None},
        {"key": b"k", "value": b"x"},
    ]


def test_a_tombstone_is_a_row_of_nulls_and_nonsense_is_refused(log):
    topic = log.create_topic("nonsense", schema=SCHEMA)
    topic.publish(0, [b'{"id": 1}', None])
    assert read_topic(topic).select(["id"]).to_table().to_pylist() == [{"id": 1}, {"id": None}]
    topic.publish(0, [b"id=3"])
    with pytest.raises(SchemaError):
        read_topic(topic).to_table()


def test_segments_of_a_deleted_topic_stay_readable(log):
    topic = log.create_topic("doomed", schema=SCHEMA)
    topic.append(rows(1000))
    dataset = read_topic(topic)
    log.delete_topic("doomed")
    assert len(dataset.to_table()) == 1000
