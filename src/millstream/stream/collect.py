"""A bounded plan run to its end in memory: what `Stream.collect` does."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import pyarrow as pa

from millstream.errors import PlanError
from millstream.stream.feed import feed
from millstream.stream.graph import Graph
from millstream.stream.intake import Intake
from millstream.stream.plan import Node, Source, sources
from millstream.stream.sources.binding import Binding

__all__ = ["collect"]

MAX_ROWS = 65_536
WAIT = timedelta(milliseconds=20)


def collect(plan: Node, bindings: Mapping[Source, Binding]) -> pa.Table:
    """All rows of `plan`; every source must end."""
    for source in sources(plan):
        if not bindings[source].bounded:
            raise PlanError(
                f"collect: source {source.name!r} has no end; pass bounded=True to as_stream to stop at its present "
                "end, or use ms.run"
            )
    batches: list[pa.RecordBatch] = []
    graph = Graph([plan], lambda _, rows: batches.append(rows))
    intakes = [Intake(source, bindings[source].open(source, None, None)) for source in sources(plan)]
    try:
        while not all(intake.finished for intake in intakes):
            feed(graph, intakes, MAX_ROWS, WAIT)
        feed(graph, intakes, MAX_ROWS, WAIT)
    finally:
        for intake in intakes:
            intake.reader.close()
    return pa.Table.from_batches(batches, plan.schema)
