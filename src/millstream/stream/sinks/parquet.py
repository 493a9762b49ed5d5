"""Rows into a directory of Parquet files, each named by the number of its first row.

A file appears whole, by rename, or not at all; its name is the published number.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from millstream.errors import CheckpointError

__all__ = ["ParquetSink"]


@dataclass(frozen=True)
class ParquetSink:
    directory: Path
    between_barriers = False

    @property
    def name(self) -> str:
        return str(self.directory.absolute())

    def check(self, schema: pa.Schema) -> None:
        """Every schema of a plan fits Parquet."""

    def check_fresh(self, job: str) -> None:
        found = sorted(self.directory.glob("*.parquet"))
        if found:
            raise CheckpointError(
                f"{self.directory} holds {len(found)} Parquet files, the first {found[0].name}, and job {job!r} starts "
                "afresh: it would number its rows from 0 again; give an empty directory, or the checkpoint of the job "
                "that wrote them"
            )

    def marks(self) -> Mapping[int, int]:
        return {}

    def publish(self, job: str, first: int, rows: pa.Table) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"{first:020d}.parquet"
        temporary = path.with_suffix(".tmp")
        pq.write_table(rows, temporary)
        fd = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        temporary.rename(path)
        folder = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def publish_rest(self, job: str, first: int, rows: pa.Table, marks: Mapping[int, int]) -> None:
        if not (self.directory / f"{first:020d}.parquet").exists():
            self.publish(job, first, rows)
