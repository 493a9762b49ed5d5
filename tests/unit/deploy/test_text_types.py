"""Text is text in each of the types Arrow has for it, from training to every target; pandas 3 writes large_string."""

import json
import sqlite3
import subprocess
import sys
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

import millstream as ms
from millstream import learn
from millstream.models import compare, flat

ROWS = 120
TYPES = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
each_type = pytest.mark.parametrize("kind", TYPES, ids=str)


def zones(kind):
    """Zones and targets as `kind`; one zone is null."""
    rng = np.random.default_rng(2)
    zone = [None, *rng.choice(["north", "south", "east"], ROWS - 1).tolist()]
    late = ["late" if z == "north" else "early" for z in zone]
    as_kind = [pa.array(values, pa.string()).cast(kind) for values in (zone, late)]
    return pa.table(
        {"id": np.arange(ROWS), "zone": as_kind[0], "fare": rng.normal(0, 1, ROWS), "late": as_kind[1]}
    )


@pytest.fixture
def trained(registry):
    def trained(kind):
        rows = ms.from_arrow(zones(kind), features=["zone", "fare"], target="late", part_rows=50)
        texts = ("texts", learn.OneHotEncoder(handle_unknown="ignore"), ["zone"])
        columns = learn.ColumnTransformer([texts, ("numbers", learn.StandardScaler(), ["fare"])])
        model = learn.Pipeline([("columns", columns), ("model", learn.LogisticRegression())]).fit(rows)
        return registry.register(f"text-{TYPES.index(kind)}", model, data=rows)

    return trained


@pytest.fixture
def expected(trained):
    version = trained(pa.string())
    return flat(version.scorer().predict(zones(pa.string())))


@each_type
def test_batch(kind, trained, expected, tmp_path):
    rows = zones(kind).drop_columns(["late"])
    ms.BatchJob(trained(kind), rows, tmp_path / "scored").run()
    assert compare(expected, ms.read_parquet(tmp_path / "scored").to_table()).holds


@each_type
@pytest.mark.parametrize("as_sql", [False, True])
def test_database(kind, as_sql, trained, expected, tmp_path):
    with sqlite3.connect(tmp_path / "x.db") as connection:
        connection.execute("CREATE TABLE rides (id INTEGER PRIMARY KEY, zone TEXT, fare REAL)")
        rows = [tuple(row.values())[:3] for row in zones(kind).to_pylist()]
        connection.executemany("INSERT INTO rides VALUES (?, ?, ?)", rows)
    url = f"sqlite:///{tmp_path / 'x.db'}"
    ms.DatabaseScorer(trained(kind), url, table="rides", into="answers", as_sql=as_sql).run()
    found = connection.execute("SELECT label, probability FROM answers ORDER BY id").fetchall()
    connection.close()
    assert compare(expected, pa.table(list(zip(*found, strict=True)), names=["label", "probability"])).holds


@each_type
def test_stream_between_topics_and_from_a_table(kind, trained, expected, tmp_path):
    version = trained(kind)
    with ms.Log(tmp_path / "log") as log:
        source = log.create_topic("rides", schema=zones(pa.string()).schema)
        source.append(zones(pa.string()))
        live = ms.as_stream(source, event_time="id", delay=timedelta(0), bounded=True)
        sink = log.create_topic("scored", schema=ms.StreamJob.plan(version, live, ["id"]).schema)
        ms.StreamJob(version, live, sink, keep=["id"]).run()
        assert compare(expected, ms.read_topic(sink).to_table().sort_by("id")).holds
    if pa.types.is_string_view(kind):
        return  # a table of which as_stream itself can't sort
    table = ms.as_stream(zones(kind), event_time="id")
    ms.StreamJob(version, table, tmp_path / "scored").run()
    found = ms.read_parquet(tmp_path / "scored").to_table().sort_by("id")
    assert compare(expected, found).holds


@each_type
def test_server(kind, trained, expected):
    with ms.ModelServer(trained(kind)) as server, server.client() as client:
        assert compare(expected, client.predict(zones(kind))).holds


@each_type
def test_edge(kind, trained, expected, tmp_path):
    place = ms.EdgeBundle(trained(kind)).write(tmp_path / "edge").path
    lines = "".join(json.dumps(row) + "\n" for row in zones(kind).to_pylist())
    program = [sys.executable, "-I", str(place / "predict.py")]
    ended = subprocess.run(program, input=lines, capture_output=True, text=True, timeout=60, check=True)
    assert compare(
        expected, pa.Table.from_pylist([json.loads(line) for line in ended.stdout.splitlines()])
    ).holds
