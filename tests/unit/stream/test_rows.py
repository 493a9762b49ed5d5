"""Row-wise steps, aggregates at their edges, and what is said of rows that don't fit."""

import math
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import millstream.stream as ms
from millstream.errors import PlanError, SchemaError, StreamError
from millstream.log.one_text_type import one_text_type

US = timedelta(microseconds=1)
ROWS = pa.table({"at": [1, 2, 12], "key": ["a", "b", "a"], "x": [1.5, None, -2.0]})


def stream(table: pa.Table = ROWS, **more: object) -> ms.Stream:
    return ms.as_stream(table, event_time="at", **more)


def test_filter_takes_null_for_false() -> None:
    assert stream().filter(lambda rows: pc.greater(rows.column("x"), 0)).collect()["at"].to_pylist() == [1]


def test_rows_keep_their_time_when_its_column_goes() -> None:
    windows = (
        stream().select("x").window(ms.Tumbling(10 * US)).aggregate(n=ms.count(), x=ms.sum("x")).collect()
    )
    assert windows.select(["n", "x"]).to_pylist() == [{"n": 2, "x": 1.5}, {"n": 1, "x": -2.0}]


def test_a_table_without_a_delay_is_taken_in_event_time_order() -> None:
    backwards = ROWS.take([2, 1, 0])
    assert stream(backwards).collect()["at"].to_pylist() == [1, 2, 12]
    assert len(stream(backwards).late.collect()) == 0


def test_a_table_with_a_delay_arrives_in_the_order_of_its_rows() -> None:
    backwards = stream(ROWS.take([2, 1, 0]), delay=10 * US)
    assert backwards.collect()["at"].to_pylist() == [12, 2]
    assert backwards.late.collect()["at"].to_pylist() == [1]


def test_a_window_of_nulls_has_a_count_and_no_sum() -> None:
    windows = (
        stream()
        .key_by("key")
        .window(ms.Tumbling(10 * US))
        .aggregate(n=ms.count(), x=ms.sum("x"), m=ms.max("x"))
    )
    assert windows.collect().to_pylist()[1] == {
        "key": "b", "window_start": 0, "window_end": 10, "n": 1, "x": None, "m": None,
    }  # fmt: skip


def test_times_before_the_epoch_fall_into_the_window_that_holds_them() -> None:
    windows = stream(pa.table({"at": [-1, 0]})).window(ms.Tumbling(10 * US)).aggregate(n=ms.count()).collect()
    assert windows["window_start"].to_pylist() == [-10, 0]


def test_a_sum_survives_cancellation() -> None:
    rows = pa.table({"at": [1, 2, 3, 4], "x": [1e16, 1.0, -1e16, 1.0]})
    windows = stream(rows).window(ms.Tumbling(10 * US)).aggregate(s=ms.sum("x")).collect()
    assert windows["s"].to_pylist() == [2.0]
    looked = stream(rows).map_batches(
        lambda b: b.append_column("k", pa.array([1] * len(b))), rows.schema.append(pa.field("k", pa.int64()))
    )
    assert looked.lookback(looked, on="k", over=10 * US, s=ms.sum("x")).collect()["s"].to_pylist() == [
        1e16,
        1e16,
        1.0,
        2.0,
    ]


def test_nan_is_the_greatest_number() -> None:
    rows = pa.table({"at": [1, 2, 3], "x": pa.array([2.0, math.nan, 1.0], from_pandas=False)})
    row = (
        stream(rows)
        .window(ms.Tumbling(10 * US))
        .aggregate(low=ms.min("x"), high=ms.max("x"))
        .collect()
        .to_pylist()[0]
    )
    assert row["low"] == 1.0
    assert math.isnan(row["high"])


def test_an_integer_sum_is_exact_or_an_error() -> None:
    big = 2**62
    rows = pa.table({"at": [1, 2], "x": [big, 1]})
    assert stream(rows).window(ms.Tumbling(10 * US)).aggregate(s=ms.sum("x")).collect()["s"].to_pylist() == [
        big + 1
    ]
    over = pa.table({"at": [1, 2], "x": [big, big]})
    with pytest.raises(StreamError, match="sum 's' left the range of int64"):
        stream(over).window(ms.Tumbling(10 * US)).aggregate(s=ms.sum("x")).collect()


