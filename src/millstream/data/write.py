"""Parquet that is either there or not: whoever sees the directory sees every part of it (see `durable`)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet as pq

from millstream.data.durable import durable_folder
from millstream.data.part import Part
from millstream.data.schema import Schema
from millstream.errors import InputError

__all__ = ["write_parts"]


def write_parts(parts: Iterable[Part], schema: Schema, path: Path) -> Path:
    """Write ``part-00000.parquet``, ... into the directory `path`, which must not exist yet."""
    if path.exists():
        raise InputError(f"{path} exists already; choose another path, or remove it first")
    with durable_folder(path) as folder:
        for part in parts:
            with pq.ParquetWriter(folder / f"part-{part.index:05d}.parquet", schema.arrow) as writer:
                if part.n_rows:
                    writer.write_table(part.to_table(), row_group_size=part.n_rows)
    return path
