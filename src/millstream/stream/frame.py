"""What flows between operators: `Batch` and `Watermark`.

A batch is an Arrow record batch whose rows carry an event time and the place they came from. Both stay with a row
when its columns are selected away, so every later operator can order rows by (time, partition, offset).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["Batch", "Frame", "Watermark"]


@dataclass(frozen=True, slots=True)
class Watermark:
    """No row on time with event time below `time` (int64 microseconds) will follow."""

    time: int


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Rows with their event time and origin.

    rows: n rows; time: (n,) int64 microseconds; partition: (n,) int32; offset: (n,) int64;
    source_row: (n,) int64, the position in the frame the source gave, while only row-wise operators have passed.
    """

    rows: pa.RecordBatch
    time: npt.NDArray[np.int64]
    partition: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]
    source_row: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.time)

    def with_rows(self, rows: pa.RecordBatch) -> Batch:
        """The same rows with other columns."""
        return replace(self, rows=rows)

    def take(self, index: npt.NDArray[np.int64]) -> Batch:
        """The rows at these positions, in this order."""
        return Batch(
            self.rows.take(pa.array(index)),
            self.time[index],
            self.partition[index],
            self.offset[index],
            None if self.source_row is None else self.source_row[index],
        )

    def slice(self, start: int, stop: int) -> Batch:
        """Rows `start` to `stop` - 1, without a copy."""
        rows = slice(start, stop)
        return Batch(
            self.rows.slice(start, stop - start),
            self.time[rows],
            self.partition[rows],
            self.offset[rows],
            None if self.source_row is None else self.source_row[rows],
        )

    def keep(self, mask: npt.NDArray[np.bool_]) -> Batch:
        """The rows where `mask` (n,) is True, in order."""
        if mask.all():
            return self
        return self.take(np.flatnonzero(mask))

    @staticmethod
    def concat(batches: Sequence[Batch]) -> Batch:
        """One batch of all rows, in order; at least one batch of the same schema each."""
        if len(batches) == 1:
            return batches[0]
        return Batch(
            pa.concat_batches([b.rows for b in batches]),
            np.concatenate([b.time for b in batches]),
            np.concatenate([b.partition for b in batches]),
            np.concatenate([b.offset for b in batches]),
        )


Frame = Batch | Watermark
