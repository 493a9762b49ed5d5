"""Parquet that is either there or not.

The files are written into a directory of another name beside the goal, synced, and moved there in one
rename; whoever sees the directory sees all of it. What a killed writer leaves behind starts with a dot and
can be deleted.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet as pq

from millstream.data.part import Part
from millstream.data.schema import Schema
from millstream.errors import InputError

__all__ = ["write_parts"]


def write_parts(parts: Iterable[Part], schema: Schema, path: Path) -> Path:
    """Write ``part-00000.parquet``, ... into the directory `path`, which must not exist yet."""
    if path.exists():
        raise InputError(f"{path} exists already; choose another path, or remove it first")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.unfinished"
    unfinished.mkdir()
    try:
        for part in parts:
            _write_part(part, schema, unfinished / f"part-{part.index:05d}.parquet")
        _sync(unfinished)
        unfinished.rename(path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)  # gone already if the rename happened
    _sync(path.parent)
    return path


def _write_part(part: Part, schema: Schema, path: Path) -> None:
    with path.open("wb") as file:
        with pq.ParquetWriter(file, schema.arrow) as writer:
            if part.n_rows:
                writer.write_table(part.to_table(), row_group_size=part.n_rows)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
