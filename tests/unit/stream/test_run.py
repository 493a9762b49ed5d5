"""`run`: sinks, reports, stops, and what is refused."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import millstream.stream as ms
from millstream.clock import ManualClock
from millstream.errors import CheckpointError, JobRunning, PlanError, SchemaError
from millstream.log import Log, read_topic

US = timedelta(microseconds=1)
ROWS = pa.table({"at": list(range(0, 1000, 5)), "x": [float(i % 7) for i in range(200)]})


def source(delay: timedelta | None = None) -> ms.Stream:
    return ms.as_stream(ROWS, event_time="at", delay=delay, name="rows")


def windows() -> ms.Stream:
    return source().window(ms.Tumbling(100 * US)).aggregate(n=ms.count(), s=ms.sum("x"))


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    with Log(tmp_path_factory.mktemp("events")) as log:
        yield log


def stop_after(rounds: int) -> tuple[threading.Event, object]:
    stop = threading.Event()
    left = iter(range(rounds))

    def monitor(moment: ms.Moment, number: int) -> None:
        if moment is ms.Moment.ROWS and next(left, None) is None:
            stop.set()

    return stop, monitor


def files(directory: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted(directory.glob("*.parquet")))


def test_a_job_into_files(tmp_path: Path) -> None:
    report = ms.run(windows().to(tmp_path / "out"), job="windows")
    assert files(tmp_path / "out").equals(windows().collect())
    assert report.sources == {"rows": ms.SourceCounts(rows_in=200, used=200, late=0)}
    assert report.rows_out == {str(tmp_path / "out"): 10}
    assert (report.ending, report.checkpoints, report.resumed_from) == (ms.Ending.END, 0, None)


def test_a_stopped_job_goes_on_where_it_was(tmp_path: Path) -> None:
    """Files are named by the number of their first row and no row is in two of them."""
    stop, monitor = stop_after(5)
    where = {"job": "windows", "checkpoint": tmp_path / "state", "max_rows": 13}
    first = ms.run(windows().to(tmp_path / "out"), stop=stop, monitor=monitor, **where)
    assert first.ending is ms.Ending.STOPPED
    assert 0 < first.rows_in < 200
    second = ms.run(windows().to(tmp_path / "out"), **where)
    assert (second.ending, second.resumed_from, second.rows_in) == (ms.Ending.END, 1, 200)
    names = [int(path.stem) for path in sorted((tmp_path / "out").glob("*.parquet"))]
    assert names == [0, first.rows_out[str(tmp_path / "out")]]
    assert files(tmp_path / "out").equals(windows().collect())


def test_a_job_that_has_ended_stays_ended(tmp_path: Path) -> None:
    where = {"job": "windows", "checkpoint": tmp_path / "state"}
    first = ms.run(windows().to(tmp_path / "out"), **where)
    again = ms.run(windows().to(tmp_path / "out"), **where)
    assert (again.ending, again.rows_in, again.rows_out, again.checkpoints) == (
        ms.Ending.END, first.rows_in, first.rows_out, 0,
    )  # fmt: skip
    assert len(files(tmp_path / "out")) == 10


def test_several_outputs_share_a_source(log: Log, tmp_path: Path) -> None:
    late = source(5 * US)
    shuffled = ms.as_stream(
        ROWS.take(list(range(100, 200)) + list(range(100))), event_time="at", delay=US, name="rows"
    )
    topic = log.create_topic("late", schema=ROWS.schema)
    report = ms.run(shuffled.late.to(topic), shuffled.select("x").to(tmp_path / "on_time"), job="both")
    assert report.sources["rows"] == ms.SourceCounts(rows_in=200, used=100, late=100)
    assert read_topic(topic).select(["at", "x"]).to_table().equals(ROWS.slice(0, 100))
    assert late.plan != shuffled.plan


def test_filtered_rows_are_counted(tmp_path: Path) -> None:
    some = source().filter(lambda rows: pc.less(rows.column("x"), 3.0))
    report = ms.run(some.to(tmp_path / "out"), job="some", max_rows=9)
    kept = sum(i % 7 < 3 for i in range(200))
    counts = report.sources["rows"]
    assert (counts.rows_in, counts.used, counts.late, counts.filtered) == (200, kept, 0, 200 - kept)


def test_rows_of_a_topic_bear_their_numbers(log: Log) -> None:
    topic = log.create_topic("numbered", partitions=3, schema=windows().schema)
    ms.run(windows().to(topic), job="windows")
    for partition in range(3):
        headers = [dict(record.headers) for record in topic.tail(partition, 100)]
        assert [int(h["millstream-number"]) for h in headers] == list(range(partition, 10, 3))
        assert {h["millstream-job"] for h in headers} == {b"windows"}


def test_at_least_once_shows_rows_before_a_barrier(log: Log, tmp_path: Path) -> None:
    topic = log.create_topic("at_once", schema=windows().schema)
    seen = []

    def monitor(moment: ms.Moment, number: int) -> None:
        if moment is ms.Moment.ROWS:
            seen.append(topic.end_offsets()[0])

    ms.run(
        windows().to(topic),
        job="windows",
        checkpoint=tmp_path / "state",
        delivery="at-least-once",
        every=timedelta(hours=1),
        max_rows=50,
        monitor=monitor,
        clock=ManualClock(),
    )
    assert seen == [0, 2, 4, 7]
    assert topic.end_offsets() == [10]


def test_exactly_once_shows_rows_at_barriers(log: Log, tmp_path: Path) -> None:
    topic = log.create_topic("at_barriers", schema=windows().schema)
    clock = ManualClock()
    seen = []

    def monitor(moment: ms.Moment, number: int) -> None:
        if moment is ms.Moment.ROWS:
            clock.advance(timedelta(seconds=6))
            seen.append(topic.end_offsets()[0])

    ms.run(
        windows().to(topic), job="w", checkpoint=tmp_path / "state", max_rows=50, monitor=monitor, clock=clock
    )  # fmt: skip
    assert seen == [0, 0, 4, 4]
    assert topic.end_offsets() == [10]


def test_a_live_topic_is_read_until_stopped(log: Log, tmp_path: Path) -> None:
    incoming = log.create_topic("incoming", partitions=2, schema=ROWS.schema)
    stop = threading.Event()
    seen: list[int] = []

    def watched(batch: pa.RecordBatch) -> pa.Array:
        """Lets every row pass; brings the second half after the first rows, and stops the job after the last."""
        seen.append(batch.num_rows)
        if len(seen) == 1:
            incoming.append(ROWS.slice(100))
        if sum(seen) == 200:
            stop.set()
        return pa.array([True] * batch.num_rows)

    incoming.append(ROWS.slice(0, 100))
    stream = ms.as_stream(incoming, event_time="at", delay=timedelta(hours=1)).filter(watched)
    report = ms.run(stream.to(tmp_path / "out"), job="live", checkpoint=tmp_path / "state", stop=stop)
    assert report.ending is ms.Ending.STOPPED
    assert len(files(tmp_path / "out")) == report.rows_out[str(tmp_path / "out")] == report.rows_in == 200


def test_bounded_keeps_the_end_of_its_first_start(log: Log, tmp_path: Path) -> None:
    topic = log.create_topic("growing", partitions=2, schema=ROWS.schema)
    topic.append(ROWS)

    def once(**more: object) -> ms.JobReport:
        stream = ms.as_stream(topic, event_time="at", delay=2000 * US, bounded=True)
        return ms.run(
            stream.to(tmp_path / "out"), job="b", checkpoint=tmp_path / "state", max_rows=20, **more
        )

    stop, monitor = stop_after(2)
    assert once(stop=stop, monitor=monitor).ending is ms.Ending.STOPPED
    topic.append(ROWS)
    assert once().rows_in == 200
    assert len(files(tmp_path / "out")) == 200


class Versions:
    """A model that has a new version at every refresh."""

    def __init__(self) -> None:
        self.number = 1

    @property
    def version(self) -> str:
        return str(self.number)

    def output_schema(self, schema: pa.Schema) -> pa.Schema:
        return schema.append(pa.field("version", pa.int64()))

    def predict(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return batch.append_column("version", pa.array([self.number] * batch.num_rows, pa.int64()))

    def refresh(self) -> None:
        self.number += 1


def test_a_model_changes_its_version_at_barriers_only(tmp_path: Path) -> None:
    clock = ManualClock()

    def monitor(moment: ms.Moment, number: int) -> None:
        if moment is ms.Moment.ROWS:
            clock.advance(timedelta(seconds=4))

    ms.run(
        source().predict(Versions()).to(tmp_path / "out"), job="p", max_rows=20, monitor=monitor, clock=clock
    )
    found = files(tmp_path / "out")["version"].to_pylist()
    assert found == [1] * 60 + [2] * 60 + [3] * 60 + [4] * 20


def test_refused_before_the_first_row(log: Log, tmp_path: Path) -> None:
    topic = log.create_topic("other", schema=pa.schema([("y", pa.int64())]))
    with pytest.raises(PlanError, match="sink 'other' takes y int64; the stream gives"):
        ms.run(windows().to(topic), job="w")
    with pytest.raises(PlanError, match="two outputs write to"):
        ms.run(windows().to(tmp_path / "a"), source().to(str(tmp_path / "a")), job="w")
    with pytest.raises(PlanError, match="no output"):
        ms.run(job="w")
    with pytest.raises(PlanError, match=r"a Stream is no output; .*write stream\.to"):
        ms.run(windows(), job="w")  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="a int is no sink"):
        ms.run(windows().to(5), job="w")
    with pytest.raises(PlanError, match="delivery='maybe'"):
        ms.run(windows().to(tmp_path / "a"), job="w", delivery="maybe")
    with pytest.raises(PlanError, match="need delay="):
        ms.as_stream(log["other"], event_time="y")
    with pytest.raises(PlanError, match="source 'other' has no end"):
        ms.as_stream(log["other"], event_time="y", delay=US).collect()


def test_another_plan_job_or_sink_is_refused(tmp_path: Path) -> None:
    where = {"checkpoint": tmp_path / "state"}
    ms.run(windows().to(tmp_path / "out"), job="w", **where)
    with pytest.raises(CheckpointError, match="of job 'w', not of 'v'"):
        ms.run(windows().to(tmp_path / "out"), job="v", **where)
    with pytest.raises(CheckpointError, match="is of another plan"):
        ms.run(source().to(tmp_path / "out"), job="w", **where)
    with pytest.raises(CheckpointError, match="the job now to"):
        ms.run(windows().to(tmp_path / "elsewhere"), job="w", **where)


def test_a_fresh_start_over_rows_of_the_job_is_refused(log: Log, tmp_path: Path) -> None:
    topic = log.create_topic("twice", partitions=2, schema=windows().schema)
    ms.run(windows().to(topic), job="w", checkpoint=tmp_path / "one")
    with pytest.raises(CheckpointError, match="'twice' holds rows of job 'w' up to number 9"):
        ms.run(windows().to(topic), job="w", checkpoint=tmp_path / "two")
    ms.run(windows().to(tmp_path / "out"), job="w")
    with pytest.raises(CheckpointError, match="up to number 9"):
        ms.run(windows().to(tmp_path / "out"), job="w")


def test_a_second_instance_is_refused(tmp_path: Path) -> None:
    def second(moment: ms.Moment, number: int) -> None:
        with pytest.raises(JobRunning, match=r"job 'w' is running as process \d+"):
            ms.run(windows().to(tmp_path / "out"), job="w", checkpoint=tmp_path / "state")

    ms.run(windows().to(tmp_path / "out"), job="w", checkpoint=tmp_path / "state", monitor=second)
    assert len(files(tmp_path / "out")) == 10


PROGRAM = """
import sys, threading, os, signal
from pathlib import Path
from datetime import timedelta
import millstream.stream as ms
from millstream.log import Log

