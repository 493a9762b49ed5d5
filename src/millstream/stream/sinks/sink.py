"""What a sink promises the runtime: `Sink`.

A sink numbers its rows from 0 and stores the number with the rows in one atomic step, so after a crash it can tell
which of the rows promised by a manifest are out and publish the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import pyarrow as pa

__all__ = ["Sink"]


class Sink(Protocol):
    """Laws: rows become visible in the order of their numbers (within a partition, where the sink has partitions);
    `publish_rest` may be called any number of times, after a crash at any moment of `publish` or of itself, and leaves
    each row visible once.
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

    def check_fresh(self, job: str) -> None:
        """CheckpointError if rows are here that a job starting afresh would write twice."""
        ...

    def marks(self) -> Mapping[int, int]:
        """Where the sink stands; handed to `publish_rest` of the rows published next."""
        ...

    def publish(self, job: str, first: int, rows: pa.Table) -> None:
        """Make rows number `first` and on visible; none of them is yet."""
        ...

    def publish_rest(self, job: str, first: int, rows: pa.Table, marks: Mapping[int, int]) -> None:
        """Make those of the rows visible that are not yet."""
        ...
