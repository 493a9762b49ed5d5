"""Rows that wait for the watermark, and leave in the order (time, partition, offset)."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from millstream.stream.frame import Batch

__all__ = ["PendingRows"]


class PendingRows:
    """The left side of a two-input operator: rows not yet final.

    The order of leaving is a function of the set of rows, so the output is a sequence no batching can change.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._batches: list[Batch] = []

    def __len__(self) -> int:
        return sum(len(batch) for batch in self._batches)

    def add(self, batch: Batch) -> None:
        self._batches.append(batch)

    def take_below(self, watermark: int) -> Batch | None:
        """The rows with time < watermark, sorted; None if there are none."""
        if not any((batch.time < watermark).any() for batch in self._batches):
            return None
        rows = Batch.concat(self._batches)
        final = rows.time < watermark
        rest = rows.take(np.flatnonzero(~final))
        self._batches = [rest] if len(rest) else []
        index = np.flatnonzero(final)
        order = np.lexsort((rows.offset[index], rows.partition[index], rows.time[index]))
        return rows.take(index[order])

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
            self._batches.append(Batch(rows, time, partition, offset))
