"""A seeded mini-batch: some rows of a view, drawn anew each step.

Of N rows n are drawn, each with the same probability n / N. How many fall into a part is systematic sampling over the
row numbers (Madow and Madow, "On the theory of systematic sampling", Ann. Math. Statist. 1944): with one offset v a
step, drawn from 0 to N - 1, the rows below row r are worth ``floor((n * r + v) / N)``, and a part gets the difference
of its two ends. Within a part the rows are a simple random sample without replacement. So n is met exactly, a part
has its share rounded down or up, and a worker needs to know nothing of the other parts: which rows is a function of
the seed, the step and the part alone, the same on every engine and width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from millstream.data import Part, ReadColumns
from millstream.errors import InputError

__all__ = ["Minibatch"]

# Philox counts blocks of random numbers in 256 bits; `ctx.rng` begins at 0, these two far from it and each other.
_ROWS, _OFFSET = 1, 2


@dataclass(frozen=True)
class Minibatch:
    """`count` of `n_rows` rows, in one step of a fit.

    >>> from millstream.data import from_numpy
    >>> dataset = from_numpy(np.arange(100.0)[:, None], part_rows=30)
    >>> batch = Minibatch.of(0.1, n_rows=100, seed=7, step=0)
    >>> [batch.within(part).n_rows for part in dataset.parts]
    [3, 3, 3, 1]
    """

    count: int
    n_rows: int
    seed: int
    step: int

    @classmethod
    def of(cls, rows: float, n_rows: int, seed: int, step: int) -> Minibatch:
        """rows: an int is a number of rows, a float a fraction, rounded to whole rows and at least one."""
        if isinstance(rows, int | np.integer) and not isinstance(rows, bool):
            if not 1 <= rows <= n_rows:
                raise InputError(
                    f"Step(rows={rows}): the view has {n_rows} rows; ask for 1 to {n_rows} of them"
                )
            return cls(int(rows), n_rows, seed, step)
        if not isinstance(rows, float) or not 0 < rows <= 1:
            raise InputError(
                f"Step(rows={rows!r}); expected a number of rows, or a fraction above 0.0 and up to 1.0"
            )
        return cls(max(1, round(rows * n_rows)), n_rows, seed, step)

    def within(self, part: Part) -> Part:
        """The part with only its rows of the mini-batch, in order.

        ``first_row`` stays that of the part; the rows after it are not consecutive.
        """
        chosen = self.rows_of(part)
        return replace(part, n_rows=len(chosen), read=_Taken(part.read, chosen), resident=False)

    def rows_of(self, part: Part) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Row numbers within the part, ascending."""
        offset = int(self._rng(_OFFSET, 0).integers(self.n_rows))
        below = [
            (self.count * row + offset) // self.n_rows
            for row in (part.first_row, part.first_row + part.n_rows)
        ]
        rng = self._rng(_ROWS, part.index)
        return np.sort(rng.choice(part.n_rows, below[1] - below[0], replace=False, shuffle=False))

    def _rng(self, purpose: int, index: int) -> np.random.Generator:
        key = np.array([self.seed % 2**64, (self.step << 32) + index], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(counter=purpose << 192, key=key))


@dataclass(frozen=True)
class _Taken:
    """Some rows of a part."""

    read: ReadColumns
    rows: np.ndarray[Any, np.dtype[np.int64]]

    def __call__(self, columns: Sequence[str], /) -> Iterator[pa.RecordBatch]:
        start = 0
        for batch in self.read(columns):
            stop = start + batch.num_rows
            first, last = np.searchsorted(self.rows, [start, stop])
            if last > first:
                yield batch.take(pa.array(self.rows[first:last] - start))
            start = stop
