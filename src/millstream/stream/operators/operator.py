"""The operator: a step of a plan at work. Frames in, frames out, and no I/O.

Laws, checked for every operator in ``tests/laws``:

- what an operator gives over a whole run does not depend on how its input is cut into batches;
- ``snapshot``, then ``restore`` in a fresh operator, then the rest of the input gives what an undisturbed run gives;
- after ``Watermark(w)`` has left it, no row with event time below w leaves it.

The runtime calls `batch` and `watermark` from one thread and keeps no frame that an operator returned.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import ClassVar

import pyarrow as pa

from millstream.errors import CheckpointError
from millstream.stream.event_time import MIN_TIME
from millstream.stream.frame import Batch, Frame, Watermark

__all__ = ["Operator", "Snapshot"]

Snapshot = Mapping[str, pa.Table]
"""State by name, as tables with key values in them (never slots)."""


class Operator(ABC):
    """One node's work. A stateless operator leaves `snapshot` and `restore` as they are."""

    row_wise: ClassVar[bool] = False
    """True if rows pass one by one: each is given on at once or dropped."""
    concluded: int = MIN_TIME
    """No row with event time below this can be taken in any more: what it would have changed has left. While the
    watermark is finite that is the watermark; the end of the sources concludes only what was there to conclude."""

    @abstractmethod
    def batch(self, port: int, batch: Batch) -> Iterable[Frame]:
        """Rows from input `port` (0 is the left)."""

    def watermark(self, port: int, watermark: Watermark) -> Iterable[Frame]:
        """The watermark of input `port` has moved on."""
        return (watermark,)

    def snapshot(self) -> Snapshot:
        """The state at a barrier. Rows taken in later don't change it."""
        return {}

    def restore(self, snapshot: Snapshot) -> None:
        """Take up a snapshot; called on a fresh operator before the first frame."""
        if snapshot:
            raise CheckpointError(
                f"{type(self).__name__} holds no state, the checkpoint has {', '.join(snapshot)}"
            )
