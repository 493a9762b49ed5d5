"""A topic as programs use it."""

import subprocess
import sys
from datetime import timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from millstream.errors import InputError, LogError, SchemaError, TopicExists, UnknownTopic
from millstream.log import Log, read_topic
from millstream.log.record_batch import walk

SECOND = timedelta(seconds=1)
SCHEMA = pa.schema([("id", pa.int64()), ("page", pa.string()), ("at", pa.timestamp("us", "UTC"))])


def rows(n, start=0):
    ids = np.arange(start, start + n)
    at = pa.array(ids * 1_000_000).cast(pa.timestamp("us", "UTC"))
    return pa.table(
        {"id": ids, "page": [f"p{i % 5}" for i in ids], "at": at, "to": pa.array(ids % 3, pa.int32())}
    )


def read(topic, positions, n):
    chunks, got = [], 0
    with topic.consumer(positions) as consumer:
        for _ in range(50):
            chunks += consumer.poll(1000, SECOND)
            got = sum(len(c.offsets) for c in chunks)
            if got >= n:
                return chunks
    raise AssertionError(f"{got} of {n} records")


def test_rows_go_in_and_come_out_in_order(log):
    topic = log.create_topic("order", partitions=3, schema=SCHEMA)
    table = rows(3000)
    assert topic.append(table, key="page", partition="to") == 3000
    assert topic.end_offsets() == [1000, 1000, 1000]
    chunks = read(topic, {0: 0, 1: 0, 2: 0}, 3000)
    for number in range(3):
        mine = [c for c in chunks if c.partition == number]
        assert np.concatenate([c.offsets for c in mine]).tolist() == list(range(1000))
        got = pa.Table.from_batches([c.batch for c in mine])
        assert got.equals(table.filter(pa.compute.equal(table["to"], number)).select(SCHEMA.names))
        assert mine[0].keys[0] == mine[0].batch["page"][0].as_py().encode()


def test_equal_keys_meet_in_one_partition(log):
    topic = log.create_topic("keys", partitions=4, schema=SCHEMA)
    topic.append(rows(500), key="page")
    pages = {}
    for chunk in read(topic, dict.fromkeys(range(4), 0), 500):
        for page in chunk.batch["page"].to_pylist():
            pages.setdefault(page, set()).add(chunk.partition)
    assert all(len(where) == 1 for where in pages.values())


def test_reading_starts_where_it_is_told(log):
    topic = log.create_topic("positions", schema=SCHEMA)
    topic.append(rows(100))
    (first, *_) = read(topic, {0: 60}, 40)
    assert first.offsets[0] == 60
    assert first.batch["id"][0].as_py() == 60


def test_an_offset_outside_the_topic_is_an_error(log):
    topic = log.create_topic("outside", schema=SCHEMA)
    topic.append(rows(5))
    with topic.consumer({0: 50}) as consumer, pytest.raises(LogError, match="outside"):
        consumer.poll(10, 10 * SECOND)


def test_published_records_keep_order_and_headers_and_tail_shows_them(log):
    topic = log.create_topic("numbered", partitions=2, schema=SCHEMA)
    values = topic.encode(rows(25_000).select(SCHEMA.names).combine_chunks().to_batches()[0])
    marks = [[("n", str(i).encode())] for i in range(25_000)]
    assert topic.publish(1, values, headers=marks) == 25_000
    last = topic.tail(1, 3)
    assert [r.headers for r in last] == marks[-3:]
    assert [r.offset for r in last] == [24_997, 24_998, 24_999]
    assert [r.value for r in topic.tail(1, 10**6)] == values
    assert topic.tail(0, 5) == []


def test_a_topic_of_bytes(log):
    topic = log.create_topic("raw", format="bytes")
    table = pa.table({"key": pa.array([b"k", None]), "value": pa.array([b"\0\xff", b""])})
    topic.append(table)
    (chunk,) = read(topic, {0: 0}, 2)
    assert chunk.batch.to_pylist() == table.to_pylist()


def test_append_names_what_does_not_fit_and_sends_nothing(log):
    topic = log.create_topic("strict", partitions=2, schema=SCHEMA)
    with pytest.raises(SchemaError, match="no column 'page'"):
        topic.append(rows(3).drop_columns("page"))
    with pytest.raises(SchemaError, match="no column 'nope'"):
        topic.append(rows(3), key="nope")
    with pytest.raises(InputError, match="partition 2; expected 0 to 1"):
        topic.append(rows(3), partition="to")
    with pytest.raises(SchemaError, match="takes \\['id', 'page', 'at'\\]"):
        topic.append(rows(3).set_column(0, "id", pa.array(["a", "b", "c"])))
    assert topic.end_offsets() == [0, 0]


