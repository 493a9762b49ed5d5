"""Do two sets of predictions agree, and by how much do they differ?

Promise 3 in numbers. Numbers are compared in the norm of their column: the difference divided by the largest
magnitude of the reference column, because a dense sum of another batch size or another engine carries an
error of that scale. A label that differs is a flip, unless the reference itself was undecided: its two
largest probabilities lie within `TIE_BAND` of each other; such rows are counted as ties.

Bounds: relative difference at most `RELATIVE_BOUND`, no flips.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millstream.errors import InputError, ParityError
from millstream.models.outputs import flat

__all__ = ["RELATIVE_BOUND", "TIE_BAND", "Parity", "compare"]

RELATIVE_BOUND = 1e-6
TIE_BAND = 1e-6


@dataclass(frozen=True)
class Parity:
    """The outcome of a comparison over `rows` rows."""

    rows: int
    largest_absolute: float
    largest_relative: float
    label_flips: int
    ties: int

    @property
    def holds(self) -> bool:
        """Whether the bounds hold."""
        return self.label_flips == 0 and self.largest_relative <= RELATIVE_BOUND

    def require(self, what: str) -> Parity:
        """Itself if the bounds hold; otherwise ParityError, which says what differed by how much."""
        if not self.holds:
            raise ParityError(
                f"{what} differs from the golden rows: largest difference {self.largest_absolute:.3g} "
                f"absolute, {self.largest_relative:.3g} relative (bound {RELATIVE_BOUND:g}), "
                f"{self.label_flips} labels of {self.rows} rows changed (bound 0); the release is refused. "
                "Compare the software on this target with the software in the lineage of the model"
            )
        return self


def compare(reference: pa.RecordBatch | pa.Table, other: pa.RecordBatch | pa.Table) -> Parity:
    """Compare predictions row by row; both are brought to the flat form first.

    `other` needs every column of `reference` and may have more. Raises InputError if rows or columns don't
    match.

    >>> a = pa.table({"label": [1, 0], "probability": [0.75, 0.5]})
    >>> b = pa.table({"label": [1, 1], "probability": [0.75, 0.5]})
    >>> compare(a, b)        # the second row of the reference is a tie
    Parity(rows=2, largest_absolute=0.0, largest_relative=0.0, label_flips=0, ties=1)
    """
    left, right = flat(reference), flat(other)
    if left.num_rows != right.num_rows:
        raise InputError(
            f"can't compare {left.num_rows} with {right.num_rows} rows; pass the same rows, in one order"
        )
    missing = [name for name in left.schema.names if name not in right.schema.names]
    if missing:
        raise InputError(f"the second predictions lack {missing}; they have {right.schema.names}")
    absolute = relative = 0.0
    flipped = np.zeros(left.num_rows, dtype=bool)
    for name in left.schema.names:
        a, b = left.column(name), right.column(name)
        if pa.types.is_floating(a.type):
            difference, scale = _difference(_doubles(a), _doubles(b))
            absolute = max(absolute, difference)
            relative = max(relative, difference / scale if difference else 0.0)
        else:
            flipped |= _unequal(a, b)
    tied = flipped & _undecided(left)
    return Parity(
        rows=left.num_rows,
        largest_absolute=absolute,
        largest_relative=relative,
        label_flips=int(np.count_nonzero(flipped & ~tied)),
        ties=int(np.count_nonzero(tied)),
    )


def _doubles(array: pa.Array) -> np.ndarray:
    return np.asarray(pc.fill_null(pc.cast(array, pa.float64()), float("nan")).to_numpy(zero_copy_only=False))


def _difference(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """The largest difference and the scale it is measured by; equal infinities and two NaNs don't differ."""
    if not len(a):
        return 0.0, 1.0
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.abs(a - b))
    difference[np.isnan(difference)] = np.inf
    finite = np.abs(a[np.isfinite(a)])
    scale = float(finite.max()) if len(finite) else 1.0
    return float(difference.max()), scale or np.finfo(np.float64).tiny


def _unequal(a: pa.Array, b: pa.Array) -> np.ndarray:
    if a.type != b.type:
        try:
            b = b.cast(a.type)
        except pa.ArrowInvalid:
            return np.ones(len(a), dtype=bool)
    equal = pc.fill_null(pc.equal(a, b), False)
    both_null = pc.and_(pc.is_null(a), pc.is_null(b))
    return ~np.asarray(pc.or_(equal, both_null).to_numpy(zero_copy_only=False), dtype=bool)


def _undecided(batch: pa.RecordBatch) -> np.ndarray:
    """Rows whose two largest probabilities lie within the tie band."""
    names = [n for n in batch.schema.names if n == "probability" or n.startswith("probability_")]
    if not names:
        return np.zeros(batch.num_rows, dtype=bool)
    columns = [_doubles(batch.column(n)) for n in names]
    if names == ["probability"]:
        columns.append(1.0 - columns[0])
    top = np.sort(np.stack(columns, axis=1), axis=1)[:, -2:]
    return np.asarray(top[:, 1] - top[:, 0] <= TIE_BAND)