@pytest.mark.parametrize(
    "keys",
    [
        pa.array([1, 2, 1], pa.int32()),
        pa.array([True, False, True]),
        pa.array([b"\0", b"", b"\0"]),
        pa.array([date(2013, 1, 1), date(1969, 12, 31), date(2013, 1, 1)]),
        pa.array([5, -5, 5], pa.timestamp("ns", "UTC")),
        pa.array([2**64 - 1, 0, 2**64 - 1], pa.uint64()),
        pa.array(["a", "b", "a"], pa.large_string()),
    ],
    ids=lambda keys: str(keys.type),
)
def test_key_types(keys: pa.Array) -> None:
    rows = pa.table({"at": [1, 2, 3], "k": keys})
    windows = stream(rows).key_by("k").window(ms.Tumbling(10 * US)).aggregate(n=ms.count()).collect()
    assert windows.schema.field("k").type == one_text_type(keys.type)
    assert dict(zip(windows["k"].to_pylist(), windows["n"].to_pylist(), strict=True)) == {
        keys[0].as_py(): 2, keys[1].as_py(): 1,
    }  # fmt: skip


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_event_time_of_every_unit(unit: str) -> None:
    rows = pa.table(
        {
            "at": pa.array([1_000_000_000, 3_600_000_000_000], pa.timestamp("ns", "UTC")).cast(
                pa.timestamp(unit, "UTC")
            )
        }
    )
    windows = stream(rows).window(ms.Tumbling(timedelta(hours=1))).aggregate(n=ms.count()).collect()
    assert windows["window_end"].type == pa.timestamp(unit, "UTC")
    assert windows["window_end"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_pylist() == [
        3_600_000_000,
        7_200_000_000,
    ]


def test_a_null_event_time_is_an_error_that_says_where() -> None:
    with pytest.raises(
        SchemaError, match=r"source 'table', table, partition 0, offset 1: event time 'at' is null"
    ):
        stream(pa.table({"at": pa.array([1, None], pa.int64())}), delay=US).collect()


def test_functions_that_break_their_word_are_named() -> None:
    with pytest.raises(SchemaError, match="expected a Boolean array of 3 values"):
        stream().filter(lambda rows: rows.column("x")).collect()
    with pytest.raises(SchemaError, match="gave a RecordBatch of 1 rows"):
        stream().map_batches(lambda rows: rows.slice(0, 1), ROWS.schema).collect()


def test_every_row_is_used_late_or_filtered() -> None:
    """Two branches: a row is filtered when no branch takes it."""
    from millstream.stream.graph import Graph
    from millstream.stream.intake import Intake
    from millstream.stream.sources.table import whole_table

    table = pa.table({"at": np.r_[np.arange(100), 0, 1]})
    source = stream(table, delay=50 * US)
    even = source.filter(lambda rows: np.asarray(rows.column("at")) % 2 == 0)
    third = source.filter(lambda rows: np.asarray(rows.column("at")) % 3 == 0)
    graph = Graph(
        [even.plan, third.window(ms.Tumbling(10 * US)).aggregate(n=ms.count()).plan], lambda i, rows: None
    )
    intake = Intake(source.plan, whole_table(table, None))
    while not intake.finished:
        intake.poll(graph, 7, timedelta(0))
    taken = {n for n in range(100) if n % 2 == 0 or n % 3 == 0}
    assert (intake.counts.rows_in, intake.counts.used, intake.counts.late) == (102, len(taken), 2)
    assert intake.counts.filtered == 100 - len(taken)


def test_columns_that_may_not_be_null_and_metadata_make_no_other_plan() -> None:
    strict = pa.schema(
        [pa.field("at", pa.int64(), nullable=False), pa.field("k", pa.string(), metadata={"a": "b"})]
    )
    table = pa.table({"at": [1, 2], "k": ["a", "b"]}).cast(strict)
    loose = pa.table({"at": [1, 2], "k": ["a", "b"]})
    assert stream(table).plan == stream(loose).plan
    assert hash(stream(table).plan) == hash(stream(loose).plan)
    joined = stream(table).lookback(stream(loose, name="b"), on="k", over=10 * US, n=ms.count())
    kept = joined.map_batches(lambda rows: rows, joined.schema).filter(lambda rows: pc.equal(rows["n"], 1))
    assert kept.collect()["n"].to_pylist() == [1, 1]


def test_no_rows_give_no_rows() -> None:
    empty = ROWS.slice(0, 0)
    plan = stream(empty).lookback(
        stream(empty, name="b"), on="key", over=10 * US, n=ms.count(), s=ms.sum("x")
    )
    assert plan.collect().schema == plan.schema
    assert len(plan.collect()) == 0
    windows = stream(empty).key_by("key").window(ms.Tumbling(10 * US)).aggregate(n=ms.count())
    assert len(windows.collect()) == 0


def test_a_data_frame_is_a_table() -> None:
    frame = pd.DataFrame({"at": [1, 2], "key": ["a", "b"]})
    streamed = ms.as_stream(frame, event_time="at")
    assert streamed.collect().to_pylist() == frame.to_dict("records")
    assert streamed.plan == ms.as_stream(streamed.collect(), event_time="at").plan
    assert ms.as_stream(streamed.collect().to_batches()[0], event_time="at").plan == streamed.plan
    again = ms.as_stream(frame, event_time="at")
    assert streamed.lookback(again, on="key", over=US, n=ms.count()).collect()["n"].to_pylist() == [1, 1]


def test_what_is_no_source_or_aggregate_is_named() -> None:
    with pytest.raises(
        PlanError, match=r"a dict is no source; expected a Topic, .*hand in rows as pa\.table"
    ):
        ms.as_stream({"at": [1]}, event_time="at")  # type: ignore[arg-type]
    rows = stream(pa.table({"at": [1], "x": [1.0]}))
    with pytest.raises(PlanError, match=r"aggregate: m='mean'; expected count\(\), .*m=mean\('COLUMN'\)"):
        rows.window(ms.Tumbling(US)).aggregate(m="mean")  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="lookback: m='mean'"):
        rows.lookback(rows, on="at", over=US, m="mean")  # type: ignore[arg-type]
