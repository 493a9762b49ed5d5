"""What a dataset only noted, computed once by the workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from millstream.data import Dataset, Part
from millstream.parallel.engine import Engine
from millstream.parallel.mapped_rows import (
    mapped_dataset,
    one_batch,
    runs_of,
    temporary_folder,
    write_batches,
)
from millstream.parallel.mpi import refuse_ranks
from millstream.parallel.threads import Threads

__all__ = ["materialize"]


def materialize(
    dataset: Dataset, *, engine: Engine | None = None, directory: str | Path | None = None
) -> Dataset:
    """The same rows in the same parts, read and computed once: what `map_batches`, `filter` and `select` noted.

    For rows that are dear to compute and read more than once. engine: where they are computed, by default `Threads()`.
    directory: for the mapped files they then lie in, by default that of the system for temporary files; freed when the
    dataset is gone.

    Raises what reading the rows raises, `TrainingError` where they don't fit into the directory, and `Refused` on
    several ranks of MPI.

    >>> import pyarrow as pa
    >>> import pyarrow.compute as pc
    >>> from millstream.data import from_arrow
    >>> rides = from_arrow(pa.table({"fare": [7.5, 9.0, 3.25]}), part_rows=2)
    >>> logs = rides.map_batches(lambda batch: batch.append_column("log", pc.log2(batch["fare"])))
    >>> materialize(logs.filter(lambda batch: pc.greater(batch["log"], 2.0))).to_table()["fare"].to_pylist()
    [7.5, 9.0]
    """
    refuse_ranks("materialize", engine)
    parts = dataset.parts
    with temporary_folder(directory) as folder:
        runs = [[parts[index] for index in run] for run in runs_of(len(parts))]
        paths = (engine or Threads()).map(_Write(folder), runs)
        return mapped_dataset(paths, dataset.schema)


@dataclass(frozen=True)
class _Write:
    folder: Path

    def __call__(self, parts: Sequence[Part]) -> Path:
        return write_batches(self.folder, [one_batch(part.to_table()) for part in parts])