def test_progress_counts_up_to_the_last_row(log):
    topic = log.create_topic("progress", schema=SCHEMA)
    seen = []
    topic.append(rows(20_000), progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 20_000
    assert len(seen) > 1


def test_creating_again(log):
    log.create_topic("once", schema=SCHEMA)
    with pytest.raises(TopicExists):
        log.create_topic("once", schema=SCHEMA)
    assert log.create_topic("once", schema=SCHEMA, exist_ok=True).schema == SCHEMA
    with pytest.raises(SchemaError, match="expected the same"):
        log.create_topic("once", schema=pa.schema([("other", pa.int8())]), exist_ok=True)


def test_an_unknown_topic_is_named_with_those_there_are(log):
    log.create_topic("there", format="bytes")
    with pytest.raises(UnknownTopic, match=r"no topic 'nowhere'.*there"):
        log["nowhere"]


@pytest.mark.parametrize("number", [-1, 0])
def test_a_number_of_partitions_below_one_is_refused(log, number):
    """-1 means to Kafka "as many as the broker is set to"."""
    with pytest.raises(InputError, match=f"'few': {number} partitions; expected 1 or more"):
        log.create_topic("few", partitions=number)
    assert "few" not in log


@pytest.mark.parametrize("name", ["../up", "", "a/b"])
def test_a_bad_name_does_not_reach_the_broker(log, name):
    with pytest.raises(InputError, match="topic name"):
        log.create_topic(name, format="bytes")


def test_a_deleted_topic_takes_its_schema_with_it(log):
    log.create_topic("gone", schema=SCHEMA).append(rows(3))
    log.delete_topic("gone")
    assert "gone" not in log
    again = log.create_topic("gone", format="bytes")
    assert (again.format, again.end_offsets()) == ("bytes", [0])
    with Log(log.directory) as other:
        assert other["gone"].format == "bytes"


def test_the_same_program_runs_over_the_address(log):
    topic = log.create_topic("address", partitions=2, schema=SCHEMA)
    topic.append(rows(10))
    with Log(f"kafka://{log.bootstrap}") as cluster:
        assert cluster["address"].schema == SCHEMA
        assert cluster["address"].append(rows(5)) == 5
    assert sum(topic.end_offsets()) == 15


def test_a_second_log_of_the_directory_finds_the_broker(log):
    with Log(log.directory) as other:
        assert (other.bootstrap, other.broker) == (log.bootstrap, log.broker)
    assert log.broker is not None  # only the starter ends it
    log.topics()


def test_a_table_with_a_bad_number_is_refused_whole(log):
    topic = log.create_topic("finite", schema=pa.schema([("x", pa.float64())]))
    numbers = np.ones(200_000)
    numbers[-1] = np.nan
    with pytest.raises(SchemaError, match="NaN"):
        topic.append(pa.table({"x": numbers}))
    assert topic.append(pa.table({"x": [1.0]})) == 1
    assert topic.end_offsets() == [1]


def test_no_rows_are_no_records(log):
    topic = log.create_topic("none", schema=SCHEMA)
    assert topic.append(rows(0)) == 0
    assert topic.publish(0, []) == 0
    assert topic.end_offsets() == [0]


def test_what_is_published_together_is_one_batch(log):
    """Kept whole or not at all: that is why a failed publish leaves a prefix."""
    topic = log.create_topic("one-batch", format="bytes")
    for _ in range(5):
        topic.publish(0, [b"%d" % i for i in range(3000)])
    (segment,) = (log.directory / "topics" / "one-batch" / "0").glob("*.log")
    assert [h.n_records for _, h in walk(memoryview(segment.read_bytes()))] == [3000] * 5


@pytest.mark.parametrize(
    "bad", [b"oops", b'{"x": "seven"}', b'{"x": 1} {"x": 2}', b'{"x": ', b'{"s": "\xff"}']
)
def test_a_record_that_cannot_be_read_is_named(log, bad):
    name = f"spoilt-{len(bad)}"
    topic = log.create_topic(name, partitions=2, schema=pa.schema([("x", pa.int64()), ("s", pa.string())]))
    values = [b'{"x": %d}' % i for i in range(300)]
    topic.publish(1, [*values, bad, *values, bad])
    found = rf"topic '{name}', partition 1, offset 300: .*read_topic\(topic, {{1: \(301, END\)}}\)"
    with pytest.raises(SchemaError, match=found):
        read(topic, {1: 0}, 602)
    with pytest.raises(SchemaError, match=found):
        read_topic(topic).to_table()
    with Log(log.bootstrap) as cluster, pytest.raises(SchemaError, match=found):
        read_topic(cluster[name]).to_table()
    assert read_topic(topic, {1: (301, 601)}).n_rows == 300


LAYOUTS = [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.large_string())]


