"""What a sink promises the runtime: `Sink`.

A sink numbers its rows from 0 and stores the number with the rows in one atomic step, so after a crash it can tell
which of the rows promised by a manifest are out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import pyarrow as pa

__all__ = ["Numbers", "Sink"]

Numbers = Mapping[int, int]
"""By partition of the sink, the number of the last row that is out. A sink without partitions has partition 0."""


class Sink(Protocol):
    """Laws: rows become visible in the order of their numbers (within a partition, where the sink has partitions);
    ``publish(first, rows, published())``, called any number of times and broken off at any moment, leaves each row
    visible once.
    """

    @property
    def between_barriers(self) -> bool:
        """Whether rows may be published one small batch at a time, where exactly-once is not asked for."""
        ...

    @property
    def name(self) -> str:
        """The same for two sinks that write to one place."""
        ...

    def check(self, schema: pa.Schema) -> None:
        """PlanError if rows of `schema` can't go here."""
        ...

    def claim(self, job: str) -> None:
        """Before the first row. PlanError if a sink for one job is another's."""
        ...

    def spell(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows in the form they are kept and published in, one for each; SchemaError if a value has none."""
        ...

    def marks(self) -> Mapping[int, int]:
        """Where the sink stands now; `published` looks from there on."""
        ...

    def check_kept(self, first: int, marks: Mapping[int, int]) -> None:
        """CheckpointError if rows before number `first`, which were out at `marks`, have visibly gone."""
        ...

    def published(self, job: str, marks: Mapping[int, int] | None) -> Numbers:
        """The last rows of this job that came out since `marks`; None looks whether any row ever did."""
        ...

    def publish(self, job: str, first: int, rows: pa.Table, out: Numbers) -> None:
        """Make spelled rows number `first` and on visible, but for those that `out` says are."""
        ...
