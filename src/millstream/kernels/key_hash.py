"""A hash of keys that is the same in every process and on every machine.

Strings: FNV-1a over the bytes (Fowler, Noll, Vo; IETF draft-eastlake-fnv), 64 bits. Both kinds are finished by the
mixer of splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), so that low
bits may be taken for a bucket.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["hash_bytes", "hash_integers"]

Hashes = npt.NDArray[np.uint64]

_OFFSET, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_MIX1, _MIX2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@numba.njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _mixed(x: np.uint64) -> np.uint64:
    x = (x ^ (x >> np.uint64(30))) * _MIX1
    x = (x ^ (x >> np.uint64(27))) * _MIX2
    return x ^ (x >> np.uint64(31))


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def hash_bytes(offsets: npt.NDArray[np.int64], data: npt.NDArray[np.uint8], before: Hashes) -> Hashes:
    """(n,) hashes of the byte strings ``data[offsets[i]:offsets[i + 1]]``, each going on from ``before[i]``."""
    n = before.shape[0]
    found = np.empty(n, np.uint64)
    for i in range(n):
        x = _OFFSET ^ before[i]
        for j in range(offsets[i], offsets[i + 1]):
            x = (x ^ np.uint64(data[j])) * _PRIME
        found[i] = _mixed(x)
    return found


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def hash_integers(values: npt.NDArray[Any], before: Hashes) -> Hashes:
    """(n,) hashes of (n,) int64 values, each going on from ``before[i]``."""
    found = np.empty(values.shape[0], np.uint64)
    for i in range(values.shape[0]):
        found[i] = _mixed(_mixed(np.uint64(values[i]) + _OFFSET) ^ before[i])
    return found
