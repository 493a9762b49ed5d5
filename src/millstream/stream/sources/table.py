"""Rows in memory, by partition: an Arrow table, or the replay of a topic.

The partition most behind in event time is read first, so a replay holds little more than the disorder of its rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millstream.stream.sources.reader import Chunk

__all__ = ["TableReader", "in_event_time_order", "replay", "whole_table"]


class TableReader:
    """A `Reader` of rows at hand. rows by partition: (offsets ascending, table)."""

    identity = ""

    def __init__(
        self,
        rows: Mapping[int, tuple[npt.NDArray[np.int64], pa.Table]],
        positions: Mapping[int, int] | None,
        origin: str = "table",
    ) -> None:
        self.origin = origin
        self._rows = dict(rows)
        wanted = positions or {}
        self._next = {p: int(np.searchsorted(o, wanted.get(p, 0))) for p, (o, _) in self._rows.items()}

    @property
    def partitions(self) -> Sequence[int]:
        return sorted(self._rows)

    @property
    def ends(self) -> Mapping[int, int]:
        return {p: int(o[-1]) + 1 if len(o) else 0 for p, (o, _) in self._rows.items()}

    @property
    def finished(self) -> set[int]:
        return {p for p, (o, _) in self._rows.items() if self._next[p] == len(o)}

    @property
    def positions(self) -> Mapping[int, int]:
        ends = self.ends
        return {
            p: ends[p] if self._next[p] == len(o) else int(o[self._next[p]])
            for p, (o, _) in self._rows.items()
        }

    def poll(self, limit: int, timeout: timedelta, order: Sequence[int]) -> list[Chunk]:
        done = self.finished
        partition = next((p for p in order if p not in done), None)
        if partition is None:
            return []
        offsets, table = self._rows[partition]
        start = self._next[partition]
        stop = min(start + limit, len(offsets))
        self._next[partition] = stop
        rows = table.slice(start, stop - start).combine_chunks().to_batches()[0]
        return [Chunk(partition, offsets[start:stop], rows)]

    def caught_up(self) -> set[int]:
        return self.finished

    def close(self) -> None:
        """Nothing to let go of."""


def whole_table(table: pa.Table, positions: Mapping[int, int] | None) -> TableReader:
    """A table as one partition, in the order of its rows; a row's offset is its number."""
    return TableReader({0: (np.arange(len(table)), table)}, positions)


def in_event_time_order(table: pa.Table, event_time: str) -> pa.Table:
    """The rows sorted by event time; equal times keep their order."""
    column = table.column(event_time)
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    return table.take(pc.array_sort_indices(column.combine_chunks()))


def replay(table: pa.Table, schema: pa.Schema, positions: Mapping[int, int] | None) -> TableReader:
    """The rows of a topic as `read_topic` gives them, in offset order by partition; columns of `schema`."""
    partition = table.column("_partition").to_numpy()
    offset = table.column("_offset").to_numpy()
    rows = table.select(schema.names).cast(schema)
    by_partition = {}
    for p in np.unique(partition).tolist():
        index = np.flatnonzero(partition == p)
        index = index[np.argsort(offset[index], kind="stable")]
        by_partition[p] = (offset[index].astype(np.int64), rows.take(pa.array(index)))
    return TableReader(by_partition, positions)
