"""Where the rows of a plan's source come from: `Binding`, and the ones for rows at hand.

The binding stands beside the plan and not in it, so a live topic and its replay can share a plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import pyarrow as pa

from millstream.data import Dataset
from millstream.errors import CheckpointError
from millstream.stream.plan import Source
from millstream.stream.sources.reader import Reader
from millstream.stream.sources.table import in_event_time_order, replay, whole_table

__all__ = ["Binding", "ReplayBinding", "TableBinding"]


class Binding(Protocol):
    """Opens readers. Two bindings are equal when they read the same rows."""

    @property
    def bounded(self) -> bool:
        """Whether the source ends."""
        ...

    @property
    def idle(self) -> timedelta | None:
        """After how long without a row a partition holds nothing up; None waits for ever, as replays do."""
        ...

    def open(
        self, source: Source, positions: Mapping[int, int] | None, ends: Mapping[int, int] | None
    ) -> Reader:
        """Start at `positions` (None: at the beginning) and stop at `ends`, where the source has none of its own."""
        ...


@dataclass(frozen=True, eq=False)
class TableBinding:
    """An Arrow table, in the order of its rows if the source has a delay, else in event-time order.

    given: what the user handed in, of which `table` may be a copy; bindings of one thing are equal.
    """

    table: pa.Table
    given: object = None
    bounded = True
    idle = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TableBinding) and other._origin is self._origin

    @property
    def _origin(self) -> object:
        return self.table if self.given is None else self.given

    def open(
        self, source: Source, positions: Mapping[int, int] | None, ends: Mapping[int, int] | None
    ) -> Reader:
        read = (ends or positions or {}).get(0, len(self.table))
        if source.delay is None and read != len(self.table):
            raise CheckpointError(
                f"source {source.name!r}: the table has {len(self.table)} rows, the checkpoint is of one with {read}, "
                "and rows in event-time order have no fixed place; give as_stream a delay= to take them in the order "
                "of the table, or start with another checkpoint directory and another output"
            )
        reached = (positions or {}).get(0, 0)
        if reached > len(self.table):
            raise CheckpointError(
                f"source {source.name!r}: the table has {len(self.table)} rows, and the checkpoint has read {reached}; "
                "give the table that it read, to which rows may have been added, or start with another checkpoint "
                "directory and another output"
            )
        table = self.table if source.delay is not None else in_event_time_order(self.table, source.event_time)
        return whole_table(table, positions)


@dataclass(frozen=True, eq=False)
class ReplayBinding:
    """A snapshot of a topic: its rows with the partition and offset they had."""

    dataset: Dataset
    bounded = True
    idle = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ReplayBinding) and other.dataset is self.dataset

    def open(
        self, source: Source, positions: Mapping[int, int] | None, ends: Mapping[int, int] | None
    ) -> Reader:
        return replay(self.dataset.to_table(), source.schema, positions)
