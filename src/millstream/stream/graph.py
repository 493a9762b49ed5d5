"""The plan as a running graph: frames in at the sources, rows out at the outputs, no I/O.

Equal nodes are one operator, so a source that feeds several operators is read once and has one watermark. Frames are
handed on depth first in one thread, so between two calls nothing is in flight and a barrier needs no alignment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from millstream.stream.event_time import MIN_TIME
from millstream.stream.frame import Batch, Frame, Watermark
from millstream.stream.operators import Operator, Snapshot, operator_for
from millstream.stream.plan import Late, Node, Source, walk

__all__ = ["Graph"]

Emit = Callable[[int, pa.RecordBatch], None]


@dataclass(eq=False)
class _Vertex:
    """A node at work: its operator (sources and late rows have none), who takes its frames, and as which outputs."""

    operator: Operator | None
    consumers: list[tuple[_Vertex, int]] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)


class Graph:
    """Operators for `outputs`, wired. `emit(i, rows)` receives the rows of the i-th output, in order."""

    def __init__(self, outputs: Sequence[Node], emit: Emit) -> None:
        self._emit = emit
        self._used = np.zeros(0, np.bool_)
        self._vertices: dict[Node, _Vertex] = {}
        for node in walk(*outputs):
            plain = isinstance(node, Source | Late)
            self._vertices[node] = vertex = _Vertex(None if plain else operator_for(node))
            for port, before in enumerate(() if plain else node.inputs):
                self._vertices[before].consumers.append((vertex, port))
        for i, node in enumerate(outputs):
            self._vertices[node].outputs.append(i)
        working = [(node, v.operator) for node, v in self._vertices.items() if v.operator is not None]
        self._operators = {
            f"{i}-{type(node).__name__.lower()}": operator for i, (node, operator) in enumerate(working)
        }

    def push(self, source: Source, batch: Batch) -> int:
        """Take in rows on time; returns how many of them some operator or output used, not only filters."""
        self._used = np.zeros(len(batch), np.bool_)
        self._hand_on(self._vertices[source], replace(batch, source_row=np.arange(len(batch))))
        return int(self._used.sum())

    def push_late(self, source: Source, batch: Batch) -> None:
        """Take in late rows: they go to the late output of the source, if the plan has one."""
        late = self._vertices.get(Late(source))
        if late is not None:
            self._hand_on(late, replace(batch, source_row=None))

    def watermark(self, source: Source, time: int) -> None:
        """The watermark of a source has moved on to `time`."""
        self._hand_on(self._vertices[source], Watermark(time))

    def concluded(self, source: Source) -> int:
        """The event time below which a further row of `source` would come too late for an operator above it.

        MIN_TIME where no operator above it waits for the watermark.
        """
        return self._concluded_above(self._vertices[source])

    def _concluded_above(self, vertex: _Vertex) -> int:
        own = MIN_TIME if vertex.operator is None else vertex.operator.concluded
        return max([own, *(self._concluded_above(consumer) for consumer, _ in vertex.consumers)])

    def snapshot(self) -> dict[str, Snapshot]:
        """The state of every stateful operator, by its name."""
        states = {name: operator.snapshot() for name, operator in self._operators.items()}
        return {name: state for name, state in states.items() if state}

    def restore(self, states: dict[str, Snapshot]) -> None:
        """Take up what `snapshot` of a graph of an equal plan gave."""
        for name, state in states.items():
            self._operators[name].restore(state)

    def _hand_on(self, vertex: _Vertex, frame: Frame) -> None:
        if isinstance(frame, Batch):
            for output in vertex.outputs:
                self._mark_used(frame)
                self._emit(output, frame.rows)
        for consumer, port in vertex.consumers:
            for out in self._step(consumer.operator, port, frame):
                self._hand_on(consumer, out)

    def _step(self, operator: Operator | None, port: int, frame: Frame) -> Sequence[Frame]:
        if operator is None:
            return (frame,)
        if isinstance(frame, Watermark):
            return tuple(operator.watermark(port, frame))
        if not operator.row_wise:
            self._mark_used(frame)
            frame = replace(frame, source_row=None)
        return tuple(operator.batch(port, frame))

    def _mark_used(self, batch: Batch) -> None:
        if batch.source_row is not None:
            self._used[batch.source_row] = True
