"""The plan as a running graph: frames in at the sources, rows out at the outputs, no I/O.

Equal nodes are one operator, so a source that feeds several operators is read once and has one watermark. Frames are
handed on depth first in one thread, so between two calls nothing is in flight and a barrier needs no alignment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from millstream.stream.frame import Batch, Frame, Watermark
from millstream.stream.operators import Operator, Snapshot, operator_for
from millstream.stream.plan import Late, Node, Source, walk

__all__ = ["Graph"]

Emit = Callable[[int, pa.RecordBatch], None]


class Graph:
    """Operators for `outputs`, wired. `emit(i, rows)` receives the rows of the i-th output, in order."""

    def __init__(self, outputs: Sequence[Node], emit: Emit) -> None:
        nodes = list(walk(*outputs))
        self._emit = emit
        self._outputs = [(node, i) for i, node in enumerate(outputs)]
        self._operators: dict[Node, Operator] = {
            node: operator_for(node) for node in nodes if not isinstance(node, Source | Late)
        }
        self._names = {node: f"{i}-{type(node).__name__.lower()}" for i, node in enumerate(self._operators)}
        self._consumers: dict[Node, list[tuple[Node, int]]] = {node: [] for node in nodes}
        for node in nodes:
            for port, before in enumerate(node.inputs):
                self._consumers[before].append((node, port))
        self._used = np.zeros(0, np.bool_)

    def push(self, source: Source, batch: Batch) -> int:
        """Take in rows on time; returns how many of them some operator or output used, not only filters."""
        self._used = np.zeros(len(batch), np.bool_)
        self._hand_on(source, replace(batch, source_row=np.arange(len(batch))))
        return int(self._used.sum())

    def push_late(self, source: Source, batch: Batch) -> None:
        """Take in late rows: they go to the late output of the source, if the plan has one."""
        late = Late(source)
        if late in self._consumers:
            self._hand_on(late, batch)

    def watermark(self, source: Source, time: int) -> None:
        """The watermark of a source has moved on to `time`."""
        self._hand_on(source, Watermark(time))

    def snapshot(self) -> dict[str, Snapshot]:
        """The state of every stateful operator, by its name."""
        states = {self._names[node]: operator.snapshot() for node, operator in self._operators.items()}
        return {name: state for name, state in states.items() if state}

    def restore(self, states: dict[str, Snapshot]) -> None:
        """Take up what `snapshot` of a graph of an equal plan gave."""
        for node, operator in self._operators.items():
            if self._names[node] in states:
                operator.restore(states[self._names[node]])

    def _hand_on(self, node: Node, frame: Frame) -> None:
        for output, i in self._outputs:
            if output == node and isinstance(frame, Batch):
                self._mark_used(frame)
                self._emit(i, frame.rows)
        for consumer, port in self._consumers[node]:
            if isinstance(consumer, Late):
                continue
            for out in self._step(self._operators[consumer], port, frame):
                self._hand_on(consumer, out)

    def _step(self, operator: Operator, port: int, frame: Frame) -> Sequence[Frame]:
        if isinstance(frame, Watermark):
            return tuple(operator.watermark(port, frame))
        if not operator.row_wise:
            self._mark_used(frame)
            frame = replace(frame, source_row=None)
        return tuple(operator.batch(port, frame))

    def _mark_used(self, batch: Batch) -> None:
        if batch.source_row is not None:
            self._used[batch.source_row] = True
