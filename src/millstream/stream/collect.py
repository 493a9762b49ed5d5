"""A bounded plan run to its end in memory: what `Stream.collect` does."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import pyarrow as pa

from millstream.errors import PlanError
from millstream.stream.graph import Graph
from millstream.stream.intake import Intake
from millstream.stream.plan import Node, Source, sources
from millstream.stream.sources.binding import Binding

__all__ = ["collect", "feed"]

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


def feed(graph: Graph, intakes: list[Intake], max_rows: int, wait: timedelta) -> int:
    """One round of a job: take in what has come, the source most behind first; returns the rows taken in.

    A source that fills its share ends the round: it may be behind still, and reading the others on would only pile up
    rows that wait for it. The last source asked waits for rows if none have come.
    """
    taken = 0
    waiting = sorted((i for i in intakes if not i.finished), key=lambda i: i.clock.watermark())
    for turn, intake in enumerate(waiting, start=1):
        last = turn == len(waiting)
        rows = intake.poll(graph, max_rows, wait if last and not taken else timedelta(0))
        taken += rows
        if rows >= max_rows:
            break
    for intake in intakes:
        intake.tell_watermark(graph)
    return taken
