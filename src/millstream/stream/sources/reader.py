"""What a source promises the runtime: `Reader` and `Chunk`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["Chunk", "Reader"]


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Consecutive rows of one partition. offsets: (n,) int64 ascending; rows: n rows of the source's schema."""

    partition: int
    offsets: npt.NDArray[np.int64]
    rows: pa.RecordBatch


class Reader(Protocol):
    """An opened source.

    Laws: the rows of a partition come once each, in offset order, from the positions it was opened at; opening again at
    the positions reached gives the rest; `poll` returns within its timeout, with no rows if none have come.
    """

    @property
    def origin(self) -> str:
        """What is read, in an error's words."""
        ...

    @property
    def identity(self) -> str:
        """What no other source has: a name and an id. Empty where nothing tells rows from other rows."""
        ...

    @property
    def partitions(self) -> Sequence[int]: ...

    @property
    def ends(self) -> Mapping[int, int] | None:
        """The offset each partition ends before; None if the source has no end."""
        ...

    @property
    def finished(self) -> set[int]:
        """The partitions whose last row has been given."""
        ...

    @property
    def positions(self) -> Mapping[int, int]:
        """For each partition the offset of the next row to give."""
        ...

    def poll(self, limit: int, timeout: timedelta, order: Sequence[int]) -> list[Chunk]:
        """At most about `limit` rows. `order` is the partitions by watermark, the one most behind first."""
        ...

    def caught_up(self) -> set[int]:
        """The partitions of which nothing waits to be read now."""
        ...

    def close(self) -> None: ...
