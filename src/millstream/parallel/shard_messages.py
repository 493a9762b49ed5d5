"""What is said to a shard, and what it answers. `nbytes` is what a message would take on a wire, headers left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from millstream.parallel.shard import Sparse

__all__ = ["Clock", "Message", "Pull", "Push", "Pushed", "Reply", "Unchanged", "Values"]

Array = np.ndarray[Any, Any]


def _nbytes(arrays: Mapping[str, Array | Sparse]) -> int:
    return sum(array.nbytes for array in arrays.values())


@dataclass(frozen=True)
class Push:
    """A delta. `number` counts the pushes of a source within one clock, from 0: it tells a repeated push from a new
    one."""

    source: int
    clock: int
    number: int
    delta: Mapping[str, Array | Sparse]

    @property
    def nbytes(self) -> int:
        return _nbytes(self.delta)


@dataclass(frozen=True)
class Pull:
    """A wish to read, at the source's clock. keys: only these rows of these arrays; None for everything.

    have: the version the source holds already, which saves the answer if it is still the latest.
    """

    source: int
    clock: int
    keys: Mapping[str, Array] | None = None
    have: int = -1

    @property
    def nbytes(self) -> int:
        return _nbytes(self.keys or {})


@dataclass(frozen=True)
class Clock:
    """The source has pushed everything of round `clock`."""

    source: int
    clock: int
    nbytes: int = field(default=0, init=False)


Message = Push | Pull | Clock


@dataclass(frozen=True)
class Pushed:
    """The delta is in. fresh: False if it had been there before, and nothing changed."""

    source: int
    clock: int
    number: int
    fresh: bool


@dataclass(frozen=True)
class Values:
    """The answer to a pull: read-only arrays. slowest: every update of the rounds below it is in them."""

    source: int
    clock: int
    version: int
    slowest: int
    arrays: Mapping[str, Array | Sparse]

    @property
    def nbytes(self) -> int:
        return _nbytes(self.arrays)


@dataclass(frozen=True)
class Unchanged:
    """The answer to a pull by one who has the latest version already."""

    source: int
    clock: int
    version: int
    slowest: int


Reply = Pushed | Values | Unchanged
