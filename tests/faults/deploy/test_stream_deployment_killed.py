"""SIGKILL of the stream deployment at 20 moments, five of them between manifest and publish: nothing lost, none twice.

Real flights come in bit by bit, through the broker over three partitions; the deployment runs the feature plan of the
quick start and a registered model. Every death is a real SIGKILL of its own process, which is then started again. In
the end the output topic must equal, record for record, that of a deployment that was never disturbed.
"""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import millstream as ms
from faults.deploy.doomed_deployment import SOURCES, live_features
from millstream.cli.quickstart import events, plan
from millstream.stream import Moment

CHILD = Path(__file__).with_name("doomed_deployment.py")
PARTITIONS, DEATHS, HOURS_A_SLICE = 3, 20, 6
BEGIN = pa.scalar(1_357_034_400_000_000, events.TIME)  # 2013-01-01 10:00 UTC


def slices() -> dict[str, list[pa.Table]]:
    """What arrives before each start of the deployment: `HOURS_A_SLICE` hours of flights and weather."""
    rng = np.random.default_rng(7)
    found = {}
    for name, table in events.flight_events().items():
        if name in SOURCES:
            rows = events.arrival_order(table.filter(pc.greater_equal(table["at"], BEGIN)), rng)
            hours = (np.asarray(rows["at"].cast("int64")) - BEGIN.cast("int64").as_py()) / 3.6e9
            ends = np.searchsorted(np.maximum.accumulate(hours), np.arange(DEATHS + 2) * HOURS_A_SLICE)
            found[name] = [rows.slice(a, b - a) for a, b in pairwise(ends)]
    return found


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A folder with a log that has yet no event, and a model in production; the broker runs as long as the test."""
    with ms.Log(tmp_path / "events") as log:
        training = {}
        for name, arrived in slices().items():
            log.create_topic(name, partitions=PARTITIONS, schema=arrived[0].schema)
            training[name] = ms.as_stream(
                pa.concat_tables(arrived), event_time="at", delay=events.DELAY, name=name
            )
        features = plan.features(**training).collect()
        late = pa.array((np.asarray(features["flight_id"]) % 3 == 0).astype(np.int64))
        columns = [*plan.CATEGORIES, *plan.NUMBERS]
        data = ms.from_arrow(features.select(columns).append_column("late", late), target="late")
        registry = ms.Registry(tmp_path / "models")
        registry.register("delay", plan.delay_model(engine=ms.Threads(1)).fit(data), data=data)
        registry.promote("delay", 1)
        yield tmp_path


def make_sink(home: Path, log: ms.Log) -> ms.Topic:
    version = ms.Registry(home / "models").get("delay", 1)
    schema = ms.StreamJob.plan(version, live_features(log)).schema
    return log.create_topic("predictions", partitions=PARTITIONS, schema=schema)


def append(log: ms.Log, arrived: dict[str, pa.Table]) -> None:
    for name, rows in arrived.items():
        log[name].append(rows, key=events.KEYS[name])


def push_watermarks(log: ms.Log) -> None:
    """One event two hours after the last slice in every partition, so that all that came before is final."""
    end = pc.add(BEGIN, pa.scalar(((DEATHS + 1) * HOURS_A_SLICE + 2) * 3_600_000_000, pa.duration("us")))
    for name in SOURCES:
        rows = ms.read_topic(log[name]).to_table().drop_columns(["_partition", "_offset", "_timestamp"])
        row = rows.slice(0, 1).set_column(0, "at", pa.array([end], events.TIME))
        each = pa.concat_tables([row] * PARTITIONS).append_column(
            "to", pa.array(range(PARTITIONS), pa.int32())
        )
        log[name].append(each, partition="to")


def deaths() -> list[tuple[Moment, int, float]]:
    """Five between manifest and publish, the others at moments drawn at random, at once or up to 25 ms later."""
    chance = random.Random(1912)
    between = [(Moment.MANIFEST_COMMITTED, chance.randint(2, 5), 0.0) for _ in range(5)]
    moments = [Moment.ROWS, Moment.SNAPSHOT, Moment.SINK_PUBLISHED, Moment.PUBLISHED]
    anywhere = [
        (chance.choice(moments), chance.randint(2, 5), chance.choice([0.0, chance.uniform(0.1, 25)]))
        for _ in range(DEATHS - len(between))
    ]
    drawn = between + anywhere
    chance.shuffle(drawn)
    return drawn


def deployment(home: Path, *death: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(CHILD), str(home), *map(str, death)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(home: Path, topic: ms.Topic, rows: int) -> dict[str, int]:
    """Let the deployment run until `rows` rows are out, stop it with SIGTERM, and return what it counted."""
    running = deployment(home)
    try:
        until = time.monotonic() + 60
        while sum(topic.end_offsets()) < rows and running.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
        time.sleep(0.5)  # time enough to write a row twice, if it did
        running.terminate()
        out, err = running.communicate(timeout=30)
    finally:
        running.kill()
    assert running.returncode == 0, err
    return dict(json.loads(out))


def published(topic: ms.Topic) -> list[dict[str, object]]:
    """Every record, in partition and offset order, but for the time it was written."""
    return ms.read_topic(topic).to_table().drop_columns(["_timestamp"]).to_pylist()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_output_equals_that_of_an_undisturbed_deployment(home: Path) -> None:
    log = ms.Log(home / "events")
    topic = make_sink(home, log)
    arriving = slices()
    grown = 0
    for k, death in enumerate(deaths()):
        append(log, {name: arriving[name][k] for name in SOURCES})
        before = sum(topic.end_offsets())
        running = deployment(home, *death)
        _, err = running.communicate(timeout=60)
        assert running.returncode == -signal.SIGKILL, err
        grown += sum(topic.end_offsets()) > before
    assert grown >= 8, "too few of the killed deployments had published anything"
    append(log, {name: arriving[name][-1] for name in SOURCES})
    push_watermarks(log)

    history = {
        name: ms.as_stream(ms.read_topic(log[name]), event_time="at", delay=events.DELAY, name=name)
        for name in SOURCES
    }
    on_time = (
        plan.features(**history).collect().num_rows - PARTITIONS
    )  # the last events push, and are not final
    counts = finish(home, topic, on_time)
    found = published(topic)

    log.delete_topic("predictions")
    (home / "state").rename(home / "state-of-the-killed")
    topic = make_sink(home, log)
    undisturbed = finish(home, topic, on_time)

    assert counts == undisturbed
    assert counts["out"] == len(found) == on_time > 3000
    assert found == published(topic)
