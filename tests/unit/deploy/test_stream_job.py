import threading
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from sklearn.base import clone

import millstream as ms
from millstream.errors import InputError, ParityError, SignatureError
from millstream.models import compare

NO_DELAY = timedelta(0)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    with ms.Log(tmp_path_factory.mktemp("log")) as log:
        yield log


@pytest.fixture(scope="module")
def rides(log, table):
    """The rides as a topic of three partitions, each with the moment it began."""
    at = pa.array(np.arange(table.num_rows) * 1000).cast(pa.timestamp("us", "UTC"))
    topic = log.create_topic("rides", partitions=3, schema=table.append_column("at", at).schema)
    topic.append(table.append_column("at", at))
    return topic


@pytest.fixture
def scored(log, version, rides, request):
    plan = ms.StreamJob.plan(version, ms.as_stream(rides, event_time="at", delay=NO_DELAY), ["id"])
    return log.create_topic(f"scored-{request.node.name[-60:]}", schema=plan.schema)


def rows_of(topic):
    return ms.read_topic(topic).to_table().sort_by("id")


def test_from_topic_to_topic(version, rides, scored, expected):
    report = ms.StreamJob(version, rides, scored, keep=["id"], bounded=True).run()
    found = rows_of(scored)
    assert found["id"].to_pylist() == list(range(1000))
    assert compare(expected, found).holds
    assert set(found["model"].to_pylist()) == {"long@1"}
    assert report.sources["rides"].used == 1000


def test_from_a_plan_into_files(version, rides, expected, tmp_path):
    even = ms.as_stream(rides, event_time="at", delay=NO_DELAY, bounded=True).filter(
        lambda batch: np.asarray(batch["id"]) % 2 == 0
    )
    ms.StreamJob(version, even, tmp_path / "scored").run(checkpoint=tmp_path / "state")
    found = ms.read_parquet(tmp_path / "scored").to_table().sort_by("id")
    assert found.column_names == [*rides.schema.names, "label", "probability", "model"]
    assert compare(expected.take(list(range(0, 1000, 2))), found).holds


def test_a_restart_goes_on_where_it_stopped(version, log, rides, scored, expected, tmp_path):
    stop = threading.Event()

    def monitor(moment, number):
        stop.set()

    def job():
        return ms.StreamJob(version, rides, scored, keep=["id"], bounded=True)

    job().run(checkpoint=tmp_path / "state", every=timedelta(microseconds=1), stop=stop, monitor=monitor)
    job().run(checkpoint=tmp_path / "state")
    assert compare(expected, rows_of(scored)).holds


def test_a_promotion_takes_effect_at_a_barrier(registry, estimator, table, rides, scored, tmp_path):
    registry.register("moving", estimator, data=table.select(["borough", "fare", "hour"]))
    registry.register("moving", estimator, data=table.select(["borough", "fare", "hour"]).slice(0, 500))
    registry.promote("moving", 1)
    followed = registry.follow("moving@production")
    job = ms.StreamJob(followed, rides, scored, keep=["id"], bounded=False)
    stop = threading.Event()
    running = threading.Thread(
        target=lambda: job.run(checkpoint=tmp_path / "s", every=timedelta(milliseconds=50), stop=stop)
    )
    running.start()
    try:
        assert wait_until(lambda: sum(scored.end_offsets()) == 1000)
        registry.promote("moving", 2)
        assert wait_until(lambda: str(followed.version) == "moving@2")
        late = table.slice(0, 10).append_column("at", pa.array([10**9] * 10).cast(pa.timestamp("us", "UTC")))
        rides.append(late)
        assert wait_until(lambda: sum(scored.end_offsets()) == 1010)
    finally:
        stop.set()
        running.join(30)
    models = ms.read_topic(scored).to_table().sort_by("_offset")["model"].to_pylist()
    assert models == ["moving@1"] * 1000 + ["moving@2"] * 10


def wait_until(condition, seconds=30):
    pause = threading.Event()
    for _ in range(seconds * 20):
        if condition():
            return True
        pause.wait(0.05)
    return False


def test_a_version_that_fails_its_golden_rows_does_not_take_over(registry, estimator, table, monkeypatch):
    for rows in (table, table.slice(0, 400)):
        registry.register("falling", estimator, data=rows.select(["borough", "fare", "hour"]))
    registry.promote("falling", 1)
    predictor = ms.deploy.VersionPredictor(registry.follow("falling@production"))
    registry.promote("falling", 2)
    monkeypatch.setattr("millstream.models.parity.RELATIVE_BOUND", -1.0)
    with pytest.raises(ParityError, match="falling@2"):
        predictor.refresh()
    assert predictor.version == "falling@1"


def test_another_shape_of_outputs_does_not_take_over(registry, estimator, table):

    columns = table.select(["borough", "fare", "hour"])
    registry.register("shape", estimator, data=columns)
    three = np.arange(1000) % 3
    registry.register("shape", clone(estimator).fit(columns, three), data=columns)
    registry.promote("shape", 1)
    predictor = ms.deploy.VersionPredictor(registry.follow("shape@production"))
    registry.promote("shape", 2)
    with pytest.raises(SignatureError, match="shape@2 gives"):
        predictor.refresh()


def test_rows_that_do_not_match_are_refused_before_the_first(version, rides, scored):
    live = ms.as_stream(rides, event_time="at", delay=NO_DELAY)
    with pytest.raises(SignatureError, match="column 'fare' is missing: expected double"):
        ms.StreamJob(version, live.select("at", "borough", "hour"), scored)
    named = ms.as_stream(
        pa.table({"label": [1], "borough": ["Queens"], "fare": [1.0], "hour": [1]}), event_time="label"
    )
    with pytest.raises(SignatureError, match=r"columns \['label'\] of their own"):
        ms.StreamJob(version, named, scored)


def test_a_topic_without_one_time_asks_for_a_stream(version, log, scored, table):
    timeless = log.create_topic("timeless", schema=table.schema)
    with pytest.raises(InputError, match=r"0 timestamp columns.*as_stream"):
        ms.StreamJob(version, timeless, scored)


def test_the_golden_rows_leave_no_topic(version, log, rides, scored):
    before = log.topics()
    assert ms.StreamJob(version, rides, scored, keep=["id"]).verify().holds
    assert log.topics() == before
    assert sum(scored.end_offsets()) == 0
