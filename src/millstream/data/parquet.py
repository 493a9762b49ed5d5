"""Parquet files as a dataset.

A part is a run of rows within one row group, of about 4 MB; where the row groups are smaller, a part is a
row group. Parquet can't be entered in the middle of a column, so the parts of one row group share a reader
that decodes forward: workers that take parts in order cause each row group to be decoded once, and at most
`AHEAD` parts that nobody has asked for yet are held. A part asked for again, or out of order, is decoded
from the beginning of its row group.
"""

from __future__ import annotations

import fnmatch
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from millstream.data.dataset import Dataset
from millstream.data.part import Part, even_rows
from millstream.data.schema import Schema
from millstream.errors import InputError, SchemaError

__all__ = ["read_parquet"]

AHEAD = 16
OPEN_READERS = 8
READ_BYTES = 1 << 18  # read from the file at once, for each column of an open row group


def read_parquet(
    source: str | Path | Sequence[str | Path],
    features: Sequence[str] | None = None,
    target: str | None = None,
    weight: str | None = None,
    filesystem: pa.fs.FileSystem | None = None,
) -> Dataset:
    """A dataset over Parquet files, read part by part and never all at once.

    source: a file, a directory (every ``.parquet`` file below it), a pattern such as ``rides/*.parquet``,
        or a list of
        these; or a URI of any `pyarrow.fs` file system (``s3://``, ``gs://``, ``hdfs://``). Files are taken
        in the order of the list, and within one directory or pattern by name.
    features, target, weight: names of columns; without `features` every other column is one.

    Raises `InputError` where no file matches or a file is not Parquet, `SchemaError` where files or names
    disagree.
    """
    sources = [source] if isinstance(source, str | Path) else list(source)
    files = [found for one in sources for found in _files(str(one), filesystem)]
    if not files:
        raise InputError(f"no Parquet file matches {source!r}; check the path, or pass a list of files")
    schema = Schema.of(_common_schema(files), features=features, target=target, weight=weight)
    return Dataset(schema, _parts(files, schema))


@dataclass(frozen=True, eq=False)
class _File:
    filesystem: pa.fs.FileSystem
    path: str

    def open(self) -> pq.ParquetFile:
        # Without pre_buffer a column is streamed page by page, so that a large row group is never held whole.
        try:
            return pq.ParquetFile(
                self.filesystem.open_input_file(self.path), buffer_size=READ_BYTES, pre_buffer=False
            )
        except pa.ArrowInvalid as error:
            raise InputError(f"{self.path} is not a complete Parquet file: {error}") from error


def _files(source: str, filesystem: pa.fs.FileSystem | None) -> list[_File]:
    if filesystem is not None:
        path = source
    elif "://" in source:
        filesystem, path = pa.fs.FileSystem.from_uri(source)
    else:
        filesystem, path = pa.fs.LocalFileSystem(), str(Path(source).absolute())
    wild = next((at for at, letter in enumerate(path) if letter in "*?["), None)
    if wild is not None:
        below = filesystem.get_file_info(
            pa.fs.FileSelector(path[:wild].rpartition("/")[0], recursive=True, allow_not_found=True)
        )
        # A star stays within one directory, as in a shell.
        matching = [
            info.path
            for info in below
            if info.is_file and fnmatch.fnmatch(info.path, path) and info.path.count("/") == path.count("/")
        ]
        return [_File(filesystem, one) for one in sorted(matching)]
    info = filesystem.get_file_info(path)
    if info.type == pa.fs.FileType.Directory:
        inside = filesystem.get_file_info(pa.fs.FileSelector(path, recursive=True))
        names = sorted(one.path for one in inside if one.is_file and one.path.endswith(".parquet"))
        return [_File(filesystem, one) for one in names]
    return [_File(filesystem, path)] if info.is_file else []


