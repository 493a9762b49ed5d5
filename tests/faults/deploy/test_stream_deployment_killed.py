"""SIGKILL of the stream deployment at 20 moments, five of them between manifest and publish: nothing lost, none twice.

Real flights, the feature plan of the quick start, a registered model, the broker in this process's care. Every death is
a real SIGKILL of the deployment's own process, which is then started again; in the end the output topic must equal,
record for record, that of a deployment that was never disturbed.
"""

import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import millstream as ms
from faults.deploy.doomed_deployment import SOURCES, live_features
from millstream.cli.quickstart import events, plan
from millstream.stream import Moment

CHILD = Path(__file__).with_name("doomed_deployment.py")
PARTITIONS = 3


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A folder with three days of flights in a log and a model in production; the broker runs as long as the test."""
    rng = np.random.default_rng(7)
    with ms.Log(tmp_path / "events") as log:
        for name, table in events.flight_events().items():
            if name in SOURCES:
                rows = events.arrival_order(table.slice(0, 300 if name == "weather" else 4500), rng)
                topic = log.create_topic(name, partitions=PARTITIONS, schema=rows.schema)
                topic.append(rows, key=events.KEYS[name])
        features = live_features(log).collect()
        late = pa.array((np.asarray(features["flight_id"]) % 3 == 0).astype(np.int64))
        columns = [*plan.CATEGORIES, *plan.NUMBERS]
        data = ms.from_arrow(features.select(columns).append_column("late", late), target="late")
        registry = ms.Registry(tmp_path / "models")
        registry.register("delay", plan.delay_model(engine=ms.Threads(1)).fit(data), data=data)
        registry.promote("delay", 1)
        scored = ms.StreamJob.plan(registry.get("delay", 1), live_features(log))
        log.create_topic("predictions", partitions=PARTITIONS, schema=scored.schema)
        yield tmp_path


def deployment(home: Path, *death: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, CHILD, home, *death]
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=60, check=False)


def published(log: ms.Log) -> list[dict[str, object]]:
    """Every record of the output topic, in partition and offset order, but for the time it was written."""
    return ms.read_topic(log["predictions"]).to_table().drop_columns(["_timestamp"]).to_pylist()


def deaths() -> list[tuple[Moment, int, float]]:
    chance = random.Random(1912)
    between = [(Moment.MANIFEST_COMMITTED, chance.randint(1, 3), 0.0) for _ in range(5)]
    anywhere = [(Moment.ROWS, chance.randint(1, 4), chance.uniform(0.1, 15)) for _ in range(15)]
    drawn = between + anywhere
    chance.shuffle(drawn)
    return drawn


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_output_equals_that_of_an_undisturbed_deployment(home: Path) -> None:
    struck = 0
    for death in deaths():
        run = deployment(home, *death)
        if run.returncode == 0:
            break
        assert run.returncode == -signal.SIGKILL, run.stderr
        struck += 1
    assert struck == 20, f"the deployment was done after {struck} kills; give it more rows or smaller batches"
    last = deployment(home)
    assert last.returncode == 0, last.stderr
    counts = json.loads(last.stdout)

    log = ms.Log(home / "events")
    found = published(log)
    log.delete_topic("predictions")
    scored = ms.StreamJob.plan(ms.Registry(home / "models").get("delay", 1), live_features(log))
    log.create_topic("predictions", partitions=PARTITIONS, schema=scored.schema)
    (home / "state").rename(home / "state-of-the-killed")
    undisturbed = deployment(home)
    assert undisturbed.returncode == 0, undisturbed.stderr

    assert json.loads(undisturbed.stdout) == counts
    assert counts["out"] == len(found) > 4000
    assert found == published(log)
