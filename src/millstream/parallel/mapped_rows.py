"""Rows that workers write and every process maps: how a dataset comes out of `Engine.map`.

Workers write Arrow IPC files, a batch a part, into a folder that lasts as long as the work. The driver maps what they
wrote and removes the folder: the rows then have no name, and are freed when the last dataset, part or block that reads
them is gone.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from millstream.data import Dataset, MappedFile, Part, Schema
from millstream.data.persist import MappedBatch
from millstream.errors import TrainingError

__all__ = ["MOST_FILES", "mapped_dataset", "one_batch", "runs_of", "temporary_folder", "write_batches"]

MOST_FILES = 128  # of one dataset; each keeps two descriptors open


def runs_of(n: int) -> list[range]:
    """0 to n - 1 in at most `MOST_FILES` runs of equal length, but for the last."""
    length = max(1, -(-n // MOST_FILES))
    return [range(start, min(start + length, n)) for start in range(0, n, length)]


@contextmanager
def temporary_folder(directory: str | Path | None) -> Iterator[Path]:
    """In `directory`, or in that of the system for temporary files; gone when the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="millstream-rows-", dir=directory))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # a lost worker may still write into it


def write_batches(folder: Path, batches: Sequence[pa.RecordBatch]) -> Path:
    """Into a file of its own; raises `TrainingError` where it doesn't fit."""
    path = folder / f"{uuid.uuid4().hex}.arrow"  # two attempts at a task never share a file
    try:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batches[0].schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
    except OSError as error:
        raise TrainingError(
            f"rows can't be written to {folder.parent} ({error}); make room, or pass another directory="
        ) from error
    return path


def mapped_dataset(paths: Sequence[Path], schema: Schema) -> Dataset:
    """One part for each batch of the files, in order."""
    parts: list[Part] = []
    first_row = 0
    for path in paths:
        file = MappedFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        for position in range(file.reader.num_record_batches):
            n_rows = file.reader.get_batch(position).num_rows
            parts.append(
                Part(len(parts), first_row, n_rows, schema, MappedBatch(file, position), resident=True)
            )
            first_row += n_rows
    return Dataset(schema, parts)


def one_batch(table: pa.Table) -> pa.RecordBatch:
    """All rows of a table."""
    batches = table.unify_dictionaries().combine_chunks().to_batches()
    if len(batches) > 1:
        raise TrainingError(
            f"{len(table)} rows for one part hold more than 2 GB in a column; keep fewer columns, or make more parts"
        )
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
