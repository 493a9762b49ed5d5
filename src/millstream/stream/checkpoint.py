"""Checkpoints: numbered folders of Arrow files, each made valid by one checksummed manifest.

Layout of a checkpoint directory::

    lock                             held by the live instance of the job
    000000000007/                    files of checkpoint 7, written and fsynced before the manifest
        state.0-lookback.left.arrow  one table of an operator's state
        output.5f7c8d0a4e1b2c3d.arrow   rows of a sink that the manifest promises to publish
    manifest-000000000007.json       line 1: SHA-256 of the rest; the rest: `Manifest` as JSON

The manifest is written to a temporary name, fsynced and renamed, so it is there whole or not at all, and it names the
SHA-256 of every file. The highest manifest whose own checksum and files are right wins; the last `KEPT` stay, so a
damaged one costs one interval of replay and not the job.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa

from millstream.errors import CheckpointError, JobRunning, LogError, LogLocked
from millstream.log.lock import DirectoryLock, owner
from millstream.stream.event_time import MIN_TIME
from millstream.stream.operators import Snapshot

__all__ = ["Checkpoints", "Manifest", "Restored", "SinkState", "SourceState"]

KEPT = 3


class SourceState(msgspec.Struct, frozen=True):
    """positions: next offset by partition; highest: cumulative maximum of event time;
    reached: the watermark; ends: of a bounded source; concluded: rows below it change nothing any more; identity: what
    was read, empty where a source can't tell."""

    positions: dict[int, int]
    highest: dict[int, int]
    reached: int
    ends: dict[int, int] | None
    rows_in: int
    used: int
    late: int
    concluded: int = MIN_TIME
    identity: str = ""


class SinkState(msgspec.Struct, frozen=True):
    """Rows number `first` to `first + rows - 1` are to be published; marks: where the sink stood before."""

    first: int
    rows: int
    marks: dict[int, int]


class Manifest(msgspec.Struct, frozen=True):
    """What a checkpoint says. files: SHA-256 by file name; functions: a digest of the plan's own functions."""

    number: int
    job: str
    plan: str
    ended: bool
    sources: dict[str, SourceState]
    sinks: dict[str, SinkState]
    files: dict[str, str] = {}
    functions: str = ""


class Restored(NamedTuple):
    """A checkpoint read back: operator state by operator and table, output rows by sink."""

    manifest: Manifest
    states: dict[str, Snapshot]
    outputs: dict[str, pa.Table]


class Checkpoints:
    """The checkpoint directory of one live job; `close` lets another instance have it.

    Raises JobRunning with the pid of the live instance.
    """

    def __init__(self, directory: Path, job: str) -> None:
        self._directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = DirectoryLock(directory)
        except LogLocked as error:
            pid = owner(directory) or "(just ended)"
            raise JobRunning(
                f"job {job!r} is running as process {pid} with checkpoint {directory}; stop that process first, or "
                "give this job a checkpoint directory of its own"
            ) from error
        except (LogError, OSError) as error:  # the lock is the log's, and its words speak of logs
            reason = error.__cause__ if isinstance(error, LogError) else error
            raise CheckpointError(
                f"checkpoint directory {directory} can't be written: {reason}; give the job a directory it can write in"
            ) from error
        self.skipped: list[str] = []
        self._last = max((number for number, _ in self._manifests()), default=0)

    @property
    def next_number(self) -> int:
        return self._last + 1

    def close(self) -> None:
        self._lock.release()

    def latest(self) -> Restored | None:
        """The highest valid checkpoint; None where none was ever committed.

        Damaged ones are passed over and named in `skipped`. CheckpointError if every one is damaged.
        """
        for _, path in sorted(self._manifests(), reverse=True):
            try:
                return self._read(path)
            except (CheckpointError, OSError, msgspec.DecodeError, pa.ArrowInvalid) as error:
                self.skipped.append(f"{path.name}: {error}")
        if self.skipped:
            raise CheckpointError(
                f"no valid checkpoint in {self._directory}: {'; '.join(self.skipped)}; restore the directory from a "
                "backup, or start the job afresh with another directory and another output"
            )
        return None

    def commit(
        self, manifest: Manifest, states: Mapping[str, Snapshot], outputs: Mapping[str, pa.Table]
    ) -> Manifest:
        """Write the files, then the manifest. After return the checkpoint survives a crash of the machine."""
        tables = {f"state.{op}.{part}.arrow": t for op, state in states.items() for part, t in state.items()}
        tables |= {_output_file(sink): rows for sink, rows in outputs.items()}
        try:
            folder = self._folder(manifest.number)
            if folder.exists():
                shutil.rmtree(folder)  # left by a crash before its manifest
            folder.mkdir()
            files = {name: _write(folder / name, _ipc_bytes(table)) for name, table in tables.items()}
            _sync(folder)
            complete = msgspec.structs.replace(manifest, files=files)
            body = msgspec.json.encode(complete)
            path = self._manifest_path(manifest.number)
            temporary = path.with_suffix(".tmp")
            _write(temporary, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
            temporary.rename(path)
            _sync(self._directory)
        except OSError as error:
            raise CheckpointError(
                f"checkpoint {manifest.number} could not be written to {self._directory}: {error}; the one before it "
                "is whole; make room and start the job again"
            ) from error
        self._last = manifest.number
        return complete

    def prune(self) -> None:
        """Remove all but the last `KEPT` checkpoints."""
        for number, path in sorted(self._manifests())[:-KEPT]:
            path.unlink()
            shutil.rmtree(self._folder(number), ignore_errors=True)

    def _read(self, path: Path) -> Restored:
        checksum, _, body = path.read_bytes().partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != checksum:
            raise CheckpointError("its checksum does not match")
        manifest = msgspec.json.decode(body, type=Manifest)
        folder = self._folder(manifest.number)
        tables = {name: _read_table(folder / name, digest) for name, digest in manifest.files.items()}
        states: dict[str, dict[str, pa.Table]] = {}
        for name, table in tables.items():
            kind, operator, *part = name.split(".")
            if kind == "state":
                states.setdefault(operator, {})[part[0]] = table
        outputs = {sink: tables[_output_file(sink)] for sink, s in manifest.sinks.items() if s.rows}
        return Restored(manifest, dict(states), outputs)

    def _manifests(self) -> list[tuple[int, Path]]:
        paths = self._directory.glob("manifest-*.json")
        return [(int(p.stem.removeprefix("manifest-")), p) for p in paths if p.stem[9:].isdigit()]

    def _manifest_path(self, number: int) -> Path:
        return self._directory / f"manifest-{number:012d}.json"

    def _folder(self, number: int) -> Path:
        return self._directory / f"{number:012d}"


def _output_file(sink: str) -> str:
    """A file name for any sink's name: the digest keeps paths apart whatever characters they hold."""
    return f"output.{hashlib.sha256(sink.encode()).hexdigest()[:16]}.arrow"


def _ipc_bytes(table: pa.Table) -> pa.Buffer:
    target = pa.BufferOutputStream()
    with pa.ipc.new_file(target, table.schema) as writer:
        writer.write_table(table)
    return target.getvalue()


def _write(path: Path, content: pa.Buffer | bytes) -> str:
    """Write and fsync; returns the SHA-256."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(content).hexdigest()


def _read_table(path: Path, digest: str) -> pa.Table:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise CheckpointError(f"{path.name} does not match its checksum")
    with pa.ipc.open_file(content) as reader:
        return reader.read_all()


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
