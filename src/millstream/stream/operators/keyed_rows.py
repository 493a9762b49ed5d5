"""Rows by key in event-time order: what a lookback or an as-of join remembers of its right side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.kernels.windows import trailing_ranges
from millstream.stream.event_time import MIN_TIME
from millstream.stream.frame import Batch
from millstream.stream.slots import KeySlots

__all__ = ["KeyedRows"]

Ints = npt.NDArray[np.int64]

EVICT_ABOVE = 1024
"""Rows held before the first look for rows that no later query can reach."""


class KeyedRows:
    """Right rows sorted by (slot, time, partition, offset), with the columns asked for.

    A row whose key holds a null is dropped: it can match nothing. Sorting waits until the next query, so a burst of
    small batches is sorted once.
    """

    def __init__(self, kinds: Sequence[pa.DataType], keys: Sequence[str], columns: pa.Schema) -> None:
        # configuration
        self._kinds = tuple(kinds)
        self._keys = tuple(keys)
        self.columns = columns
        # rebuilt on restart
        self._slots = KeySlots(self._kinds)
        self._unsorted: list[tuple[Ints, Batch]] = []
        self._starts: Ints = np.zeros(1, np.int64)
        self._evict_above = EVICT_ABOVE
        # checkpointed
        self._slot: Ints = np.zeros(0, np.int64)
        empty = pa.RecordBatch.from_pylist([], schema=columns)
        self._rows = Batch(empty, np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self._slot) + sum(len(slot) for slot, _ in self._unsorted)

    @property
    def rows(self) -> pa.RecordBatch:
        """The held rows in sorted order; positions from `ranges` point into them."""
        return self._rows.rows

    def add(self, batch: Batch) -> None:
        slot = self._slots.add([batch.rows.column(key) for key in self._keys])
        rows = batch.with_rows(batch.rows.select(self.columns.names))
        known = np.flatnonzero(slot >= 0)
        if len(known):
            self._unsorted.append((slot[known], rows.take(known)))

    def ranges(self, keys: Sequence[pa.Array], until: Ints, since: Ints) -> tuple[Ints, Ints]:
        """For each query the run ``[lo, hi)`` of `rows` with its key and since < time <= until; all (m,)."""
        self._sort()
        slots = self._slots.find(keys)
        lo, hi = trailing_ranges(slots, until, since, self._starts, self._rows.time)
        return lo, hi

    def evict(self, watermark: int, reach: int | None) -> None:
        """Forget rows out of reach of every query at or after `watermark`, once there are enough of them.

        reach: how far back a query looks, microseconds. None keeps, of each key, the last row before the watermark.
        """
        if len(self) <= self._evict_above or watermark == MIN_TIME:
            return
        self._sort()
        time, slot = self._rows.time, self._slot
        needed = time > watermark - reach if reach is not None else time >= watermark
        if reach is None:
            last = np.append((slot[1:] != slot[:-1]) | needed[1:], True)
            needed = needed | last
        self._keep(np.flatnonzero(needed))
        self._evict_above = max(EVICT_ABOVE, 2 * len(self))

    def _keep(self, index: Ints) -> None:
        """Keep the rows at `index`, and number their keys afresh if most keys have gone."""
        rows, slot = self._rows.take(index), self._slot[index]
        live, slot_of_row = np.unique(slot, return_inverse=True)
        if 4 * len(live) < len(self._slots):
            keys = self._slots.values(live)
            self._slots = KeySlots(self._kinds)
            slot = self._slots.add(keys)[slot_of_row] if len(live) else slot
        self._slot, self._rows = slot, rows
        self._index_slots()

    def _sort(self) -> None:
        if not self._unsorted:
            return
        slot = np.concatenate([self._slot, *(s for s, _ in self._unsorted)])
        rows = Batch.concat([self._rows, *(b for _, b in self._unsorted)])
        order = np.lexsort((rows.offset, rows.partition, rows.time, slot))
        self._slot, self._rows, self._unsorted = slot[order], rows.take(order), []
        self._index_slots()

    def _index_slots(self) -> None:
        if np.any(self._slot[1:] < self._slot[:-1]):
            order = np.argsort(self._slot, kind="stable")
            self._slot, self._rows = self._slot[order], self._rows.take(order)
        self._starts = np.searchsorted(self._slot, np.arange(len(self._slots) + 1))

    def snapshot(self) -> pa.Table:
        """Key columns, then the held columns, then time, partition and offset."""
        self._sort()
        rows = self._rows
        arrays = [
            *self._slots.values(self._slot),
            *rows.rows.columns,
            pa.array(rows.time),
            pa.array(rows.partition),
            pa.array(rows.offset),
        ]
        names = [*(f"key {key}" for key in self._keys), *self.columns.names, "time", "partition", "offset"]
        return pa.Table.from_batches([pa.RecordBatch.from_arrays(arrays, names=names)])

    def restore(self, table: pa.Table) -> None:
        n, m = len(self._keys), len(self._keys) + len(self.columns)
        for batch in table.to_batches():
            time, partition, offset = (np.array(column.to_numpy()) for column in batch.columns[m:])
            rows = pa.RecordBatch.from_arrays(batch.columns[n:m], schema=self.columns)
            slot = self._slots.add(batch.columns[:n])
            self._unsorted.append((slot, Batch(rows, time, partition, offset)))
