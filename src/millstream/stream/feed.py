"""One round of a job: every source asked for what has come, the one most behind in event time first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from millstream.stream.graph import Graph
from millstream.stream.intake import Intake

__all__ = ["feed"]


def feed(graph: Graph, intakes: Sequence[Intake], max_rows: int, wait: timedelta) -> int:
    """Take in what has come, then tell the watermarks; returns how many rows came.

    A source that fills its share ends the round: it may be behind still, and reading the others on would only pile up
    rows that wait for it. If nothing has come, the last source asked waits for rows, at most `wait`.
    """
    taken = 0
    waiting = sorted((i for i in intakes if not i.finished), key=lambda i: i.times.reached)
    for turn, intake in enumerate(waiting, start=1):
        last = turn == len(waiting)
        rows = intake.poll(graph, max_rows, wait if last and not taken else timedelta(0))
        taken += rows
        if rows >= max_rows:
            break
    for intake in intakes:
        intake.tell_watermark(graph)
    return taken