def _common_schema(files: Sequence[_File]) -> pa.Schema:
    first = files[0].open().schema_arrow.remove_metadata()
    for file in files[1:]:
        other = file.open().schema_arrow.remove_metadata()
        for field in first:
            at = other.get_field_index(field.name)
            if at < 0 or other.field(at).type != field.type:
                came = "no such column" if at < 0 else str(other.field(at).type)
                raise SchemaError(
                    f"column {field.name!r} is {field.type} in {files[0].path} and {came} in {file.path}; "
                    "write the files with one schema, or read them apart"
                )
    return first


def _parts(files: Sequence[_File], schema: Schema) -> list[Part]:
    readers = _Readers()
    parts: list[Part] = []
    first_row = 0
    for file in files:
        metadata = file.open().metadata
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        if metadata.num_rows == 0:
            parts.append(Part(len(parts), first_row, 0, schema, _no_rows))
        for group, shape in enumerate(groups):
            rows = even_rows(shape.num_rows, shape.total_byte_size)
            for position, start in enumerate(range(0, shape.num_rows, rows)):
                size = min(rows, shape.num_rows - start)
                read = _RowGroupSlice(readers, file, group, shape.num_rows, rows, position, schema.arrow)
                parts.append(Part(len(parts), first_row, size, schema, read))
                first_row += size
    return parts


def _no_rows(columns: Sequence[str], /) -> Iterator[pa.RecordBatch]:
    return iter(())


@dataclass(frozen=True)
class _RowGroupSlice:
    """Rows ``position * rows`` and on of a row group of `group_rows`, `rows` of them at most."""

    readers: _Readers
    file: _File
    group: int
    group_rows: int
    rows: int
    position: int
    schema: pa.Schema

    def __call__(self, columns: Sequence[str], /) -> Iterator[pa.RecordBatch]:
        key = _Key(self.file, self.group, self.group_rows, self.rows, tuple(columns))
        table = self.readers.take(key, self.position)
        # iter_batches gives the file's order of columns and may give a dictionary the other index width.
        expected = pa.schema([self.schema.field(name) for name in columns])
        return iter(table.select(list(columns)).cast(expected).to_batches())


@dataclass(frozen=True)
class _Key:
    file: _File
    group: int
    group_rows: int
    rows: int
    columns: tuple[str, ...]


class _Forward:
    """One row group, decoded forward in slices of equal size."""

    def __init__(self, key: _Key) -> None:
        self.lock = threading.Lock()
        self._end = -(-key.group_rows // key.rows)
        self._batches = key.file.open().iter_batches(
            batch_size=key.rows, row_groups=[key.group], columns=list(key.columns)
        )
        self._next = 0
        self._ahead: OrderedDict[int, pa.Table] = OrderedDict()

    def take(self, position: int) -> pa.Table | None:
        """The slice, or None if it lies behind."""
        while self._next <= position:
            self._ahead[self._next] = pa.Table.from_batches([next(self._batches)])
            self._next += 1
            if len(self._ahead) > AHEAD:
                self._ahead.popitem(last=False)
        return self._ahead.pop(position, None)

    @property
    def used_up(self) -> bool:
        """True if every slice was decoded and given out."""
        return self._next == self._end and not self._ahead


class _Readers:
    """The row groups being decoded, at most `OPEN_READERS`; the one used longest ago goes first.

    Sent to another process it begins with none.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[_Key, _Forward] = OrderedDict()

    def __reduce__(self) -> tuple[type[_Readers], tuple[()]]:
        return _Readers, ()

    def take(self, key: _Key, position: int) -> pa.Table:
        with self._lock:
            reader = self._open.get(key) or self._open.setdefault(key, _Forward(key))
            self._open.move_to_end(key)
            if len(self._open) > OPEN_READERS:
                self._open.popitem(last=False)
        with reader.lock:
            table = reader.take(position)
            used_up = reader.used_up
        if table is None:  # it lies behind; whoever goes on from here finds the new reader
            reader = _Forward(key)
            with self._lock:
                self._open[key] = reader
            return self.take(key, position)
        if used_up:
            with self._lock:
                if self._open.get(key) is reader:
                    del self._open[key]
        return table