@pytest.mark.parametrize("kind", LAYOUTS, ids=str)
def test_text_in_any_layout_is_text(log, kind):
    pages = pa.table({"page": pa.array(["a", None, "b"]).cast(kind), "n": [1, 2, 3]})
    topic = log.create_topic(f"layout-{LAYOUTS.index(kind)}", schema=pages.schema)
    assert topic.schema.types == [pa.string(), pa.int64()]
    topic.append(pages, key="page")
    topic.append(pages.cast(topic.schema), key="page")
    (chunk,) = read(topic, {0: 0}, 6)
    assert chunk.batch["page"].to_pylist() == ["a", None, "b"] * 2
    assert chunk.keys == [b"a", None, b"b"] * 2
    assert log.create_topic(topic.name, schema=pages.schema, exist_ok=True).schema == topic.schema


def test_bytes_in_any_layout_are_bytes(log):
    kind = pa.large_binary()
    table = pa.table({"key": pa.array([b"k", None], kind), "value": pa.array([b"v", b"w"], kind)})
    topic = log.create_topic("large-bytes", format="bytes", schema=table.schema)
    topic.append(table)
    (chunk,) = read(topic, {0: 0}, 2)
    assert chunk.batch.to_pylist() == table.to_pylist()


def test_a_closed_log_says_so_at_once(tmp_path):
    log = Log(tmp_path / "events")
    topic = log.create_topic("a", schema=pa.schema([("x", pa.int64())]))
    topic.append(pa.table({"x": [1]}))
    log.close()
    uses = [
        lambda: topic.append(pa.table({"x": [1]})),
        lambda: topic.publish(0, [b"{}"]),
        lambda: topic.consumer({0: 0}),
        lambda: topic.tail(0, 1),
        topic.end_offsets,
        log.topics,
        lambda: log["a"],
        lambda: log.create_topic("b"),
        lambda: log.delete_topic("a"),
        lambda: read_topic(topic),
    ]
    for use in uses:
        with pytest.raises(LogError, match=r"is closed; open it again with millstream.Log\("):
            use()


PROGRAM = """
import os, signal, sys, time
import pyarrow as pa
from millstream.log import Log

log = Log(sys.argv[1])
topic = log.create_topic("a", schema=pa.schema([("x", pa.int64())]))
topic.append(pa.table({"x": [1]}))
consumer = topic.consumer({0: 0})
if sys.argv[2] == "close":
    log.close()
    time.sleep(0.5)
if sys.argv[2] == "kill":
    os.kill(log.broker.pid, signal.SIGKILL)
    time.sleep(1.5)
"""


@pytest.mark.parametrize("end", ["close", "kill", "exit"])
def test_a_broker_that_has_gone_fills_no_screen(tmp_path, end):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "events", end], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_data_frame_goes_in_as_it_is(log):
    frame = pd.DataFrame({"page": ["a", None], "n": [1, 2]}, index=[7, 8])
    topic = log.create_topic("frame", schema=pa.Table.from_pandas(frame, preserve_index=False).schema)
    assert topic.append(frame, key="page") == 2
    assert read_topic(topic).select(["page", "n"]).to_table().to_pylist() == [
        {"page": "a", "n": 1}, {"page": None, "n": 2},
    ]  # fmt: skip


def test_what_is_no_table_or_schema_is_named(log):
    topic = log.create_topic("tables-only", schema=SCHEMA)
    with pytest.raises(
        InputError, match=r"'tables-only': append takes a pa.Table.*got a dict; make one with"
    ):
        topic.append({"id": [1]})
    with pytest.raises(InputError, match=r"schema={'id': 'int64'}; expected a pa.Schema"):
        log.create_topic("no-schema", schema={"id": "int64"})
    assert "no-schema" not in log


def test_a_log_to_read_must_be_there(tmp_path):
    with pytest.raises(LogError, match=r"nodir' is no log: .*kafka://HOST:PORT"):
        Log(tmp_path / "nodir", create=False)
    assert not (tmp_path / "nodir").exists()
    with pytest.raises(LogError, match="is no log"):
        Log(tmp_path, create=False)
    with Log(tmp_path / "events") as made:
        made.create_topic("a")
    with Log(tmp_path / "events", create=False) as found:
        assert found.topics() == ["a"]


def test_a_topic_without_a_schema_gets_the_first_one_it_is_given(log):
    log._create("adopted", 1)
    assert log["adopted"].format == "bytes"
    with pytest.raises(TopicExists):
        log.create_topic("adopted", schema=SCHEMA)
    assert log["adopted"].format == "bytes"
    assert log.create_topic("adopted", schema=SCHEMA, exist_ok=True).schema == SCHEMA
    with Log(log.directory) as other:
        assert other["adopted"].schema == SCHEMA
