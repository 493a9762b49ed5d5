"""Scoring a dataset into Parquet, resumable.

::

    scored/
      _manifest.jsonl      first line: model, digest, columns, source; then a line for every finished part
      part-00000.parquet   the rows of part 0: the columns of the source, then the predictions
      ...

A part file is written under another name, flushed, renamed, and then entered in the manifest with its size and
sha256 and the hash of the rows it was computed from. A job that was killed at any moment and is run again reads the
finished parts, to see that their rows and files are still the same, and scores only the others, and those whose
files are gone or altered; the files end up with the same bytes.
Two jobs can't write into one sink at once, and a sink never holds the predictions of two versions or of two
sources: the manifest knows its source by its columns, the rows of its parts and a hash of the first part, and
where a finished part has other rows than those that were scored, the job ends and the sink stays as it was.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from millstream.data import Dataset, Part, durable_file, from_arrow, read_parquet
from millstream.deploy.progress import Progress
from millstream.deploy.target import Target
from millstream.errors import DeployError, InputError, SchemaError
from millstream.models import Scorer, Version, flat, flat_schema
from millstream.stream import Stream

__all__ = ["BatchJob", "BatchReport"]

MANIFEST = "_manifest.jsonl"


@dataclass(frozen=True)
class BatchReport:
    """What a run did: `scored` parts of `parts`, the others having been finished before."""

    path: Path
    rows: int
    parts: int
    scored: int
    seconds: float


class BatchJob(Target):
    """Scores every row of `source` into the directory `sink`.

    source: a Dataset, an Arrow table, a data frame, or a bounded Stream, whose rows are collected.
    keep: the columns of the source that are written before the predictions (default: all).

    >>> import tempfile, numpy as np
    >>> from millstream.learn import KMeans
    >>> from millstream.models import Registry
    >>> X = np.array([[0.0, 0.0], [0.0, 1.0], [9.0, 9.0], [9.0, 8.0]])
    >>> folder = tempfile.mkdtemp()
    >>> version = Registry(folder + "/models").register("zones", KMeans(2, random_state=7).fit(X), data=X)
    >>> table = pa.table({"ride": [1, 2], "x0": [0.0, 9.0], "x1": [0.5, 8.5]})
    >>> report = BatchJob(version, source=table, sink=folder + "/scored", keep=["ride"]).run()
    >>> read_parquet(folder + "/scored").to_table().column_names
    ['ride', 'label']
    """

    target = "batch"

    def __init__(
        self,
        version: Version,
        source: Any,
        sink: str | os.PathLike[str],
        *,
        keep: Sequence[str] | None = None,
        progress: Progress | None = None,
    ) -> None:
        super().__init__(version)
        self.source = source
        self.sink = Path(sink)
        self.keep = keep
        self._progress = progress

    def run(self) -> BatchReport:
        """Check the golden rows, then score what is not finished yet.

        Raises ParityError; SignatureError where the rows don't match; DeployError if another job writes into
        the sink, or the disk is full; InputError if the sink holds something else, the predictions of another
        version or source among it, or can't be written, or its manifest is damaged.
        """
        began = time.monotonic()
        dataset = _as_dataset(self.source)
        self.verify()
        scored = _score(self.version, dataset, self.sink, self.keep, self._progress)
        report = BatchReport(self.sink, dataset.n_rows, len(dataset.parts), scored, time.monotonic() - began)
        self._went_live(str(self.sink), rows=report.rows, seconds=report.seconds)
        return report

    def golden_answers(self) -> pa.Table:
        """Golden rows as a Parquet file, scored into another by the code of `run`."""
        with tempfile.TemporaryDirectory(prefix="millstream-golden-") as folder:
            pq.write_table(pa.Table.from_batches([self.version.golden.inputs]), f"{folder}/golden.parquet")
            _score(self.version, read_parquet(f"{folder}/golden.parquet"), Path(folder) / "scored", [], None)
            return read_parquet(f"{folder}/scored").to_table()


def _as_dataset(source: Any) -> Dataset:
    if isinstance(source, Dataset):
        return source
    rows = source.collect() if isinstance(source, Stream) else source
    if not hasattr(rows, "__arrow_c_stream__"):
        raise InputError(
            f"source is a {type(source).__name__}, {source!r:.200}; expected a Dataset (read_parquet, from_arrow), an "
            "Arrow table, a data frame or a Stream"
        )
    return from_arrow(rows)


def _score(
    version: Version, dataset: Dataset, sink: Path, keep: Sequence[str] | None, progress: Progress | None
) -> int:
    """Score the parts that are not finished; returns how many these were."""
    columns = list(dataset.schema.names if keep is None else keep)
    _refuse_clashes(columns, flat_schema(version.signature.output_schema).names)
    dataset.schema.require(columns)
    scorer = version.scorer()
    scored = done = 0
    first = dataset.parts[0].to_table()
    with _Manifest(sink, version, columns, _source(dataset, first)) as manifest:
        for part in dataset.parts:
            rows = first if part is dataset.parts[0] else part.to_table()
            identity = _identity(rows)
            if not manifest.has(part, identity):
                manifest.finish(part, identity, _predicted(scorer, rows, columns))
                scored += 1
            done += part.n_rows
            if progress is not None:
                progress(done, dataset.n_rows)
    return scored


def _predicted(scorer: Scorer, rows: pa.Table, columns: list[str]) -> pa.Table:
    predictions = flat(scorer.predict(rows))
    kept = rows.select(columns)
    for field, array in zip(predictions.schema, predictions.columns, strict=True):
        kept = kept.append_column(field, array)
    return kept


def _refuse_clashes(columns: list[str], outputs: list[str]) -> None:
    clash = sorted(set(columns) & set(outputs))
    if clash:
        raise SchemaError(
            f"the source has columns {clash} of its own, the names of predictions; leave them out of keep"
        )


def _source(dataset: Dataset, first: pa.Table) -> dict[str, Any]:
    """What a manifest knows a source by; `first` holds the rows of its first part."""
    sizes = json.dumps([part.n_rows for part in dataset.parts]).encode()
    return {
        "columns": {field.name: str(field.type) for field in dataset.schema.arrow},
        "rows": dataset.n_rows,
        "parts": len(dataset.parts),
        "part_rows": hashlib.sha256(sizes).hexdigest(),
        "first_part": _identity(first),
    }


def _identity(rows: pa.Table) -> str:
    """sha256 over the rows of a part as an Arrow stream."""
    digest = hashlib.sha256()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows.combine_chunks())
    digest.update(sink.getvalue())
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class _Finished:
    """A line of the manifest; lines of before files were hashed have no `size` and `sha256`."""

    part: int
    rows: int
    identity: str
    size: int = -1
    sha256: str = ""

    def is_at(self, path: Path) -> bool:
        """Whether the file at `path` is the one that was finished."""
        return path.is_file() and path.stat().st_size == self.size and _sha256(path) == self.sha256


class _Manifest:
    """The finished parts of a sink, locked while a job runs."""

    def __init__(self, sink: Path, version: Version, columns: list[str], source: dict[str, Any]) -> None:
        self._sink = sink
        self._header: dict[str, Any] = {
            "model": str(version),
            "digest": version.digest,
            "columns": columns,
            "source": source,
        }
        self._finished: dict[int, _Finished] = {}
        self._file: io.FileIO

    def __enter__(self) -> _Manifest:
        try:
            self._sink.mkdir(parents=True, exist_ok=True)
            self._file = io.FileIO(self._sink / MANIFEST, "a+")  # no buffer that close would write once more
        except OSError as error:
            raise InputError(
                f"sink {self._sink} can't be written: {error.strerror}; expected a directory, or a path where one "
                "can be made; take another sink"
            ) from error
        try:
            self._lock()
            self._read()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def file_of(self, part: Part) -> Path:
        return self._sink / f"part-{part.index:05d}.parquet"

    def has(self, part: Part, identity: str) -> bool:
        """Whether the part is finished; InputError if what was scored then were other rows."""
        finished = self._finished.get(part.index)
        if finished is not None and finished.identity != identity:
            raise self._other_source(
                f"part {part.index} of this source has other rows than part {part.index} of that one"
            )
        return finished is not None and finished.is_at(self.file_of(part))

    def finish(self, part: Part, identity: str, scored: pa.Table) -> None:
        """Write the file of a part, then its line; DeployError where there is no room for them."""
        path = self.file_of(part)
        try:
            with durable_file(path) as file:
                pq.write_table(scored, file)
            line = _Finished(part.index, part.n_rows, identity, path.stat().st_size, _sha256(path))
        except OSError as error:
            raise self._no_room(path, error) from error
        self._append(asdict(line))

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DeployError(
                f"another job writes into {self._sink}; wait for it, or take another sink"
            ) from error

    def _read(self) -> None:
        self._file.seek(0)
        text = self._file.read()
        whole = text.rfind(b"\n") + 1
        self._file.truncate(whole)  # a line torn by a kill
        lines = [self._parsed(n, line) for n, line in enumerate(text[:whole].split(b"\n")[:-1], start=1)]
        if not lines:
            if any(self._sink.glob("*.parquet")):
                raise InputError(
                    f"{self._sink} holds Parquet files of no batch job; take an empty directory as sink"
                )
            self._append(self._header)
        else:
            self._compare(lines[0])
        for number, line in enumerate(lines[1:], start=2):
            try:
                finished = _Finished(**line)
            except TypeError as error:
                raise self._junk(number, error) from error
            self._finished[finished.part] = finished

    def _parsed(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            found = json.loads(line)
        except ValueError as error:
            raise self._junk(number, error) from error
        if not isinstance(found, dict):
            raise self._junk(number, "no JSON object")
        return found

    def _junk(self, number: int, reason: object) -> InputError:
        return InputError(
            f"line {number} of {self._sink / MANIFEST} is not what a batch job writes: {reason}; restore the file from "
            "a copy, or delete the directory to score anew, or take another sink"
        )

    def _no_room(self, path: Path, error: OSError) -> DeployError:
        return DeployError(
            f"{path} can't be written: {error.strerror or error}; the parts finished before are whole: make room, or "
            "make the directory writable, and run the job again to go on"
        )

    def _compare(self, found: dict[str, Any]) -> None:
        """Refuse the header of another job."""
        for name in ("model", "digest", "columns"):
            if found.get(name) != self._header[name]:
                raise InputError(
                    f"{self._sink} holds the predictions of another job: its {name} is {found.get(name)!r}, "
                    f"expected {self._header[name]!r}; take another directory as sink"
                )
        source = found.get("source", {})
        for name, expected in self._header["source"].items():
            if source.get(name) != expected:
                raise self._other_source(f"its {name} is {expected!r}, there it was {source.get(name)!r}")

    def _other_source(self, difference: str) -> InputError:
        return InputError(
            f"{self._sink} holds the predictions for another source than this one: {difference}; "
            "take another directory as sink, or delete this one to score anew"
        )

    def _append(self, line: dict[str, Any]) -> None:
        before = os.fstat(self._file.fileno()).st_size
        left = memoryview(json.dumps(line).encode() + b"\n")
        try:
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(before)
            raise self._no_room(self._sink / MANIFEST, error) from error
