"""Promise 3: batch, database, stream, server and edge give the predictions recorded when the model was registered, or
the release is refused. Over every estimator with an ONNX form and every target there is; both are discovered."""

import dataclasses
import functools
import json
import sqlite3
import subprocess
import sys
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import millstream as ms
from millstream import deploy, learn
from millstream.deploy import Target
from millstream.errors import ParityError
from millstream.models import Bundle, compare
from millstream.models.feeds import flat_rows
from millstream.models.outputs import to_batch

ROWS = 300
NUMBERS, TEXTS = ["delay", "distance", "spread"], ["carrier", "dest"]
COUNTS = ["pax", "night"]  # integers with nulls, Booleans


# The estimators, each fitted on rows it is meant for. Another seed is another model of the same shape.


@functools.cache
def table(seed):
    """Numbers with nulls and over eight decades, integers with and without nulls, Booleans, and text with nulls, quotes
    and letters beyond ASCII."""
    rng = np.random.default_rng(seed)
    carriers = ["AA", "O'Hare", 'say "hi"', "Zürich", f"only{seed}"]
    decades = rng.normal(0, 1, ROWS) * 10.0 ** rng.integers(-4, 4, ROWS)
    return pa.table(
        {
            "delay": pa.array(rng.normal(10 + seed, 20, ROWS), mask=rng.random(ROWS) < 0.1),
            "distance": pa.array(rng.integers(80, 2500, ROWS), pa.int32()),
            "spread": decades * (1 + seed),
            "pax": pa.array(rng.integers(20, 300, ROWS), mask=rng.random(ROWS) < 0.1),
            "night": rng.random(ROWS) < 0.3,
            "carrier": pa.array(rng.choice(carriers, ROWS).tolist()),
            "dest": pa.array([None if i % 11 == 0 else f"D{i % 7 + seed}" for i in range(ROWS)]),
        }
    )


def late(rows):
    return np.array(["early", "late", "on time"])[
        np.digitize(rows["delay"].fill_null(0).to_numpy(), [0.0, 20.0])
    ]


def features():
    numbers = learn.Pipeline([("impute", learn.SimpleImputer()), ("scale", learn.StandardScaler())])
    texts = learn.OneHotEncoder(handle_unknown="ignore")
    return learn.ColumnTransformer([("numbers", numbers, NUMBERS + COUNTS), ("texts", texts, TEXTS)])


def on_columns(kind, seed):
    rows = table(seed)
    X = pa.table({name: rows[name].fill_null(0) for name in NUMBERS})
    return seeded(kind).fit(X, late(rows)), X


def on_an_array(kind, seed):
    rows = table(seed)
    X = np.stack([rows[name].fill_null(0).to_numpy() for name in NUMBERS], axis=1).astype(float)
    return seeded(kind).fit(X, late(rows)), X


def on_nulls(kind, seed):
    X = table(seed).select(NUMBERS)
    return kind().fit(X), X


def on_texts(kind, seed):
    X = pa.table({name: table(seed)[name].fill_null("") for name in TEXTS})
    return kind(handle_unknown="ignore").fit(X), X


def on_gaps(kind, seed):
    X = np.stack([table(seed)[name].to_numpy() for name in NUMBERS], axis=1).astype(float)
    return kind().fit(X), X


def on_everything(kind, seed):
    return features().fit(table(seed)), table(seed)


def before_two_classes(kind, seed):
    steps = [("features", features()), ("model", learn.LogisticRegression())]
    return kind(steps).fit(table(seed), late(table(seed)) == "late"), table(seed)


def before_clusters(kind, seed):
    steps = [("features", features()), ("model", learn.KMeans(n_clusters=3, random_state=1))]
    return kind(steps).fit(table(seed)), table(seed)


def seeded(kind):
    return kind(random_state=1) if "random_state" in kind().get_params() else kind()


RECIPES = {
    learn.ColumnTransformer: [on_everything],
    learn.OneHotEncoder: [on_texts],
    learn.Pipeline: [before_two_classes, before_clusters],
    learn.SimpleImputer: [on_nulls, on_gaps],
}

ESTIMATORS = [
    pytest.param(functools.partial(recipe, kind), id=f"{kind.__name__}-{recipe.__name__}")
    for kind in dict.fromkeys([*learn.estimators(), learn.Pipeline])
    for recipe in RECIPES.get(kind, [on_columns, on_an_array])
]


# The targets, each run as a user runs it


def batch(version, rows, place, log):
    ms.BatchJob(version, source=rows, sink=place / "scored", keep=["id"]).run()
    return ms.read_parquet(place / "scored").to_table()


