"""Scoring that is killed leaves nothing half done, and a second run completes it."""

import hashlib
import importlib.util
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

import millstream as ms
from millstream.errors import DeployError, InputError
from millstream.learn import KMeans

PROGRAM = Path(__file__).with_name("scoring.py")
spec = importlib.util.spec_from_file_location("scoring", PROGRAM)
scoring = importlib.util.module_from_spec(spec)
spec.loader.exec_module(scoring)


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    registry = ms.Registry(tmp_path_factory.mktemp("models"))
    X = np.random.default_rng(0).normal(0, 1, (500, 3))
    registry.register("zones", KMeans(n_clusters=4, random_state=7).fit(X), data=X)
    return registry


def begin(kind, registry, place):
    program = [sys.executable, str(PROGRAM), kind, str(registry.path), str(place)]
    return subprocess.Popen(program, stdout=subprocess.PIPE, text=True)


def digests(sink):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sink.glob("*.parquet")}


def test_batch_killed_at_random_moments_ends_with_the_same_files(registry, tmp_path):
    (tmp_path / "calm").mkdir()
    (tmp_path / "torn").mkdir()
    assert begin("batch", registry, tmp_path / "calm").wait(60) == 0
    chance = random.Random(5)
    scored = set()
    for _ in range(4):
        process = begin("batch", registry, tmp_path / "torn")
        for _ in range(len(scored) + chance.randrange(1, 30)):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
        now = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "torn" / "scored").glob("*.parquet")}
        finished = set((tmp_path / "torn" / "scored" / "_manifest.jsonl").read_text().splitlines()[1:])
        assert len(finished) <= len(now)
        assert scored <= finished
        scored = finished
    assert 0 < len(scored) < 200
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "torn" / "scored").glob("*.parquet")}
    ended = begin("batch", registry, tmp_path / "torn")
    assert "done" in ended.communicate(timeout=60)[0]
    assert digests(tmp_path / "torn" / "scored") == digests(tmp_path / "calm" / "scored")
    after = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "torn" / "scored").glob("*.parquet")}
    again = [name for name in before if before[name] != after[name]]
    assert len(again) <= len(before) - len(scored)
    report = ms.BatchJob(registry.get("zones", 1), ms.from_arrow(scoring.rides(40_000), part_rows=200),
                         tmp_path / "torn" / "scored").run()  # fmt: skip
    assert (report.parts, report.scored) == (200, 0)


@pytest.fixture
def database(tmp_path):
    connection = sqlite3.connect(tmp_path / "x.db")
    connection.execute("CREATE TABLE rides (id INTEGER PRIMARY KEY, x0 REAL, x1 REAL, x2 REAL)")
    rows = zip(*(column.to_pylist() for column in scoring.rides(60_000).columns), strict=True)
    connection.executemany("INSERT INTO rides VALUES (?, ?, ?, ?)", rows)
    connection.commit()
    yield connection
    connection.close()


def tables(connection):
    return sorted(row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'"))


def test_a_killed_database_run_leaves_no_table(registry, database, tmp_path):
    process = begin("database", registry, tmp_path)
    while "16384" not in process.stdout.readline():
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert tables(database) == ["rides"]
    assert begin("database", registry, tmp_path).wait(60) == 0
    assert database.execute("SELECT count(*) FROM zones").fetchone() == (60_000,)


def test_a_killed_second_run_leaves_the_answers_of_the_first(registry, database, tmp_path):
    assert begin("database", registry, tmp_path).wait(60) == 0
    first = database.execute("SELECT * FROM zones").fetchall()
    database.execute("UPDATE rides SET x0 = -x0, x1 = -x1")
    database.commit()
    process = begin("database", registry, tmp_path)
    while "16384" not in process.stdout.readline():
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert database.execute("SELECT * FROM zones").fetchall() == first


def test_a_write_that_fails_in_the_middle_leaves_nothing(registry, database, tmp_path):
    """The disk fills up: SQLite refuses to grow past a number of pages."""
    version = registry.get("zones", 1)
    pages = database.execute("PRAGMA page_count").fetchone()[0]
    scorer = ms.DatabaseScorer(version, f"sqlite:///{tmp_path / 'x.db'}", table="rides", into="zones")
    engine = scorer._engine()

    from sqlalchemy import event

    @event.listens_for(engine, "connect")
    def bound(connection, record):
        connection.execute(f"PRAGMA max_page_count = {pages + 20}")

    scorer._engine = lambda: engine
    with pytest.raises(DeployError, match=r"x.db' fails: .*full; nothing was written: make room"):
        scorer.run()
    assert tables(database) == ["rides"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_ends_clean_on_a_signal(registry, number):
    port = free_port()
    process = begin("serve", registry, port)
    url = f"http://127.0.0.1:{port}"
    assert ready(url)
    process.send_signal(number)
    assert "done" in process.communicate(timeout=30)[0]
    assert process.returncode == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)
    with ms.ModelServer(registry.get("zones", 1)).start(port):
        pass


def test_a_killed_server_frees_its_port(registry):
    port = free_port()
    process = begin("serve", registry, port)
    assert ready(f"http://127.0.0.1:{port}")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    with ms.ModelServer(registry.get("zones", 1)).start(port) as server:
        assert httpx.get(f"{server.url}/v2/health/ready").status_code == 200


def test_a_signal_before_it_is_ready_ends_it_too(registry):
    process = begin("serve", registry, free_port())
    process.stdout.readline()
    time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode in (0, -signal.SIGTERM)


def ready(url):
    for _ in range(600):
        try:
            if httpx.get(f"{url}/v2/health/ready").status_code == 200:
                return True
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    return False


def test_a_registry_on_a_place_that_can_not_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't hold a registry"):
        ms.Registry(tmp_path / "file")
