"""A directory of Parquet files as a sink: one job's, never overwritten, and missed when it is no longer whole."""

import os
import threading
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import millstream.stream as ms
from millstream.errors import CheckpointError, PlanError, StreamError

US = timedelta(microseconds=1)
ROWS = pa.table({"at": list(range(1000)), "x": [float(i % 7) for i in range(1000)]})


def stream() -> ms.Stream:
    return ms.as_stream(ROWS, event_time="at", delay=US, name="rows")


def rows_in(directory: Path) -> list[int]:
    return [at for p in sorted(directory.glob("*.parquet")) for at in pq.read_table(p)["at"].to_pylist()]


class Second:
    """A monitor that runs another instance when the first has its first rows, before either has published."""

    def __init__(self, directory: Path, job: str) -> None:
        self.directory, self.job, self.error = directory, job, ""

    def __call__(self, moment: ms.Moment, number: int) -> None:
        if moment is ms.Moment.ROWS and not self.error:
            self.error = "none"
            try:
                ms.run(stream().to(self.directory), job=self.job, checkpoint=self.directory.parent / "second")
            except PlanError as error:
                self.error = str(error)


def test_a_directory_is_one_jobs(tmp_path: Path) -> None:
    second = Second(tmp_path / "out", "b")
    report = ms.run(
        stream().to(tmp_path / "out"), job="a", checkpoint=tmp_path / "state", every=US, monitor=second
    )
    assert "is the directory of job 'a', so job 'b' can't write there" in second.error
    assert len(rows_in(tmp_path / "out")) == report.rows_out[str(tmp_path / "out")] == 1000
    with pytest.raises(PlanError, match="directory of job 'a', so job 'b'"):
        ms.run(stream().to(tmp_path / "out"), job="b")


def test_two_instances_of_one_name_never_overwrite(tmp_path: Path) -> None:
    """Each with a checkpoint of its own, so nothing but the files tells them of each other."""
    second = Second(tmp_path / "out", "a")
    with pytest.raises(StreamError, match=r"'0{20}.parquet' is there already.*another instance"):
        ms.run(stream().to(tmp_path / "out"), job="a", checkpoint=tmp_path / "state", monitor=second)
    assert second.error == "none"
    assert rows_in(tmp_path / "out") == list(range(1000))


def run_in_pieces(tmp_path: Path, **more: object) -> None:
    ms.run(
        stream().to(tmp_path / "out"), job="a", checkpoint=tmp_path / "state", every=US, max_rows=100, **more
    )


def stop_after(rounds: int) -> dict[str, object]:
    stop = threading.Event()
    left = iter(range(rounds))

    def monitor(moment: ms.Moment, number: int) -> None:
        if moment is ms.Moment.ROWS and next(left, None) is None:
            stop.set()

    return {"stop": stop, "monitor": monitor}


@pytest.mark.parametrize(("gone", "number"), [(0, 0), (2, 200), (4, 400)])
def test_files_that_have_gone_are_missed(tmp_path: Path, gone: int, number: int) -> None:
    run_in_pieces(tmp_path, **stop_after(5))
    paths = sorted((tmp_path / "out").glob("*.parquet"))
    assert len(paths) == 6
    paths[gone].unlink()
    with pytest.raises(CheckpointError, match=rf"lacks rows from number {number} on.*up to number 499"):
        run_in_pieces(tmp_path)


def test_at_least_once_repeats_rows_and_overwrites_none(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def monitor(moment: ms.Moment, number: int) -> None:
        if moment is ms.Moment.PUBLISHED and number == 3:
            raise Killed

    with pytest.raises(Killed):
        run_in_pieces(tmp_path, monitor=monitor, delivery="at-least-once")
    assert rows_in(tmp_path / "out") == list(range(300))
    run_in_pieces(tmp_path, delivery="at-least-once")
    assert rows_in(tmp_path / "out") == [*range(300), *range(200, 1000)]


def test_what_no_job_wrote_is_named(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    pq.write_table(ROWS, out / "mine.parquet")
    with pytest.raises(PlanError, match=r"holds 'mine.parquet'.*move it elsewhere"):
        ms.run(stream().to(out), job="a")
    (out / "mine.parquet").unlink()
    ms.run(stream().to(out), job="a", checkpoint=tmp_path / "state")
    (path,) = out.glob("*.parquet")
    os.truncate(path, 100)
    with pytest.raises(StreamError, match=rf"output file {path} is not whole.*put it back"):
        ms.run(stream().to(out), job="a", checkpoint=tmp_path / "state")
    with pytest.raises(StreamError, match="is not whole"):
        ms.run(stream().to(out), job="a")
    (tmp_path / "file").write_text("")
    with pytest.raises(PlanError, match="file' can't be written"):
        ms.run(stream().to(tmp_path / "file"), job="a")