def database(version, rows, place, log, as_sql=False):
    kinds = {"string": "TEXT", "double": "REAL", "int32": "INTEGER", "int64": "INTEGER", "bool": "BOOLEAN"}
    columns = [f"{f.name} {kinds[str(f.type)]}" + " PRIMARY KEY" * (f.name == "id") for f in rows.schema]
    connection = sqlite3.connect(place / "x.db")
    connection.execute(f"CREATE TABLE rides ({', '.join(columns)})")
    values = zip(*(column.to_pylist() for column in rows.columns), strict=True)
    connection.executemany(f"INSERT INTO rides VALUES ({', '.join('?' * rows.num_columns)})", values)  # noqa: S608
    connection.commit()
    url = f"sqlite:///{place / 'x.db'}"
    ms.DatabaseScorer(version, url, table="rides", into="answers", as_sql=as_sql).run()
    found = connection.execute("SELECT * FROM answers ORDER BY id")
    names = [column[0] for column in found.description]
    answers = pa.table(dict(zip(names, map(list, zip(*found, strict=True)), strict=True)))
    connection.close()
    return answers


def stream(version, rows, place, log):
    source = log.create_topic(f"{place.name}-rides", partitions=2, schema=rows.schema)
    source.append(rows)
    live = ms.as_stream(source, event_time="id", delay=timedelta(0), bounded=True)
    sink = log.create_topic(f"{place.name}-scored", schema=ms.StreamJob.plan(version, live, ["id"]).schema)
    ms.StreamJob(version, live, sink, keep=["id"]).run(checkpoint=place / "state")
    return ms.read_topic(sink).to_table().sort_by("id")


def server(version, rows, place, log):
    with ms.ModelServer(version) as running, running.client() as client:
        return client.predict(rows)


def edge(version, rows, place, log):
    ms.EdgeBundle(version).write(place / "edge")
    lines = "".join(json.dumps(row) + "\n" for row in rows.to_pylist())
    program = [sys.executable, "-I", str(place / "edge" / "predict.py")]
    ended = subprocess.run(program, input=lines, capture_output=True, text=True, timeout=60, check=True)
    return pa.Table.from_pylist([json.loads(line) for line in ended.stdout.splitlines()])


TARGETS = {
    "batch": [batch],
    "database": [database, functools.partial(database, as_sql=True)],
    "stream": [stream],
    "server": [server],
    "edge": [edge],
}
RUNS = [
    pytest.param(t, run, id=f"{t}-{i}" if i else t)
    for t, runs in TARGETS.items()
    for i, run in enumerate(runs)
]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    with ms.Log(tmp_path_factory.mktemp("log")) as log:
        yield log


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    """The version, its estimator and its rows, by recipe; each estimator is fitted once."""
    registry = ms.Registry(tmp_path_factory.mktemp("models"))

    @functools.cache
    def registered(fit, seed=0):
        estimator, X = fit(seed)
        return registry.register(f"model{seed}", estimator, data=X), estimator, X

    return registered


def flat_with_id(version, X):
    rows = (X if isinstance(X, pa.Table) else ms.from_numpy(X).to_table()).combine_chunks().to_batches()[0]
    flat = pa.Table.from_batches([flat_rows(version.signature, rows)])
    for i, field in enumerate(flat.schema):
        if pa.types.is_floating(field.type):
            flat = flat.set_column(
                i, field.name, pc.if_else(pc.is_nan(flat[field.name]), None, flat[field.name])
            )
    return flat.append_column("id", pa.array(np.arange(len(flat))))


def test_every_target_has_a_run_here():
    assert [getattr(deploy, name) for name in deploy.__all__]  # each is loaded on first use
    assert {kind.target for kind in Target.__subclasses__()} == TARGETS.keys()


@pytest.mark.parametrize(("target", "run"), RUNS)
@pytest.mark.parametrize("fit", ESTIMATORS)
def test_every_target_answers_as_the_estimator(fit, target, run, registered, log, tmp_path):
    version, estimator, X = registered(fit)
    answers = run(version, flat_with_id(version, X), tmp_path, log)
    assert compare(to_batch(learn.outputs(estimator, X)), answers).holds
    reports = version.registry.parity(version.name, version.number)
    assert [r.parity.holds for r in reports if r.target == target][-1]
    assert target in {d.target for d in version.registry.deployments(version.name, version.number)}


@pytest.mark.parametrize(("target", "run"), RUNS)
@pytest.mark.parametrize("fit", ESTIMATORS[-3:])
def test_another_model_under_the_same_golden_rows_is_refused(fit, target, run, registered, log, tmp_path):
    version, _, X = registered(fit)
    other, _, _ = registered(fit, seed=1)
    planted = Bundle.write(
        tmp_path / "planted",
        model=other.bundle.read("model.onnx"),
        signature=other.signature,
        golden=version.golden,
        reference={},
        lineage={},
    )
    fresh = dataclasses.replace(other, bundle=planted)
    live = len(version.registry.deployments(other.name, other.number))
    with pytest.raises(ParityError, match="refused"):
        run(fresh, flat_with_id(version, X), tmp_path, log)
    reports = version.registry.parity(other.name, other.number)
    assert (reports[-1].target, reports[-1].parity.holds) == (target, False)
    assert len(version.registry.deployments(other.name, other.number)) == live
    assert not (tmp_path / "scored").exists()
    assert not (tmp_path / "edge").exists()
    with pytest.raises(ParityError):
        version.registry.add(
            "planted",
            Bundle.write(
                version.path.parent,
                model=other.bundle.read("model.onnx"),
                signature=other.signature,
                golden=version.golden,
                reference={},
                lineage={},
            ),
        )
