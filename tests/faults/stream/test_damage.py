"""Damaged checkpoints, a full disk, a broker that goes: the right rows once, or an error that says what to do."""

import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

import millstream.stream as ms
from millstream.errors import CheckpointError, LogError, StreamError
from millstream.log import Log, read_topic

US = timedelta(microseconds=1)
ROWS = pa.table({"at": list(range(0, 5000, 5)), "x": [float(i % 7) for i in range(1000)]})


def windows() -> ms.Stream:
    stream = ms.as_stream(ROWS, event_time="at", name="rows")
    return stream.window(ms.Tumbling(50 * US)).aggregate(n=ms.count(), s=ms.sum("x"))


def stop_after(rounds: int) -> dict[str, object]:
    stop = threading.Event()
    left = iter(range(rounds))

    def monitor(moment: ms.Moment, number: int) -> None:
        if moment is ms.Moment.ROWS and next(left, None) is None:
            stop.set()

    return {"stop": stop, "monitor": monitor}


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with Log(tmp_path / "events") as log:
        log.create_topic("windows", partitions=2, schema=windows().schema)
        yield log


def run(log: Log, tmp_path: Path, **more: object) -> ms.JobReport:
    every = timedelta(microseconds=1)
    where = {"job": "w", "checkpoint": tmp_path / "state", "every": every, "max_rows": 30}
    return ms.run(windows().to(log["windows"]), **where | more)


def found(log: Log) -> pa.Table:
    return read_topic(log["windows"]).select(windows().schema.names).to_table().sort_by("window_start")


def manifests(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "state").glob("manifest-*.json"))


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a bit of the checksum": lambda manifest: flip(manifest, 3),
    "a bit of the body": lambda manifest: flip(manifest, -5),
    "cut short": lambda manifest: os.truncate(manifest, 90),
    "empty": lambda manifest: os.truncate(manifest, 0),
    "a bit of the state": lambda manifest: flip(next(folder_of(manifest).glob("state.*.arrow")), 300),
    "a file gone": lambda manifest: next(folder_of(manifest).glob("state.*.arrow")).unlink(),
}


def folder_of(manifest: Path) -> Path:
    return manifest.parent / manifest.stem.removeprefix("manifest-")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(
    log: Log, tmp_path: Path, damage: str
) -> None:
    """Rows that the damaged one had published come out again from the replay, and are published once."""
    run(log, tmp_path, **stop_after(9))
    assert len(manifests(tmp_path)) == 3
    DAMAGES[damage](manifests(tmp_path)[-1])
    report = run(log, tmp_path, max_rows=77)
    assert report.ending is ms.Ending.END
    assert len(report.skipped) == 1
    assert manifests(tmp_path)[0].name > report.skipped[0].split(":")[0]
    assert found(log).equals(windows().collect())


def test_no_valid_checkpoint_is_an_error(log: Log, tmp_path: Path) -> None:
    run(log, tmp_path, **stop_after(9))
    for manifest in manifests(tmp_path):
        flip(manifest, -2)
    with pytest.raises(CheckpointError, match=r"no valid checkpoint in .*its checksum does not match"):
        run(log, tmp_path)


def test_files_without_a_manifest_are_no_checkpoint(log: Log, tmp_path: Path) -> None:
    """What a crash before the manifest leaves: a folder, and a manifest under its temporary name."""
    run(log, tmp_path, **stop_after(3))
    last = manifests(tmp_path)[-1]
    number = int(last.stem.removeprefix("manifest-")) + 1
    folder = tmp_path / "state" / f"{number:012d}"
    folder.mkdir()
    (folder / "state.0-tumblingaggregate.panes.arrow").write_bytes(b"torn")
    (tmp_path / "state" / f"manifest-{number:012d}.tmp").write_bytes(last.read_bytes()[:50])
    report = run(log, tmp_path)
    assert (report.resumed_from, report.skipped) == (number - 1, ())
    assert found(log).equals(windows().collect())


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """What a full disk does to a write, by the limit on the size of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_stops_the_job_and_costs_no_row(log: Log, tmp_path: Path) -> None:
    run(log, tmp_path, **stop_after(5))
    before = manifests(tmp_path)
    with no_file_above(600), pytest.raises(CheckpointError, match=r"could not be written .*make room"):
        run(log, tmp_path)
    assert manifests(tmp_path) == before
    run(log, tmp_path)
    assert found(log).equals(windows().collect())


def test_a_checkpoint_directory_that_cannot_be_written(log: Log, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file stands here")
    with pytest.raises(StreamError, match="can't be written"):
        run(log, tmp_path)


def test_a_broker_that_goes_and_comes_back(log: Log, tmp_path: Path) -> None:
    """The job ends with an error within its deadline; started again, it publishes what was promised."""
    killed = []

    def monitor(moment: ms.Moment, number: int) -> None:
        if moment is ms.Moment.MANIFEST_COMMITTED and number == 4:
            address = log.broker
            assert address is not None
            os.kill(address.pid, signal.SIGKILL)
            killed.append(time.monotonic())

    with pytest.raises(LogError):
        run(log, tmp_path, monitor=monitor)
    assert time.monotonic() - killed[0] < 60
    log.close()
    with Log(tmp_path / "events") as again:
        report = run(again, tmp_path)
        assert report.resumed_from == 4
        assert found(again).equals(windows().collect())
