"""A job at work: rounds of reading, barriers, recovery. `run` makes one and drives it to its end.

Exactly once is write-ahead. At a barrier the operators' state, the sources' positions and the rows that came out since
the barrier before are committed by one manifest; then the rows are published; then the job goes on. A crash before the
manifest leaves the older checkpoint, whose rows come out again; a crash after it leaves rows to publish, and recovery
asks each sink which of them are out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from enum import StrEnum

import pyarrow as pa

from millstream.clock import Clock
from millstream.errors import CheckpointError
from millstream.stream.checkpoint import Checkpoints, Manifest, Restored, SinkState, SourceState
from millstream.stream.event_time import MAX_TIME
from millstream.stream.feed import feed
from millstream.stream.functions import changed, digest_of_functions
from millstream.stream.graph import Graph
from millstream.stream.intake import Intake
from millstream.stream.plan import Node, Predict, Source, sources, walk
from millstream.stream.report import SourceCounts
from millstream.stream.sinks.sink import Numbers, Sink
from millstream.stream.sources.binding import Binding

__all__ = ["Job", "Moment", "Monitor"]


class Moment(StrEnum):
    """Where a job tells its monitor that it stands."""

    RESTORED = "restored"
    ROWS = "rows"
    SNAPSHOT = "snapshot"
    MANIFEST_COMMITTED = "manifest-committed"
    SINK_PUBLISHED = "sink-published"
    PUBLISHED = "published"


Monitor = Callable[[Moment, int], None]
"""Called with the moment and the number of the checkpoint it belongs to."""


class Job:
    """plans and sinks go pairwise; checkpoints None keeps nothing. Used from one thread."""

    def __init__(
        self,
        name: str,
        plans: Sequence[Node],
        sinks: Sequence[Sink],
        bindings: Mapping[Source, Binding],
        checkpoints: Checkpoints | None,
        *,
        write_ahead: bool,
        clock: Clock,
        monitor: Monitor,
    ) -> None:
        # configuration
        self._name = name
        self._plans = tuple(plans)
        self._sinks = tuple(sinks)
        self._bindings = bindings
        self._checkpoints = checkpoints
        self._write_ahead = write_ahead
        self._clock = clock
        self._monitor = monitor
        self._fingerprint = _fingerprint(self._plans)
        self._functions = digest_of_functions(self._plans)
        # rebuilt on restart
        self.commits = 0
        self._changed = False
        self._pending: list[list[pa.RecordBatch]] = [[] for _ in sinks]
        self._graph = Graph(self._plans, self._take_out)
        self._intakes: list[Intake] = []
        self._out: list[Numbers] = [{} for _ in sinks]
        self.resumed_from: int | None = None
        # checkpointed
        self.ended = False
        self._published = [0] * len(sinks)

    def start(self) -> None:
        """Open the sources where the last valid checkpoint left them, and publish what it promised; else afresh."""
        restored = self._restored()
        for sink in self._sinks:
            sink.claim(self._name)
        if restored is None:
            self._check_fresh()
        states = {} if restored is None else restored.manifest.sources
        ended = restored is not None and restored.manifest.ended
        for source in sources(*self._plans):
            self._intakes.append(self._intake(source, states.get(source.name), ended))
        if restored is not None:
            self._recover(restored)

    def _intake(self, source: Source, state: SourceState | None, ended: bool) -> Intake:
        """`ended`: the job reached its ends, so the ends of this run are those that the sources have now."""
        binding = self._bindings[source]
        if state is None:
            return Intake(source, binding.open(source, None, None), idle=binding.idle, clock=self._clock)
        reader = binding.open(source, state.positions, None if ended else state.ends)
        if state.identity and reader.identity and state.identity != reader.identity:
            reader.close()
            raise CheckpointError(
                f"source {source.name!r} of job {self._name!r} is {reader.identity}, and the checkpoint has read "
                f"{state.identity}; give it the topic that it read, or start with another checkpoint directory and "
                "another output"
            )
        return Intake(
            source,
            reader,
            idle=binding.idle,
            clock=self._clock,
            highest=state.highest,
            reached=state.reached,
            concluded=state.concluded,
            counts=SourceCounts(state.rows_in, state.used, state.late),
        )

    def round(self, max_rows: int, wait: timedelta) -> None:
        """Take in what has come and, where rows needn't wait for a barrier, publish what came out."""
        if feed(self._graph, self._intakes, max_rows, wait):
            self._changed = True
            self._monitor(Moment.ROWS, self._number)
        if not self._write_ahead:
            for i, sink in enumerate(self._sinks):
                if sink.between_barriers:
                    self._publish(i)

    @property
    def at_end(self) -> bool:
        """Whether every source has given its last row."""
        return all(intake.finished for intake in self._intakes)

    @property
    def pending_rows(self) -> int:
        return sum(batch.num_rows for batches in self._pending for batch in batches)

    def end(self) -> None:
        """The sources have ended: let out what waits for their watermark, and leave them fit to go on."""
        feed(self._graph, self._intakes, 1, timedelta(0))
        for intake in self._intakes:
            intake.keep_open(self._graph)
        self.ended = self._changed = True

    def barrier(self) -> None:
        """Commit and publish what has come since the last barrier, if anything has; models may change version."""
        if self._changed or self.pending_rows:
            self._changed = False
            self._commit_and_publish()
        for node in walk(*self._plans):
            if isinstance(node, Predict):
                node.predictor.refresh()

    def _commit_and_publish(self) -> None:
        number = self._number
        self._monitor(Moment.SNAPSHOT, number)
        if not self._write_ahead:
            self._publish_all(number)
        if self._checkpoints is not None:
            self._commit(self._checkpoints)
            self.commits += 1
        if self._write_ahead:
            self._publish_all(number)
        if self._checkpoints is not None:
            self._checkpoints.prune()

    def close(self) -> None:
        for intake in self._intakes:
            intake.reader.close()

    def counts(self) -> tuple[dict[str, SourceCounts], dict[str, int]]:
        """Rows of each source and out to each sink, since the job's first start."""
        taken = {intake.source.name: intake.counts for intake in self._intakes}
        return taken, {sink.name: n for sink, n in zip(self._sinks, self._published, strict=True)}

    @property
    def _number(self) -> int:
        return 0 if self._checkpoints is None else self._checkpoints.next_number

    def _take_out(self, output: int, rows: pa.RecordBatch) -> None:
        if rows.num_rows:
            self._pending[output].append(self._sinks[output].spell(rows))

    def _rows_out(self, i: int) -> pa.Table:
        return pa.Table.from_batches(self._pending[i])

    def _publish(self, i: int) -> None:
        if self._pending[i]:
            rows = self._rows_out(i)
            self._sinks[i].publish(self._name, self._published[i], rows, self._out[i])
            self._published[i] += len(rows)
            self._pending[i] = []

    def _publish_all(self, number: int) -> None:
        for i in range(len(self._sinks)):
            self._publish(i)
            self._monitor(Moment.SINK_PUBLISHED, number)
        self._monitor(Moment.PUBLISHED, number)

    def _commit(self, checkpoints: Checkpoints) -> None:
        outputs = {sink.name: self._rows_out(i) for i, sink in enumerate(self._sinks) if self._pending[i]}
        manifest = Manifest(
            number=checkpoints.next_number,
            job=self._name,
            plan=self._fingerprint,
            functions=self._functions,
            ended=self.ended,
            sources={intake.source.name: _state(intake, self._graph) for intake in self._intakes},
            sinks={
                sink.name: SinkState(self._published[i], len(outputs.get(sink.name, ())), dict(sink.marks()))
                for i, sink in enumerate(self._sinks)
            },
        )
        checkpoints.commit(manifest, self._graph.snapshot(), outputs)
        self._monitor(Moment.MANIFEST_COMMITTED, manifest.number)

    def _restored(self) -> Restored | None:
        """The checkpoint to go on from, if there is one; CheckpointError if it is of another job, plan or sinks."""
        restored = None if self._checkpoints is None else self._checkpoints.latest()
        if restored is None:
            return None
        manifest = restored.manifest
        if manifest.job != self._name:
            raise CheckpointError(
                f"the checkpoint is of job {manifest.job!r}, not of {self._name!r}; give each "
                "job a directory of its own"
            )
        if manifest.plan != self._fingerprint:
            raise CheckpointError(
                f"checkpoint {manifest.number} of job {self._name!r} is of another plan, and its state "
                "can't be carried over; start the new plan with another checkpoint directory and another output"
            )
        if changed(manifest.functions, self._functions):
            raise CheckpointError(
                f"checkpoint {manifest.number} of job {self._name!r} is of a plan whose filter or map_batches "
                "functions had another code; go on with the code it had, or start the new plan with another "
                "checkpoint directory and another output"
            )
        names = {sink.name for sink in self._sinks}
        if set(manifest.sinks) != names:
            raise CheckpointError(
                f"checkpoint {manifest.number} of job {self._name!r} writes to {sorted(manifest.sinks)}, the job now "
                f"to {sorted(names)}; go on with the same sinks, or start with another checkpoint directory"
            )
        return restored

    def _check_fresh(self) -> None:
        """CheckpointError if rows of this job are out that a fresh start would number, and write, again."""
        for sink in self._sinks:
            out = sink.published(self._name, None)
            if out:
                raise CheckpointError(
                    f"{sink.name!r} holds rows of job {self._name!r} up to number {max(out.values())}, and the job "
                    "starts afresh: it would write them twice; give the checkpoint of that job, another job name, or "
                    "another sink"
                )

    def _recover(self, restored: Restored) -> None:
        """Take up operator state and publish what the manifest promised and no one has seen."""
        self.resumed_from = restored.manifest.number
        self.ended = restored.manifest.ended and self.at_end
        self._graph.restore(restored.states)
        reached = [state.reached for state in restored.manifest.sources.values()]
        if restored.manifest.ended and not self.ended and max(reached) == MAX_TIME:
            raise CheckpointError(
                f"checkpoint {self.resumed_from} of job {self._name!r} was written at the end of its sources by a "
                "version that kept nothing to go on with; start with another checkpoint directory and another output"
            )
        for i, sink in enumerate(self._sinks):
            state = restored.manifest.sinks[sink.name]
            sink.check_kept(state.first, state.marks)
            out = sink.published(self._name, state.marks)
            self._published[i] = state.first + state.rows
            if self._write_ahead:
                self._out[i] = out
            elif (
                not sink.between_barriers
            ):  # rows out since the checkpoint come again, under numbers of their own
                self._published[i] = max(self._published[i], out.get(0, -1) + 1)
            if state.rows:
                sink.publish(self._name, state.first, restored.outputs[sink.name], self._out[i])
        for intake in self._intakes:
            intake.tell_watermark(self._graph)
        self._monitor(Moment.RESTORED, restored.manifest.number)


def _state(intake: Intake, graph: Graph) -> SourceState:
    counts = intake.counts
    return SourceState(
        positions=dict(intake.reader.positions),
        highest=dict(intake.times.highest),
        reached=intake.times.reached,
        ends=None if intake.reader.ends is None else dict(intake.reader.ends),
        rows_in=counts.rows_in,
        used=counts.used,
        late=counts.late,
        concluded=intake.concluded(graph),
        identity=intake.reader.identity,
    )


def _fingerprint(plans: Sequence[Node]) -> str:
    """What tells one plan from another across processes: its printed form and the columns of its sources."""
    schemas = [str(source.schema) for source in sources(*plans)]
    return hashlib.sha256("\n".join([*map(str, plans), *schemas]).encode()).hexdigest()
