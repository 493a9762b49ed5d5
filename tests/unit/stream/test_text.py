"""Text is text, in whatever layout of Arrow's it comes."""

from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

import millstream.stream as ms
from millstream.data import from_arrow
from millstream.log import Log, read_topic

US = timedelta(microseconds=1)
LAYOUTS = [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.large_string())]


def rows(kind: pa.DataType) -> pa.Table:
    return pa.table({"at": [1, 2, 3], "key": pa.array(["a", "b", None]).cast(kind)})


@pytest.mark.parametrize("kind", LAYOUTS, ids=str)
def test_a_stream_of_a_table_has_strings(kind: pa.DataType) -> None:
    plain = ms.as_stream(rows(pa.string()), event_time="at")
    other = ms.as_stream(rows(kind), event_time="at")
    assert other.plan == plain.plan
    assert other.collect().equals(plain.collect())
    dataset = from_arrow(rows(kind), features=["at"])
    assert ms.as_stream(dataset, event_time="at").collect().equals(plain.collect())


def test_one_table_is_one_source() -> None:
    table = rows(pa.large_string())
    left, right = (ms.as_stream(table, event_time="at", name="rows") for _ in range(2))
    assert left.lookback(right, on="key", over=US, n=ms.count()).collect()["n"].to_pylist() == [1, 1, 0]


@pytest.mark.parametrize("kind", LAYOUTS, ids=str)
def test_keys_in_any_layout_meet(kind: pa.DataType, tmp_path: Path) -> None:
    """Also where a step in the middle of the plan made the column, and in a topic."""
    mapped = ms.as_stream(rows(pa.string()), event_time="at", name="left").map_batches(
        lambda batch: batch.cast(rows(kind).schema), rows(kind).schema
    )
    right = ms.as_stream(rows(pa.string()), event_time="at", name="right")
    looked = mapped.lookback(right, on="key", over=US, n=ms.count())
    assert looked.collect()["n"].to_pylist() == [1, 1, 0]
    counted = mapped.key_by("key").window(ms.Tumbling(10 * US)).aggregate(n=ms.count())
    assert sorted(map(str, counted.collect()["key"].to_pylist())) == ["None", "a", "b"]
    with Log(tmp_path / "events") as log:
        topic = log.create_topic("keys", schema=mapped.schema)
        ms.run(mapped.to(topic), job="keys")
        assert read_topic(topic).to_table()["key"].to_pylist() == ["a", "b", None]
