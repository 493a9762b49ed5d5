"""A job that has reached the end of its sources, run again."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import millstream.stream as ms
from millstream.errors import CheckpointError
from millstream.log import Log

US = timedelta(microseconds=1)
ROWS = pa.table({"at": list(range(0, 1000, 5)), "x": [float(i % 7) for i in range(200)]})


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    with Log(tmp_path_factory.mktemp("events")) as log:
        yield log


def files(directory: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted(directory.glob("*.parquet")))


def grown(log: Log, name: str, *at: int, partition: int = 0) -> None:
    columns = {"at": list(at), "x": [1.0] * len(at), "partition": [partition] * len(at)}
    log[name].append(pa.table(columns), partition="partition")


@pytest.mark.parametrize("bounded", [True, False])
def test_a_row_wise_job_goes_on_after_the_end(log: Log, tmp_path: Path, bounded: bool) -> None:
    """Late is who lies behind his own partition, as if there had been no end."""
    name = f"row_wise_{bounded}"
    log.create_topic(name, partitions=2, schema=ROWS.schema)

    def once(bounded: bool) -> ms.JobReport:
        stop = threading.Event()

        def monitor(moment: ms.Moment, number: int) -> None:
            if moment is ms.Moment.ROWS:
                threading.Timer(0.5, stop.set).start()

        stream = ms.as_stream(log[name], event_time="at", delay=10 * US, bounded=bounded).filter(keep)
        outputs = [stream.to(tmp_path / "out"), stream.late.to(tmp_path / "late")]
        return ms.run(
            *outputs, job="b", checkpoint=tmp_path / "state", stop=stop, monitor=None if bounded else monitor
        )

    grown(log, name, 100, 200)
    grown(log, name, 5000, partition=1)
    assert once(True).rows_in == 3
    grown(log, name, 195, 150, 210)
    grown(log, name, 5001, partition=1)
    report = once(bounded)
    assert report.sources[name] == ms.SourceCounts(rows_in=7, used=6, late=1)
    assert files(tmp_path / "late")["at"].to_pylist() == [150]
    assert sorted(files(tmp_path / "out")["at"].to_pylist()) == [100, 195, 200, 210, 5000, 5001]


def keep(batch: pa.RecordBatch) -> pa.Array:
    return pc.greater(batch["at"], 0)


def test_a_window_that_the_end_has_closed_comes_once(log: Log, tmp_path: Path) -> None:
    """Rows that come into it after the end are late; later windows are as if there had been no end."""
    log.create_topic("windowed", partitions=2, schema=ROWS.schema)

    def once() -> ms.JobReport:
        stream = ms.as_stream(log["windowed"], event_time="at", delay=200 * US, bounded=True)
        counted = stream.window(ms.Tumbling(100 * US)).aggregate(n=ms.count())
        outputs = [counted.to(tmp_path / "out"), stream.late.to(tmp_path / "late")]
        return ms.run(*outputs, job="w", checkpoint=tmp_path / "state")

    grown(log, "windowed", 10, 120)
    grown(log, "windowed", 20, partition=1)
    once()
    once()
    grown(log, "windowed", 90, 199, 200, 310)
    grown(log, "windowed", 250, partition=1)
    report = once()
    assert report.sources["windowed"] == ms.SourceCounts(rows_in=8, used=6, late=2)
    grown(log, "windowed", 399, 400)
    assert once().late == 3
    assert files(tmp_path / "late")["at"].to_pylist() == [90, 199, 399]
    found = files(tmp_path / "out").select(["window_start", "n"]).to_pydict()
    assert found == {"window_start": [0, 100, 200, 300, 400], "n": [2, 1, 2, 1, 1]}


def test_a_lookback_goes_on_after_the_end_with_what_it_remembers(log: Log, tmp_path: Path) -> None:
    """Even where the right side ran far ahead of the left one, and had rows enough to forget some."""
    schema = ROWS.schema.append(pa.field("key", pa.int64()))
    log.create_topic("asks", schema=schema)
    log.create_topic("says", schema=schema)

    def append(name: str, at: list[int]) -> None:
        log[name].append(
            pa.table({"at": at, "x": [1.0] * len(at), "key": pa.array([1] * len(at), pa.int64())})
        )

    def once(checkpoint: str) -> list[int]:
        left, right = (
            ms.as_stream(log[name], event_time="at", delay=0 * US, bounded=True) for name in ("asks", "says")
        )
        looked = left.lookback(right, on="key", over=100 * US, n=ms.count())
        ms.run(looked.to(tmp_path / f"{checkpoint}-out"), job="l", checkpoint=tmp_path / checkpoint)
        return files(tmp_path / f"{checkpoint}-out")["n"].to_pylist()

    append("says", list(range(4000)))
    append("asks", [1000, 3999])
    assert once("twice") == [100, 100]
    append("says", list(range(4000, 8000)))
    append("asks", [4000, 4050, 7999])
    assert once("twice") == once("once") == [100] * 5


def test_an_end_that_was_told_before_a_kill_stays_told(log: Log, tmp_path: Path) -> None:
    """The last round and the end are two steps: a checkpoint between them knows what was concluded."""
    log.create_topic("between", schema=ROWS.schema)

    def once(**more: object) -> ms.JobReport:
        stream = ms.as_stream(log["between"], event_time="at", delay=0 * US, bounded=True)
        counted = stream.window(ms.Tumbling(100 * US)).aggregate(n=ms.count())
        return ms.run(counted.to(tmp_path / "out"), job="w", checkpoint=tmp_path / "state", every=US, **more)

    class Killed(Exception):
        pass

    def monitor(moment: ms.Moment, number: int) -> None:
        if moment is ms.Moment.PUBLISHED:
            raise Killed

    grown(log, "between", 10, 20)
    with pytest.raises(Killed):
        once(monitor=monitor)
    once()
    grown(log, "between", 30, 130)
    assert once().late == 1
    assert files(tmp_path / "out")["n"].to_pylist() == [2, 1]


def test_a_table_that_has_grown(tmp_path: Path) -> None:
    """In the order of its rows it goes on; in event-time order no one can tell which rows are new."""

    def once(table: pa.Table, delay: timedelta | None) -> ms.JobReport:
        stream = ms.as_stream(table, event_time="at", delay=delay, name="rows")
        return ms.run(stream.to(tmp_path / f"out{delay}"), job="t", checkpoint=tmp_path / f"state{delay}")

    assert once(ROWS.slice(0, 150), 0 * US).rows_in == 150
    assert once(ROWS, 0 * US).rows_in == 200
    assert once(ROWS.slice(0, 150), None).rows_in == 150
    with pytest.raises(CheckpointError, match="the table has 200 rows, the checkpoint is of one with 150"):
        once(ROWS, None)
