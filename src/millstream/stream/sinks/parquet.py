"""Rows into a directory of Parquet files, each named by the number of its first row.

A file appears whole, by rename, or not at all; its name and its length are the published numbers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from millstream.stream.sinks.sink import Numbers

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

    def spell(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        return rows

    def marks(self) -> Mapping[int, int]:
        return {}

    def published(self, job: str, marks: Mapping[int, int] | None) -> Numbers:
        last = max(self.directory.glob("*.parquet"), default=None)
        return {} if last is None else {0: int(last.stem) + pq.read_metadata(last).num_rows - 1}

    def publish(self, job: str, first: int, rows: pa.Table, out: Numbers) -> None:
        skipped = max(0, out.get(0, -1) + 1 - first)
        if skipped >= len(rows):
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"{first + skipped:020d}.parquet"
        temporary = path.with_suffix(".tmp")
        pq.write_table(rows.slice(skipped), temporary)
        _sync(temporary)
        temporary.rename(path)
        _sync(self.directory)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
