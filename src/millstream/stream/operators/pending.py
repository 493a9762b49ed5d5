"""Rows that wait for the watermark, and leave in the order (time, partition, offset)."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from millstream.stream.frame import Batch

__all__ = ["PendingRows"]


class PendingRows:
    """The left side of a two-input operator: rows not yet final.

    The order of leaving is a function of the set of rows, so the output is a sequence no batching can change. A batch
    is sorted once, when it comes; what leaves is then a slice of it, so waiting rows cost nothing.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._batches: list[Batch] = []

    def __len__(self) -> int:
        return sum(len(batch) for batch in self._batches)

    def add(self, batch: Batch) -> None:
        self._batches.append(_sorted(batch))

    def take_below(self, watermark: int) -> Batch | None:
        """The rows with time < watermark, sorted; None if there are none."""
        final: list[Batch] = []
        waiting: list[Batch] = []
        for batch in self._batches:
            n = int(np.searchsorted(batch.time, watermark))
            if n:
                final.append(batch.slice(0, n))
            if n < len(batch):
                waiting.append(batch.slice(n, len(batch)) if n else batch)
        self._batches = waiting
        return _sorted(Batch.concat(final)) if final else None

    def snapshot(self) -> pa.Table:
        """The waiting rows, followed by their time, partition and offset."""
        hidden = [
            pa.field("time", pa.int64()),
            pa.field("partition", pa.int32()),
            pa.field("offset", pa.int64()),
        ]
        schema = pa.schema([*self._schema, *hidden])
        batches = [
            pa.RecordBatch.from_arrays(
                [*b.rows.columns, pa.array(b.time), pa.array(b.partition), pa.array(b.offset)], schema=schema
            )
            for b in self._batches
        ]
        return pa.Table.from_batches(batches, schema)

    def restore(self, table: pa.Table) -> None:
        n = len(self._schema)
        for batch in table.to_batches():
            time, partition, offset = (np.array(column.to_numpy()) for column in batch.columns[n:])
            rows = pa.RecordBatch.from_arrays(batch.columns[:n], schema=self._schema)
            self.add(Batch(rows, time, partition, offset))


def _sorted(batch: Batch) -> Batch:
    """The rows in the order (time, partition, offset)."""
    order = np.lexsort((batch.offset, batch.partition, batch.time))
    return batch if (order[1:] > order[:-1]).all() else batch.take(order)
