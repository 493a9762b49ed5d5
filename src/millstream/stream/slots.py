"""Keys as dense numbers, process-local and never persisted.

A key of several columns is numbered left to right: the first column's value gets a code, then each (number so far,
code of the next column) pair gets a number. Python touches each distinct value of a batch once and no row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millstream.errors import PlanError
from millstream.log.one_text_type import one_text_type

__all__ = ["KeySlots", "check_key", "distinct"]

Slots = npt.NDArray[np.int64]
NO_SLOT = -1


def check_key(schema: pa.Schema, column: str, where: str) -> pa.DataType:
    """The type of a key column, text in any layout being one; PlanError if it is missing or can't be a key."""
    if column not in schema.names:
        raise PlanError(f"{where}: key {column!r} is not a column; choose one of {', '.join(schema.names)}")
    kind = one_text_type(schema.field(column).type)
    t = pa.types
    tests = (
        t.is_integer,
        t.is_boolean,
        t.is_string,
        t.is_binary,
        t.is_timestamp,
        t.is_date,
    )
    if not any(test(kind) for test in tests):
        raise PlanError(
            f"{where}: key {column!r} is {kind}; expected an integer, string, binary, bool, date or timestamp "
            "(floats make no keys: NaN is not equal to itself); cast it with map_batches first"
        )
    return kind


class KeySlots:
    """A growing numbering of keys.

    nulls: whether a null is a key like any other (GROUP BY) or matches nothing (JOIN).

    >>> slots = KeySlots([pa.string(), pa.int64()])
    >>> slots.add([pa.array(["a", "b", "a"]), pa.array([1, 1, 1])])
    array([0, 1, 0])
    >>> slots.find([pa.array(["b", "b", None]), pa.array([1, 2, 1])])
    array([ 1, -1, -1])
    >>> slots.values(np.array([1]))[0].to_pylist()
    ['b']
    """

    def __init__(self, kinds: Sequence[pa.DataType], *, nulls: bool = False) -> None:
        self._kinds = tuple(kinds)
        self._nulls = nulls
        self._codes: list[dict[object, int]] = [{} for _ in kinds]
        self._pairs: list[dict[int, int]] = [{} for _ in self._kinds[1:]]

    def __len__(self) -> int:
        return len(self._pairs[-1] if self._pairs else self._codes[0])

    def add(self, columns: Sequence[pa.Array]) -> Slots:
        """The slot (n,) of each row's key; a new key gets the next number."""
        return self._encode(columns, add=True)

    def find(self, columns: Sequence[pa.Array]) -> Slots:
        """The slot (n,) of each row's key, -1 where the key was never added."""
        return self._encode(columns, add=False)

    def _encode(self, columns: Sequence[pa.Array], *, add: bool) -> Slots:
        slots = self._column_codes(0, columns[0], add=add)
        for level, column in enumerate(columns[1:], start=1):
            codes = self._column_codes(level, column, add=add)
            packed = np.where((slots < 0) | (codes < 0), NO_SLOT, (slots << 32) | codes)
            pairs, inverse = distinct(packed)
            known = self._pairs[level - 1]
            numbers = [
                NO_SLOT if p < 0 else known.setdefault(p, len(known)) if add else known.get(p, NO_SLOT)
                for p in pairs.tolist()
            ]
            slots = np.array(numbers, np.int64)[inverse]
        return slots

    def _column_codes(self, level: int, column: pa.Array, *, add: bool) -> Slots:
        encoded = pc.dictionary_encode(_stored(column), null_encoding="encode")
        known = self._codes[level]
        codes = [
            NO_SLOT
            if value is None and not self._nulls
            else known.setdefault(value, len(known))
            if add
            else known.get(value, NO_SLOT)
            for value in encoded.dictionary.to_pylist()
        ]
        coded: Slots = np.array(codes, np.int64)[encoded.indices.to_numpy(zero_copy_only=False)]
        return coded

    def values(self, slots: Slots) -> list[pa.Array]:
        """The key columns (n,) of these slots, in the types of the keys."""
        columns: list[pa.Array] = []
        for level in reversed(range(len(self._kinds))):
            codes = slots
            if level:
                pairs = np.fromiter(self._pairs[level - 1], np.int64, len(self._pairs[level - 1]))[slots]
                slots, codes = pairs >> 32, pairs & 0xFFFFFFFF
            kind = self._kinds[level]
            stored = pa.array(list(self._codes[level]), _stored_type(kind))
            columns.append(stored.take(pa.array(codes)).cast(kind))
        return columns[::-1]


def distinct(numbers: Slots) -> tuple[Slots, Slots]:
    """The distinct values of (n,) in order of appearance, and for each row which of them it is, (n,).

    By hashing: a third of the time of ``np.unique``, which sorts.
    """
    encoded = pa.array(numbers).dictionary_encode()
    return encoded.dictionary.to_numpy(), encoded.indices.to_numpy()


def _stored_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind) or pa.types.is_date64(kind):
        return pa.int64()
    return pa.int32() if pa.types.is_date32(kind) else one_text_type(kind)


def _stored(column: pa.Array) -> pa.Array:
    return column.cast(_stored_type(column.type))