log = Log(sys.argv[1])
stream = ms.as_stream(log[sys.argv[4]], event_time="at", delay=timedelta(0))

def monitor(moment, number):
    if moment is ms.Moment.ROWS:
        print("rows", flush=True)

report = ms.run(stream.to(sys.argv[2]), job="s", checkpoint=sys.argv[3], monitor=monitor)
print(report.ending, report.rows_in, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_cleanly(log: Log, tmp_path: Path, number: signal.Signals) -> None:
    """The last checkpoint is written, its rows are published, the lock is gone, the exit code is 0."""
    topic = log.create_topic(f"signalled_{number:d}", schema=ROWS.schema)
    topic.append(ROWS)
    arguments = [log.directory, tmp_path / "out", tmp_path / "state", topic.name]
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "rows\n"
        child.send_signal(number)
        said = child.stdout.read().split()
        assert child.wait(timeout=30) == 0
    assert said[-2] == "stopped"
    assert len(files(tmp_path / "out")) == int(said[-1]) > 0
    assert not (tmp_path / "state" / "lock").exists()


def test_a_row_that_the_sink_has_no_form_for_is_an_error_before_it_is_promised(
    log: Log, tmp_path: Path
) -> None:
    """NaN has no form in JSON: no manifest may promise it, or every restart would stumble over it."""
    topic = log.create_topic("numbers", schema=ROWS.schema)

    def spoilt(batch: pa.RecordBatch) -> pa.RecordBatch:
        x = pc.if_else(pc.greater(batch["at"], 500), float("nan"), batch["x"])
        return batch.set_column(1, ROWS.schema.field("x"), x)

    where = {"job": "s", "checkpoint": tmp_path / "state", "max_rows": 20, "every": US}
    stream = source().map_batches(spoilt, ROWS.schema)
    for _ in range(2):
        with pytest.raises(SchemaError, match="'x' holds NaN"):
            ms.run(stream.to(topic), **where)
    assert topic.end_offsets() == [100]


def test_an_idle_partition_holds_no_window_up(log: Log, tmp_path: Path) -> None:
    """Until rows come back in it: behind the watermark they are late, and they stay late after a restart."""
    topic = log.create_topic("half_idle", partitions=2, schema=ROWS.schema)
    clock = ManualClock()

    def rows(partition: int, *at: int) -> None:
        columns = {"at": list(at), "x": [1.0] * len(at), "partition": [partition] * len(at)}
        topic.append(pa.table(columns), partition="partition")

    def run_until(rows_in: int, seconds: int) -> ms.JobReport:
        """Take in what is there, let the seconds pass, and stop half a second later."""
        stream = ms.as_stream(topic, event_time="at", delay=10 * US, idle=timedelta(seconds=30))
        counted = stream.window(ms.Tumbling(100 * US)).aggregate(n=ms.count())
        stop = threading.Event()

        def monitor(moment: ms.Moment, number: int) -> None:
            if moment is ms.Moment.ROWS:
                clock.advance(timedelta(seconds=seconds))
                threading.Timer(0.5, stop.set).start()

        outputs = [counted.to(tmp_path / "windows"), stream.late.to(tmp_path / "late")]
        report = ms.run(
            *outputs, job="idle", checkpoint=tmp_path / "state", clock=clock, stop=stop, monitor=monitor
        )
        assert report.rows_in == rows_in
        return report

    rows(0, 50, 150, 250)
    assert run_until(3, seconds=1).rows_out[str(tmp_path / "windows")] == 0
    rows(0, 251)
    assert run_until(4, seconds=31).rows_out[str(tmp_path / "windows")] == 2
    rows(1, 60, 260)
    assert run_until(6, seconds=1).sources["half_idle"].late == 1
    assert files(tmp_path / "late")["at"].to_pylist() == [60]
    assert files(tmp_path / "windows")["n"].to_pylist() == [1, 1]


@pytest.mark.parametrize(("bad", "said"), [(None, "is null"), (2**62, "check its unit")])
def test_a_row_without_an_event_time_is_named(log: Log, bad: int | None, said: str) -> None:
    topic = log.create_topic(f"timeless_{bad}", partitions=2, schema=ROWS.schema)
    at = pa.table({"at": pa.array([5, 6, bad, 7, bad]), "x": [1.0] * 5, "p": [1] * 5})
    topic.append(at, partition="p")
    live = ms.as_stream(topic, event_time="at", delay=US, name="clicks", bounded=True)
    where = rf"source 'clicks', topic '{topic.name}', partition 1, offset 2: event time 'at' .*{said}"
    with pytest.raises(SchemaError, match=where):
        live.collect()


def test_a_checkpoint_that_cannot_be_written_speaks_of_jobs(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "lock").mkdir(parents=True)
    with pytest.raises(
        CheckpointError, match=r"state can't be written: .*give the job a directory"
    ) as caught:
        ms.run(windows().to(tmp_path / "out"), job="w", checkpoint=state)
    assert "log" not in str(caught.value).replace(str(tmp_path), "")


def test_a_replay_bears_the_name_of_its_topic(log: Log) -> None:
    topics = [log.create_topic(f"named_{i}", schema=ROWS.schema) for i in range(2)]
    live, other = (ms.as_stream(topic, event_time="at", delay=US) for topic in topics)
    again, beside = (ms.as_stream(read_topic(topic), event_time="at", delay=US) for topic in topics)
    assert again.plan == live.plan
    looked = again.lookback(beside, on="at", over=US, n=ms.count())
    assert looked.plan == live.lookback(other, on="at", over=US, n=ms.count()).plan
    assert ms.as_stream(read_topic(topics[0]), event_time="at", delay=US, name="mine").plan != live.plan
