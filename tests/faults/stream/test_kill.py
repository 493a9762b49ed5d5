"""SIGKILL of a job at named and at random moments: what comes out equals an undisturbed run, row for row, once each."""

import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from millstream.log import Log, read_topic
from millstream.stream import Moment

CHILD = Path(__file__).with_name("doomed_job.py")
ROWS = pa.schema([("at", pa.int64()), ("key", pa.string()), ("x", pa.float64())])
LOOKED = pa.schema([*ROWS, ("n", pa.int64()), ("total", pa.float64())])


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    rng = np.random.default_rng(1)
    with Log(tmp_path / "events") as log:
        for name, n in (("left", 3000), ("right", 4000)):
            topic = log.create_topic(name, partitions=3, schema=ROWS)
            at = np.sort(rng.integers(0, 20_000, n)) - rng.integers(0, 55, n) - (rng.random(n) < 0.02) * 500
            rows = {"at": at, "key": rng.choice(list("abcd"), n), "x": rng.normal(0, 1, n)}
            partition = pa.array(rng.integers(0, 3, n), pa.int32())
            topic.append(pa.table(rows, ROWS).append_column("partition", partition), partition="partition")
        yield log


def make_sinks(log: Log) -> None:
    log.create_topic("looked", partitions=2, schema=LOOKED)
    log.create_topic("late", partitions=1, schema=ROWS)


def child(log: Log, tmp_path: Path, *death: object) -> subprocess.CompletedProcess[str]:
    where = [log.directory, tmp_path / "windows", tmp_path / "state"]
    command = [sys.executable, CHILD, *where, *death]
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=60, check=False)


def topic_rows(log: Log, name: str) -> list[dict[str, object]]:
    """Every row, in partition and offset order."""
    topic = log[name]
    return read_topic(topic).select([*topic.schema.names, "_partition"]).to_table().to_pylist()


def results(log: Log, tmp_path: Path) -> dict[str, list[dict[str, object]]]:
    files = sorted((tmp_path / "windows").glob("*.parquet"))
    late = sorted(topic_rows(log, "late"), key=lambda row: list(row.values()))
    windows = [row for file in files for row in pq.read_table(file).to_pylist()]
    return {"looked": topic_rows(log, "looked"), "late": late, "windows": windows}


def undisturbed(log: Log, tmp_path: Path) -> dict[str, list[dict[str, object]]]:
    """The results of one run without a kill, in topics and a directory of its own."""
    other = tmp_path / "undisturbed"
    other.mkdir()
    with Log(other / "events") as twin:
        for name in ("left", "right"):
            rows = read_topic(log[name]).to_table()
            topic = twin.create_topic(name, partitions=3, schema=ROWS)
            topic.append(rows, partition="_partition")
        make_sinks(twin)
        done = child(twin, other)
        assert done.returncode == 0, done.stderr
        return results(twin, other)


@pytest.mark.slow
def test_output_equals_that_of_an_undisturbed_run(log: Log, tmp_path: Path) -> None:
    chance = random.Random(20)
    make_sinks(log)
    between = [Moment.MANIFEST_COMMITTED, Moment.SINK_PUBLISHED]
    deaths: list[tuple[Moment, int, float]] = [
        *((moment, chance.randint(1, 6), 0) for moment in (*Moment, *between)),
        *((Moment.MANIFEST_COMMITTED, chance.randint(1, 6), chance.uniform(0, 10)) for _ in range(2)),
        *((Moment.ROWS, chance.randint(1, 9), chance.uniform(0, 30)) for _ in range(2)),
    ]
    chance.shuffle(deaths)
    killed = 0
    for moment, count, milliseconds in deaths:
        if moment is Moment.RESTORED and killed == 0:
            continue  # nothing to restore yet
        run = child(log, tmp_path, moment, 1 if moment is Moment.RESTORED else count, milliseconds)
        assert run.returncode == -signal.SIGKILL, (moment, run.stdout, run.stderr)
        killed += 1
    assert killed >= 9
    done = child(log, tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["resumed_from"] > 5
    for name, counts in report["sources"].items():
        assert counts["rows_in"] == sum(log[name].end_offsets()) == counts["used"] + counts["late"]
    found, expected = results(log, tmp_path), undisturbed(log, tmp_path)
    assert len(found["late"]) == report["sources"]["right"]["late"] > 20
    assert report["out"][str((tmp_path / "windows").absolute())] == len(found["windows"]) > 500
    assert found["looked"] == expected["looked"]
    assert found["late"] == expected["late"]
    for got, wanted in zip(found["windows"], expected["windows"], strict=True):
        assert got | {"total": 0} == wanted | {"total": 0}
        assert got["total"] == pytest.approx(wanted["total"], rel=1e-9, abs=1e-12)
