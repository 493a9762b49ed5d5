"""Rows into a directory of Parquet files, each named by the number of its first row.

A file appears whole, under a name that was free, or not at all; its name and its length are the published numbers. The
directory is one job's: file ``.millstream-job`` holds the name of the job that claimed it first.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from millstream.errors import CheckpointError, PlanError, StreamError
from millstream.stream.sinks.sink import Numbers

__all__ = ["ParquetSink"]

OWNER = ".millstream-job"


@dataclass(frozen=True)
class ParquetSink:
    directory: Path
    between_barriers = False

    @property
    def name(self) -> str:
        return str(self.directory.absolute())

    def check(self, schema: pa.Schema) -> None:
        """Every schema of a plan fits Parquet."""

    def claim(self, job: str) -> None:
        """PlanError if another job has claimed the directory, or if it can't be written or holds others' files."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            for left in self.directory.glob(".*.tmp"):  # by a crash within `publish`
                left.unlink(missing_ok=True)
            self._first_file_at()
            owner = self._owner(job)
        except OSError as error:
            raise PlanError(
                f"sink {self.name!r} can't be written: {error}; name a directory that the job can write in"
            ) from error
        if owner != job:
            raise PlanError(
                f"sink {self.name!r} is the directory of job {owner!r}, so job {job!r} can't write there; give each "
                "job a directory of its own, or delete this one if its rows are not needed"
            )

    def _owner(self, job: str) -> str:
        """The job whose directory it is: `job`, if it was no one's."""
        marker = self.directory / OWNER
        with self._temporary() as temporary, contextlib.suppress(FileExistsError):
            temporary.write_text(job, encoding="utf-8")
            _appear(temporary, marker)
        return marker.read_text(encoding="utf-8")

    def _first_file_at(self) -> list[tuple[int, Path]]:
        """The number of the first row of every file, ascending; PlanError for a file of another name."""
        paths = sorted(self.directory.glob("*.parquet"))
        for path in paths:
            if not (path.stem.isascii() and path.stem.isdigit()):
                raise PlanError(
                    f"sink {self.name!r} holds {path.name!r}, which is not named by a number as a job's files are; "
                    "move it elsewhere, or give the job a directory of its own"
                )
        return sorted((int(path.stem), path) for path in paths)

    def spell(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        return rows

    def marks(self) -> Mapping[int, int]:
        return {}

    def check_kept(self, first: int, marks: Mapping[int, int]) -> None:
        """CheckpointError unless rows 0 to first - 1 are all there. Opens every file's footer."""
        there = 0
        for start, path in self._first_file_at():
            if start > there or there >= first:
                break
            there = start + _length(path)
        if there < first:
            raise CheckpointError(
                f"sink {self.name!r} lacks rows from number {there} on, and the checkpoint says that rows up to number "
                f"{first - 1} were published; put the missing file back, or start afresh with another checkpoint "
                "directory and another output"
            )

    def published(self, job: str, marks: Mapping[int, int] | None) -> Numbers:
        files = self._first_file_at()
        if not files:
            return {}
        start, path = files[-1]
        return {0: start + _length(path) - 1}

    def publish(self, job: str, first: int, rows: pa.Table, out: Numbers) -> None:
        skipped = max(0, out.get(0, -1) + 1 - first)
        if skipped >= len(rows):
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"{first + skipped:020d}.parquet"
        with self._temporary() as temporary:
            pq.write_table(rows.slice(skipped), temporary)
            try:
                _appear(temporary, path)
            except FileExistsError as error:
                raise StreamError(
                    f"sink {self.name!r}: {path.name!r} is there already, and job {job!r} was about to write it: "
                    "another instance of the job is at work; stop one, and give each a job name and a directory of "
                    "its own"
                ) from error

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[Path]:
        path = self.directory / f".{uuid.uuid4().hex}.tmp"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


def _length(path: Path) -> int:
    try:
        return int(pq.read_metadata(path).num_rows)
    except pa.ArrowInvalid as error:
        raise StreamError(
            f"output file {path} is not whole: {error}; put it back from a copy, or start the job afresh with another "
            "checkpoint directory and another output"
        ) from error


def _appear(temporary: Path, path: Path) -> None:
    """Give a finished file its name, on disk when it returns; FileExistsError if the name is taken."""
    _sync(temporary)
    os.link(temporary, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
