"""Pieces of the parameters.

Parameters are named arrays whose first axis is the key. A cut gives every shard one range of keys of every array::

    shard        0            1            2
    w (10, 4)    w[0:3]       w[3:6]       w[6:10]
    b ()         b            -            -          an array without axes lies in shard 0

How many shards there are follows from the parameters and never from the workers.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from millstream.errors import InputError, TrainingError
from millstream.kernels.sparse_update import bucketed, first_outside, grouped, owners, ranges_of

__all__ = ["SHARD_BYTES", "Shard", "Sharding", "Sparse", "named_arrays"]

Array = np.ndarray[Any, Any]

# A shard that fits the second-level cache of one core.
SHARD_BYTES = 1 << 20


@dataclass(frozen=True)
class Sparse:
    """Additions to some rows of an array, in the order given; a key may come twice.

    keys: (n,) int64. values: (n, ...), one row of the array each.
    """

    keys: Array
    values: Array

    def __post_init__(self) -> None:
        keys, values = np.ascontiguousarray(self.keys), np.asarray(self.values)
        if keys.ndim != 1 or keys.dtype.kind not in "iu" or values.ndim < 1 or len(values) != len(keys):
            raise InputError(
                f"Sparse(keys of shape {keys.shape} {keys.dtype}, values of shape {values.shape}); expected integer "
                "keys of shape (n,) and values of shape (n, ...)"
            )
        object.__setattr__(self, "keys", keys.astype(np.int64, copy=False))
        object.__setattr__(self, "values", values)

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def dense(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """The same additions as a whole array, mostly zeros."""
        whole = np.zeros(shape, dtype)
        np.add.at(whole, self.keys, self.values)
        return whole


class Shard(Mapping[str, Array]):
    """One range of keys of every array: a mapping of names to arrays.

    index: which shard. starts: the key of each array's first row.

    >>> shard = Sharding.of({"w": np.arange(5)}, n_shards=2).cut({"w": np.arange(5)})[1]
    >>> shard["w"], shard.starts["w"], shard.index
    (array([2, 3, 4]), 2, 1)
    """

    def __init__(self, index: int, arrays: Mapping[str, Array], starts: Mapping[str, int]) -> None:
        self.index, self.starts = index, dict(starts)
        self._arrays = dict(arrays)

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self._arrays.values())

    def with_arrays(self, arrays: Mapping[str, Array]) -> Shard:
        """The same range of keys, other values."""
        return Shard(self.index, arrays, self.starts)

    def __repr__(self) -> str:
        ranges = ", ".join(
            f"{name}[{self.starts[name]}:{self.starts[name] + len(array)}]" if array.ndim else name
            for name, array in self._arrays.items()
        )
        return f"Shard({self.index}: {ranges})"


class Sharding:
    """The ranges of keys: `cut` makes shards of parameters, `join` parameters of shards, `split` cuts a delta.

    bounds: for each array with axes, n_shards + 1 ascending keys. hashed: names of parameters under sparse keys, whose
    shard is a hash of the key.
    """

    def __init__(
        self, n_shards: int, bounds: Mapping[str, Array | None], hashed: Collection[str] = ()
    ) -> None:
        self.n_shards, self.bounds, self.hashed = n_shards, dict(bounds), frozenset(hashed)

    @classmethod
    def of(
        cls, params: Mapping[str, Any], n_shards: int | None = None, hashed: Collection[str] = ()
    ) -> Sharding:
        """Even ranges; without `n_shards`, as many as it takes for `SHARD_BYTES` each."""
        arrays = {name: np.asarray(value) for name, value in params.items()}
        if n_shards is None:
            n_shards = max(1, math.ceil(sum(array.nbytes for array in arrays.values()) / SHARD_BYTES))
        if n_shards < 1:
            raise InputError(f"n_shards={n_shards}; there is at least one shard")
        bounds = {
            name: np.arange(n_shards + 1) * len(array) // n_shards if array.ndim else None
            for name, array in arrays.items()
        }
        return cls(n_shards, bounds, hashed)

    def cut(self, params: Mapping[str, Array]) -> list[Shard]:
        """Views of the arrays, by shard."""
        return [self._shard(index, params) for index in range(self.n_shards)]

    def _shard(self, index: int, params: Mapping[str, Array]) -> Shard:
        arrays, starts = {}, {}
        for name, bounds in self.bounds.items():
            if bounds is not None:
                arrays[name] = params[name][bounds[index] : bounds[index + 1]]
                starts[name] = int(bounds[index])
            elif index == 0:
                arrays[name], starts[name] = params[name], 0
        return Shard(index, arrays, starts)

    def join(self, shards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The whole arrays; of one shard its own, without a copy. Sparse keys come out ascending."""
        if len(shards) == 1:
            return dict(shards[0])
        joined = {
            name: shards[0][name] if bounds is None else np.concatenate([shard[name] for shard in shards])
            for name, bounds in self.bounds.items()
        }
        for name in self.hashed:
            keys = np.concatenate([shard[name].keys for shard in shards])
            order = np.argsort(keys)
            joined[name] = Sparse(
                keys[order], np.concatenate([shard[name].values for shard in shards])[order]
            )
        return joined

    def split(self, delta: Mapping[str, Any]) -> list[dict[str, Array | Sparse]]:
        """A delta by shard, keys of a range counted from its first; a shard it doesn't touch gets nothing.

        Raises `TrainingError`, before anything is split, for a name that is no parameter or a key outside it.
        """
        pieces: list[dict[str, Array | Sparse]] = [{} for _ in range(self.n_shards)]
        for name, change in delta.items():
            if isinstance(change, Sparse):
                for index, piece in self._sparse(name, change):
                    pieces[index][name] = piece
                continue
            bounds, array = self._bounds(name), np.asarray(change)
            if bounds is None:
                pieces[0][name] = array
            elif not array.ndim or len(array) != bounds[-1]:
                raise TrainingError(
                    f"a delta of {name!r} has shape {array.shape}; expected {bounds[-1]} rows, or Sparse"
                )
            else:
                for index in range(self.n_shards):
                    pieces[index][name] = array[bounds[index] : bounds[index + 1]]
        return pieces

    def _sparse(self, name: str, change: Sparse) -> Iterator[tuple[int, Sparse]]:
        owner = self._owner(name, change.keys)
        if owner is None:
            yield 0, change
            return
        values = np.ascontiguousarray(change.values).reshape(len(change.keys), -1)
        keys, values, starts = bucketed(owner, self.n_shards, change.keys, values)
        for index in np.flatnonzero(np.diff(starts)).tolist():
            mine = slice(starts[index], starts[index + 1])
            shape = (-1, *change.values.shape[1:])
            yield index, Sparse(keys[mine] - self.start(name, index), values[mine].reshape(shape))

    def route(self, name: str, keys: Array) -> list[Array | slice]:
        """For each shard the positions of its keys among `keys`, in order; of a single shard, all.

        Raises `TrainingError` for a key outside the parameter.
        """
        owner = self._owner(name, keys)
        if owner is None:
            return [slice(None)]
        order, starts = grouped(owner, self.n_shards)
        return [order[starts[index] : starts[index + 1]] for index in range(self.n_shards)]

    def _owner(self, name: str, keys: Array) -> Array | None:
        """The shard of each key; None while there is but one."""
        if name in self.hashed:
            return owners(keys, self.n_shards) if self.n_shards > 1 else None
        bounds = self._bounds(name)
        if bounds is None:
            raise TrainingError(f"{name!r} has no axes, and so no keys")
        outside = first_outside(keys, 0, bounds[-1])
        if outside >= 0:
            raise TrainingError(f"key {keys[outside]} of {name!r}; its keys are 0 to {bounds[-1] - 1}")
        return ranges_of(keys, bounds) if self.n_shards > 1 else None

    def start(self, name: str, index: int) -> int:
        """The key of the first row of a shard's range; 0 under sparse keys, which are never renumbered."""
        bounds = self.bounds.get(name)
        return 0 if bounds is None else int(bounds[index])

    def _bounds(self, name: str) -> Array | None:
        if name not in self.bounds:
            known = sorted({*self.bounds, *self.hashed})
            hint = "; it takes a Sparse" if name in self.hashed else ""
            raise TrainingError(f"a delta of {name!r}; the parameters are {known}{hint}")
        return self.bounds[name]


def named_arrays(params: object) -> dict[str, Array]:
    """Parameters as a parameter server or a cut can take them."""
    if not isinstance(params, Mapping):
        raise InputError(f"parameters of type {type(params).__name__}; expected a mapping of names to arrays")
    arrays = {name: np.asarray(value) for name, value in params.items()}
    for name, array in arrays.items():
        if array.dtype.kind not in "fiu":
            raise InputError(f"parameter {name!r} is of {array.dtype}; expected an array of numbers")
    return arrays
