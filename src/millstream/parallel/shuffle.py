"""Rows moved so that equal keys meet: the shuffle of MapReduce (Dean and Ghemawat, OSDI 2004) on any engine.

::

    part 0 ──┐ map: hash the keys, sort by bucket       bucket 0 ──┐ reduce: the slices of a bucket,
    part 1 ──┤ ─────────> one file a part, a batch a    bucket 1 ──┤ in the order of the parts
    part 2 ──┘            bucket                        bucket 2 ──┘ ─────────> mapped files, a batch a part

Between the two every row lies in a temporary file. While memory lasts the files are in the page cache; when it is
short the system writes them to the disk, so what is shuffled need not fit into memory. A reduce holds the slices of
one bucket at a time. The directory is gone when the result stands: the result's files are mapped and have no names.

The bucket of a row depends on its key and on the number of parts alone, neighbouring small buckets become one part by
their sizes alone, and slices meet in the order of the parts: the result is the same on every engine and at any width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millstream.data import Dataset, Part, Schema
from millstream.data.part import PART_BYTES, TableReader
from millstream.errors import InputError, SchemaError
from millstream.kernels.key_hash import hash_bytes, hash_integers
from millstream.parallel.engine import Engine
from millstream.parallel.mapped_rows import (
    mapped_dataset,
    one_batch,
    runs_of,
    temporary_folder,
    write_batches,
)
from millstream.parallel.mpi import refuse_ranks

__all__ = ["ShuffleReport", "Shuffled", "Slices", "bucketed", "key_hashes", "shuffle"]

_MOST_BUCKETS = 512
Hashes = np.ndarray[tuple[int], np.dtype[np.uint64]]

_NULL = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class ShuffleReport:
    """rows_in, rows_out: of the datasets; rows_shuffled: moved, after combining; bytes_shuffled: written for that."""

    engine: str
    workers: int
    rows_in: int
    rows_shuffled: int
    bytes_shuffled: int
    rows_out: int
    parts_out: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.rows_in} rows to {self.rows_out} in {self.parts_out} parts on {self.engine} in "
            f"{self.seconds:.3f} s; {self.rows_shuffled} rows shuffled, {self.bytes_shuffled / 1e6:.1f} MB"
        )


@dataclass(frozen=True)
class Shuffled:
    """dataset: its rows lie in mapped files, freed when it is gone. report: what it took."""

    dataset: Dataset
    report: ShuffleReport


@dataclass(frozen=True)
class Slices:
    """What a map task wrote: a file with one batch a bucket."""

    path: Path
    rows: tuple[int, ...]
    nbytes: tuple[int, ...]

    def open(self) -> pa.ipc.RecordBatchFileReader:
        """A reader; batch b is the slice of bucket b."""
        return pa.ipc.open_file(pa.memory_map(str(self.path)))


def shuffle(
    engine: Engine,
    mappers: Sequence[Callable[[Part], pa.Table]],
    inputs: Sequence[Dataset],
    keys: Sequence[str],
    reduce: Callable[..., pa.Table],
    schema: Schema,
    *,
    n_parts: int | None = None,
    directory: str | Path | None = None,
) -> Shuffled:
    """Map every part of every input, move the rows to their buckets, reduce each bucket to a part of the result.

    mappers: one for each input, from a part to a table with the key columns. reduce: from one table for each input, the
    rows of a bucket in the order of the parts, to a table with the columns of `schema`. n_parts: of the result; by
    default as many as make parts of about 4 MB, at most 512. directory: for the files, by default that of the system
    for temporary files.

    Raises what the functions raise, `TrainingError` where the files can't be written, and `Refused` on several ranks of
    MPI.
    """
    started = perf_counter()
    refuse_ranks("a shuffle", engine)
    parts_of = [dataset.parts or (_no_rows(dataset.schema),) for dataset in inputs]
    sources = [(which, part) for which, parts in enumerate(parts_of) for part in parts]
    if n_parts is not None and not 1 <= n_parts <= _MOST_BUCKETS:
        raise InputError(f"n_parts={n_parts}; expected 1 to {_MOST_BUCKETS}")
    n_buckets = n_parts or min(_MOST_BUCKETS, 2 * max(map(len, parts_of)))
    with temporary_folder(directory) as folder:
        write = _Map(tuple(mappers), tuple(keys), n_buckets, folder)
        slices = engine.map(write, sources)
        groups = [(b,) for b in range(n_buckets)] if n_parts else _coalesced(slices, n_buckets)
        by_input = tuple(
            tuple(s for (which, _), s in zip(sources, slices, strict=True) if which == i)
            for i in range(len(inputs))
        )
        runs = [[groups[i] for i in run] for run in runs_of(len(groups))]
        written = engine.map(_Reduce(reduce, by_input, schema, folder), runs)
        dataset = mapped_dataset(written, schema)
    report = ShuffleReport(
        repr(engine),
        engine.n_workers,
        rows_in=sum(dataset.n_rows for dataset in inputs),
        rows_shuffled=sum(sum(s.rows) for s in slices),
        bytes_shuffled=sum(sum(s.nbytes) for s in slices),
        rows_out=dataset.n_rows,
        parts_out=len(dataset.parts),
        seconds=perf_counter() - started,
    )
    return Shuffled(dataset, report)


@dataclass(frozen=True)
class _Map:
    mappers: tuple[Callable[[Part], pa.Table], ...]
    keys: tuple[str, ...]
    n_buckets: int
    folder: Path

    def __call__(self, source: tuple[int, Part]) -> Slices:
        which, part = source
        batches = bucketed(self.mappers[which](part), self.keys, self.n_buckets)
        path = write_batches(self.folder, batches)
        return Slices(path, tuple(b.num_rows for b in batches), tuple(b.nbytes for b in batches))


@dataclass(frozen=True)
class _Reduce:
    function: Callable[..., pa.Table]
    slices: tuple[tuple[Slices, ...], ...]  # by input, in the order of the parts
    schema: Schema
    folder: Path

    def __call__(self, parts: Sequence[Sequence[int]]) -> Path:
        readers = [[s.open() for s in slices] for slices in self.slices]
        batches = []
        for buckets in parts:
            reduced = [
                self.function(
                    *(pa.Table.from_batches([reader.get_batch(bucket) for reader in of]) for of in readers)
                )
                for bucket in buckets
            ]
            rows = pa.concat_tables([table.select(list(self.schema.names)) for table in reduced])
            batches.append(one_batch(rows.cast(self.schema.arrow)))
        return write_batches(self.folder, batches)


def _no_rows(schema: Schema) -> Part:
    return Part(0, 0, 0, schema, TableReader(schema.arrow.empty_table()))


def bucketed(table: pa.Table, keys: Sequence[str], n_buckets: int) -> list[pa.RecordBatch]:
    """One batch for each bucket, with its rows of the table in their order."""
    batch = one_batch(table)
    bucket = (key_hashes(batch, keys) % np.uint64(n_buckets)).astype(np.uint16)  # sorted by radix
    ordered = batch.take(pa.array(np.argsort(bucket, kind="stable")))
    ends = np.cumsum(np.bincount(bucket, minlength=n_buckets))
    starts = ends - np.diff(ends, prepend=0)
    return [ordered.slice(int(start), int(end - start)) for start, end in zip(starts, ends, strict=True)]


def key_hashes(batch: pa.RecordBatch, keys: Sequence[str]) -> Hashes:
    """(rows,) uint64, from the values of the key columns alone; a null is a value of its own.

    Keys are integers, Booleans, dates, times, strings or bytes. Raises `SchemaError` for others.
    """
    found: Hashes = np.zeros(batch.num_rows, np.uint64)
    for name in keys:
        column = batch.column(name)
        hashed = _column_hashes(column, name, found)
        found = np.where(column.is_null().to_numpy(zero_copy_only=False), found ^ _NULL, hashed)
    return found


def _column_hashes(column: pa.Array, name: str, before: Hashes) -> Hashes:
    kind = pa.types
    if kind.is_dictionary(column.type):
        column = column.dictionary_decode()
    if kind.is_string(column.type) or kind.is_large_string(column.type) or kind.is_binary(column.type):
        column = column.cast(pa.large_string() if not kind.is_binary(column.type) else pa.large_binary())
    if kind.is_large_string(column.type) or kind.is_large_binary(column.type):
        _, offsets, data = column.buffers()
        bounds = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
        return np.asarray(hash_bytes(bounds, np.frombuffer(data or b"", np.uint8), before))
    if kind.is_integer(column.type) or kind.is_boolean(column.type):
        integers = column.cast(pa.int64(), safe=False)
    elif kind.is_temporal(column.type) and not kind.is_interval(column.type):
        integers = column.view(pa.int32() if column.type.bit_width == 32 else pa.int64()).cast(pa.int64())
    else:
        raise SchemaError(
            f"key {name!r} is of type {column.type}; a key is an integer, a Boolean, a date or time, a string or "
            "bytes: cast it with map_batches"
        )
    return np.asarray(hash_integers(pc.fill_null(integers, 0).to_numpy(), before))


def _coalesced(slices: Sequence[Slices], n_buckets: int) -> list[tuple[int, ...]]:
    """Neighbouring buckets together, up to `PART_BYTES`."""
    groups: list[tuple[int, ...]] = []
    size = 0
    for bucket in range(n_buckets):
        more = sum(s.nbytes[bucket] for s in slices)
        if groups and size + more <= PART_BYTES:
            groups[-1] += (bucket,)
            size += more
        else:
            groups.append((bucket,))
            size = more
    return groups
