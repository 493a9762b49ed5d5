"""Plans: equal, printable, and refused before the first row when they can't run."""

from datetime import timedelta

import pyarrow as pa
import pytest

import millstream.stream as ms
from millstream.errors import PlanError

HOUR = timedelta(hours=1)
FLIGHTS = pa.schema([("at", pa.timestamp("us", "UTC")), ("origin", pa.string()), ("delay", pa.float64())])


def flights(name: str = "flights", **more: object) -> ms.Stream:
    return ms.as_stream(FLIGHTS.empty_table(), event_time="at", name=name, **more)


def windowed() -> ms.Stream:
    return (
        flights().key_by("origin").window(ms.Tumbling(HOUR)).aggregate(n=ms.count(), delay=ms.mean("delay"))
    )


def test_plans_of_equal_meaning_are_equal() -> None:
    assert windowed().plan == windowed().plan
    assert hash(windowed().plan) == hash(windowed().plan)
    assert (
        windowed().plan
        != flights().key_by("origin").window(ms.Tumbling(2 * HOUR)).aggregate(n=ms.count()).plan
    )
    assert flights().plan != flights(delay=HOUR).plan


def test_a_plan_prints_as_a_tree() -> None:
    assert str(windowed().plan) == (
        "tumbling 1:00:00 by origin: n=count(), delay=mean(delay)\n  source flights (event time at, in order)"
    )


def test_the_replay_of_a_topic_has_the_plan_of_the_topic() -> None:
    from millstream.data import from_arrow

    columns = [*FLIGHTS, pa.field("_partition", pa.int32()), pa.field("_offset", pa.int64())]
    replayed = ms.as_stream(
        from_arrow(pa.schema(columns).empty_table()), event_time="at", delay=HOUR, name="flights"
    )
    assert replayed.plan == flights(delay=HOUR).plan


def test_schemas() -> None:
    assert windowed().schema.names == ["origin", "window_start", "window_end", "n", "delay"]
    assert windowed().schema.field("window_end").type == pa.timestamp("us", "UTC")
    looked = flights().lookback(flights("other"), on="origin", over=HOUR, n=ms.count(), d=ms.min("at"))
    assert looked.schema.types[-2:] == [pa.int64(), pa.timestamp("us", "UTC")]
    other = flights("other").map_batches(
        lambda b: b.rename_columns(["at", "origin", "wind"]), FLIGHTS.set(2, pa.field("wind", pa.float64()))
    )
    assert flights().latest(other, on="origin").schema.names == ["at", "origin", "delay", "wind"]


REFUSED = {
    "event time missing": (
        lambda: ms.as_stream(FLIGHTS.empty_table(), event_time="when"),
        "event_time='when'",
    ),
    "event time of a wrong type": (
        lambda: ms.as_stream(FLIGHTS.empty_table(), event_time="delay"),
        "is double",
    ),
    "no source": (lambda: ms.as_stream([1, 2], event_time="at"), "list is no source"),
    "delay a number": (lambda: flights(delay=5), "delay=5"),
    "delay negative": (lambda: flights(delay=-HOUR), "delay is -3600000000"),
    "unknown key": (
        lambda: flights().key_by("dest").window(ms.Tumbling(HOUR)).aggregate(n=ms.count()),
        "'dest'",
    ),
    "float key": (
        lambda: flights().lookback(flights("o"), on="delay", over=HOUR, n=ms.count()),
        "key 'delay' is double",
    ),
    "unknown aggregate column": (
        lambda: flights().window(ms.Tumbling(HOUR)).aggregate(n=ms.sum("dest")),
        "sum(dest)",
    ),
    "sum of strings": (
        lambda: flights().window(ms.Tumbling(HOUR)).aggregate(n=ms.sum("origin")),
        "of type string",
    ),
    "sum of moments": (
        lambda: flights().window(ms.Tumbling(HOUR)).aggregate(n=ms.sum("at")),
        "of type timestamp",
    ),
    "no aggregate": (lambda: flights().window(ms.Tumbling(HOUR)).aggregate(), "no aggregate"),
    "window of no length": (lambda: ms.Tumbling(timedelta(0)), "above zero"),
    "over a number": (
        lambda: flights().lookback(flights("o"), on="origin", over=3600, n=ms.count()),
        "over=3600",
    ),
    "name clash": (
        lambda: flights().lookback(flights("o"), on="origin", over=HOUR, delay=ms.count()),
        "delay would",
    ),
    "latest clash": (lambda: flights().latest(flights("o"), on="origin"), "delay would stand twice"),
    "unknown select": (lambda: flights().select("origin", "dest"), "'dest' is not a column"),
    "two sources of one name": (
        lambda: flights().lookback(flights(), on="origin", over=HOUR, n=ms.count()),
        "two sources are called 'flights'",
    ),
    "windows of late rows": (
        lambda: flights().late.window(ms.Tumbling(HOUR)).aggregate(n=ms.count()),
        "late rows",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_the_first_row(name: str) -> None:
    make, says = REFUSED[name]
    with pytest.raises(PlanError, match=says.replace("(", r"\(").replace(")", r"\)")):
        make()


def test_keys_of_two_types_are_refused() -> None:
    numbered = ms.as_stream(
        pa.table({"at": pa.array([], pa.int64()), "origin": pa.array([], pa.int32())}),
        event_time="at",
        name="n",
    )
    with pytest.raises(PlanError, match="string on the left and int32 on the right"):
        flights().lookback(numbered, on="origin", over=HOUR, n=ms.count())
