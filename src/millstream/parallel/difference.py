"""Where two nested values differ, and by how much.

A value is arrays, numbers and strings within mappings, sequences and dataclasses. The answer names the first leaf that
differs the way Python would: ``state['w']``, ``state['moments']['mean']``, ``state.centers[2]``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Difference", "first_difference", "leaves"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Difference:
    """field: the leaf. at: the index within it of the largest difference, or None. by: its size, None if there is none
    to be had, as between shapes. told: the two values, or what else tells them apart."""

    field: str
    at: tuple[int, ...] | None
    by: float | None
    told: str

    def __str__(self) -> str:
        at = f" at {', '.join(map(str, self.at))}" if self.at else ""
        return (
            f"{self.field} differs{at}" + ("" if self.by is None else f" by {self.by:.3g}") + f": {self.told}"
        )


def first_difference(
    expected: Any, got: Any, name: str, *, exact: bool = True, rtol: float | None = None
) -> Difference | None:
    """The first leaf of `got` that is not as in `expected`, or None.

    exact: by bytes. Otherwise floats may differ by `rtol` times the largest finite number of their array; left out,
    that is the square root of the machine epsilon of the array's dtype: 1.5e-8 for float64, 3.5e-4 for float32.

    >>> before, after = {"w": np.array([1.0, 2.0])}, {"w": np.array([1.0, 2.5])}
    >>> print(first_difference(before, after, "state"))
    state['w'] differs at 1 by 0.5: expected 2.0, got 2.5
    """
    left, right = dict(leaves(expected, name)), dict(leaves(got, name))
    if left.keys() != right.keys():
        only = sorted(left.keys() ^ right.keys())[0]
        return Difference(only, None, None, f"only {'the first' if only in left else 'the second'} has it")
    differences = (_leaf(field, left[field], right[field], exact, rtol) for field in left)
    return next((difference for difference in differences if difference is not None), None)


def leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every leaf with its name; the fields of a structured array are leaves."""
    if isinstance(value, Mapping):
        for key in value:
            yield from leaves(value[key], f"{name}[{key!r}]")
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from leaves(getattr(value, field.name), f"{name}.{field.name}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from leaves(item, f"{name}[{index}]")
    elif isinstance(value, np.ndarray) and value.dtype.kind == "O":
        yield from leaves(value.tolist(), name)
    elif isinstance(value, np.ndarray) and value.dtype.names:
        for column in value.dtype.names:
            yield from leaves(value[column], f"{name}[{column!r}]")
    else:
        yield name, value


def _leaf(field: str, expected: Any, got: Any, exact: bool, rtol: float | None) -> Difference | None:
    if not _is_array(expected) or not _is_array(got):
        same = type(expected) is type(got) and (expected is got or repr(expected) == repr(got))
        return None if same else Difference(field, None, None, f"expected {expected!r}, got {got!r}")
    left, right = np.asarray(expected), np.asarray(got)
    if (left.shape, left.dtype) != (right.shape, right.dtype):
        told = f"expected {left.dtype} of shape {left.shape}, got {right.dtype} of shape {right.shape}"
        return Difference(field, None, None, told)
    if exact or left.dtype.kind not in "fc":
        wrong = _bytes(left) != _bytes(right)
    else:
        wrong = ~_close(left, right, rtol)
    return _largest(field, left, right, wrong) if wrong.any() else None


def _is_array(value: Any) -> bool:
    number = isinstance(value, np.ndarray | np.generic | bool | int | float | complex)
    return number and np.asarray(value).dtype.kind != "O"


def _bytes(array: Array) -> Array:
    """Each element as one opaque value, so that NaN equals NaN and 0.0 is not -0.0."""
    return np.ascontiguousarray(array).view(f"V{array.dtype.itemsize}").reshape(array.shape)


def _close(left: Array, right: Array, rtol: float | None) -> Array:
    finite = np.isfinite(left)
    rtol = float(np.sqrt(np.finfo(left.dtype).eps)) if rtol is None else rtol
    bound = rtol * np.max(np.abs(left), where=finite, initial=0.0)
    with np.errstate(invalid="ignore", over="ignore"):
        near: Array = np.abs(left - right) <= bound
    return np.asarray(near | (left == right) | (np.isnan(left) & np.isnan(right)))


def _largest(field: str, left: Array, right: Array, wrong: Array) -> Difference:
    if left.dtype.kind in "fciub":
        with np.errstate(invalid="ignore", over="ignore"):
            by = np.abs(np.subtract(left, right, dtype=np.result_type(left, "f8")))
        by = np.where(wrong, np.where(np.isnan(by), np.inf, by), -1.0)
        at = np.unravel_index(int(by.argmax()), by.shape)
        size: float | None = float(by[at])
    else:
        at, size = np.unravel_index(int(wrong.argmax()), wrong.shape), None
    place = tuple(int(index) for index in at)
    return Difference(field, place, size, f"expected {left[at]}, got {right[at]}")
