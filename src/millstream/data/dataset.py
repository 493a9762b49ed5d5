"""Bounded data: lazy, larger than memory, made of parts.

A `Dataset` is a schema and its parts. Every method that returns a dataset is lazy and leaves the rows where
they are; `to_table`, `write_parquet` and `persist` read them, one part at a time in order.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from millstream.data.block import block_dtype
from millstream.data.mapped import Filtered, Mapped, filtered_parts, mapped_schema
from millstream.data.part import Part
from millstream.data.persist import persisted_parts
from millstream.data.schema import Schema
from millstream.data.write import write_parts

__all__ = ["Dataset"]


class Dataset:
    """Rows with a schema, in parts.

    `parts` may be given as a function, called when the parts are first asked for.

    >>> from millstream.data import from_numpy
    >>> rides = from_numpy(np.arange(6.0).reshape(3, 2), y=np.array([0, 1, 1]), part_rows=2)
    >>> rides
    Dataset(3 rows, 2 parts, features x0, x1, target y)
    >>> [block.X.shape for part in rides.parts for block in part.blocks()]
    [(2, 2), (1, 2)]
    """

    def __init__(self, schema: Schema, parts: Sequence[Part] | Callable[[], Sequence[Part]]) -> None:
        self.schema = schema
        self._given = parts

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The parts, in order; how many there are depends on the data alone."""
        return tuple(self._given() if callable(self._given) else self._given)

    @cached_property
    def n_rows(self) -> int:
        return sum(part.n_rows for part in self.parts)

    def __len__(self) -> int:
        return self.n_rows

    @property
    def n_features(self) -> int | None:
        """Width of a block, or None while a feature is not a number."""
        return len(self.schema.feature_names) if self.schema.is_numeric else None

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """dtype of ``Block.X``, or None while a feature is not a number."""
        return block_dtype(self.schema) if self.schema.is_numeric else None

    @property
    def row_major(self) -> bool:
        """True if blocks are views: one fixed-size list of features, in memory or mapped."""
        features = self.schema.features
        matrix = len(features) == 1 and self.schema[features[0]].is_matrix
        return matrix and all(part.resident for part in self.parts)

    def select(self, columns: Sequence[str]) -> Dataset:
        """Only the named columns, in that order; a Parquet file then reads no others."""
        return self._over(self.schema.select(list(columns)))

    def with_roles(
        self,
        features: Sequence[str] | None = None,
        target: str | None = None,
        weight: str | None = None,
    ) -> Dataset:
        """The same rows under other roles; what is not given stays as it is."""
        return self._over(self.schema.with_roles(features=features, target=target, weight=weight))

    def map_batches(
        self, function: Callable[[pa.RecordBatch], pa.RecordBatch], schema: Schema | pa.Schema | None = None
    ) -> Dataset:
        """Other columns for the same rows, computed when they are read.

        function: from a batch with every column of this dataset to a batch of as many rows; called from
            several
            threads, so it keeps no state. To drop rows use `filter`.
        schema: what it returns. As an Arrow schema, or left out (the function is then called once on a
            batch without
            rows), columns keep the role they have here and new ones are features.
        """
        result = mapped_schema(self.schema, function, schema)

        def derive(part: Part) -> Part:
            return Part(part.index, part.first_row, part.n_rows, result, Mapped(part, function, result))

        return self._derived(result, derive)

    def filter(self, predicate: Callable[[pa.RecordBatch], Any]) -> Dataset:
        """Only the rows where `predicate`, a Boolean array for a batch, is true; null counts as false.

        The parts stay, some with fewer rows. Their sizes are counted by one reading when first asked for.
        """
        return Dataset(
            self.schema, lambda: filtered_parts([(part, Filtered(part, predicate)) for part in self.parts])
        )

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Every row in order, part after part."""
        return itertools.chain.from_iterable(part.batches() for part in self.parts)

    def to_table(self) -> pa.Table:
        """All rows in memory."""
        return pa.Table.from_batches(self.batches(), schema=self.schema.arrow)

    def write_parquet(self, path: str | Path) -> Path:
        """Write one file a part into the new directory `path`, which appears only when it is complete.

        Returns the directory. `read_parquet` of it gives the same rows, in the same parts as far as they
        are no larger than 4 MB.
        """
        return write_parts(self.parts, self.schema, Path(path))

    def persist(self, directory: str | Path | None = None) -> Dataset:
        """A row-major copy of features, target and weight in a memory-mapped file, for work of many epochs.

        directory: where the file lies (default: the system's directory for temporary files). It can't be seen there:
            it has no name once it is mapped, and is freed when the last dataset, part or block that reads it is gone.

        Columns without one of the three roles are left out.
        """
        return Dataset(*persisted_parts(self.parts, self.schema, directory))

    def _over(self, schema: Schema) -> Dataset:
        return self._derived(schema, lambda part: part.with_schema(schema))

    def _derived(self, schema: Schema, derive: Callable[[Part], Part]) -> Dataset:
        """One part for each part here: at once if these are known, else when they are asked for."""
        if self._counted:
            return Dataset(schema, [derive(part) for part in self.parts])
        return Dataset(schema, lambda: [derive(part) for part in self.parts])

    def __repr__(self) -> str:
        names = self.schema.feature_names
        shown = ", ".join(names[:4]) + (f", ... ({len(names)})" if len(names) > 4 else "")
        target = "" if self.schema.target is None else f", target {self.schema.target}"
        size = f"{self.n_rows} rows, {len(self.parts)} parts" if self._counted else "rows not counted yet"
        return f"Dataset({size}, features {shown}{target})"

    @property
    def _counted(self) -> bool:
        """False while showing the number of rows would mean reading the data."""
        return "parts" in vars(self) or not callable(self._given)
