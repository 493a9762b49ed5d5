"""A piece of a dataset that one call works on.

Parts come from the data and never from the workers: the same dataset has the same parts on a laptop and on
    a cluster, which is what lets a sum over parts have the same bits on both. A part is a description; its
    rows are read each time they are asked for, and two threads may read one part at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import pyarrow as pa

from millstream.data.block import Block, blocks_of
from millstream.data.schema import Schema

__all__ = ["PART_BYTES", "Part", "ReadColumns", "TableReader", "even_rows"]

PART_BYTES = 4 << 20


class ReadColumns(Protocol):
    """How the rows of a part are had.

    Laws: the batches hold exactly the columns asked for, in that order, and together exactly the rows of
        the part, in order; a second call gives the same rows again; several threads may call at once.
    """

    def __call__(self, columns: Sequence[str], /) -> Iterator[pa.RecordBatch]: ...


@dataclass(frozen=True)
class Part:
    """Rows `first_row` to ``first_row + n_rows`` of a dataset.

    `resident` says that the rows lie in memory or in a mapped file, so that reading them decodes nothing.
    """

    index: int
    first_row: int
    n_rows: int
    schema: Schema
    read: ReadColumns
    resident: bool = False

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, in order, with every column of the schema."""
        return self.read(self.schema.names)

    def to_table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows as one table, of the named columns or of all."""
        chosen = self.schema if columns is None else self.schema.select(columns)
        return pa.Table.from_batches(self.read(chosen.names), schema=chosen.arrow)

    def blocks(self) -> Iterator[Block]:
        """The features, target and weight as matrices; a part without rows has no blocks."""
        used = [*self.schema.features, *self.schema.targets]
        if self.schema.weight is not None:
            used.append(self.schema.weight)
        return blocks_of(self.to_table(used), self.schema.select(used), self.first_row)

    def with_schema(self, schema: Schema) -> Part:
        """The same rows under other roles, or fewer columns."""
        return replace(self, schema=schema)


@dataclass(frozen=True)
class TableReader:
    """Rows that lie in memory."""

    table: pa.Table

    def __call__(self, columns: Sequence[str], /) -> Iterator[pa.RecordBatch]:
        return iter(self.table.select(list(columns)).to_batches())


def even_rows(n_rows: int, n_bytes: int) -> int:
    """Rows in a part of about `PART_BYTES`, for rows that take `n_bytes` together.

    >>> even_rows(1_000_000, 8_000_000)
    524288
    """
    width = max(1.0, n_bytes / max(1, n_rows))
    return max(1, int(PART_BYTES / width))
