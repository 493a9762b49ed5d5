"""`run`: plans to their sinks, until the sources end or someone says stop."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Literal

from millstream.clock import Clock, SystemClock
from millstream.errors import PlanError
from millstream.stream.checkpoint import Checkpoints
from millstream.stream.job import Job, Monitor
from millstream.stream.plan import positive
from millstream.stream.report import Ending, JobReport
from millstream.stream.signals import stop_on_signals
from millstream.stream.sinks import sink_for
from millstream.stream.sinks.sink import Sink
from millstream.stream.stream import Output, merged

__all__ = ["run"]

PENDING_ROWS = 1_000_000
"""Output rows that bring on a barrier before its time, so that memory stays bounded."""


def run(
    *outputs: Output,
    job: str,
    checkpoint: str | Path | None = None,
    every: timedelta = timedelta(seconds=10),
    delivery: Literal["exactly-once", "at-least-once"] = "exactly-once",
    max_rows: int = 65_536,
    max_delay: timedelta = timedelta(milliseconds=50),
    clock: Clock | None = None,
    stop: threading.Event | None = None,
    monitor: Monitor | None = None,
) -> JobReport:
    """Run a job until its sources end, or until `stop` is set or SIGINT or SIGTERM comes: then it stops at a barrier.

    outputs: streams with their sinks, `stream.to(sink)`; sources they share are read once.
    job: the name under which rows are numbered and a checkpoint is kept.
    checkpoint: a directory; the job goes on from its last valid checkpoint. Without one a restart starts afresh.
    every: time between barriers. With a checkpoint and ``delivery="exactly-once"`` rows become visible at barriers,
    each once; otherwise topics get rows at once, and after a crash some come twice.
    max_rows, max_delay: a batch is what has come, at most about max_rows; a round without rows waits max_delay.
    monitor: called with each `Moment` and the number of the checkpoint it belongs to.

    A job that has reached the end of its sources goes on when it is run again: to the ends they have by then, or, with
    ``bounded=False``, from there on. What the first end has concluded stays: windows with rows were closed, rows that
    waited for a watermark were answered, and all that was published. So where the plan has windows, lookbacks or
    `latest`, a row that comes later with event time before the end of the last closed window, or not after the last row
    answered, is late, and `Stream.late` has it; to keep windows open over a pause, stop the job instead. In plans of
    row-wise steps alone no such row is late: there lateness is by partition, as if there had been no end.

    A checkpoint is of a plan and its inputs: other steps, columns or times, another code of the functions of filter and
    map_batches, another topic or one made anew, and a table with fewer rows are a CheckpointError. What can't be
    noticed: other rows in a table of the same length or in a replay; other values in what a function closes over, calls
    or imports; another state of a callable object; and, where Python's version has changed, another code.

    Raises PlanError before the first row where the plan can't run, JobRunning if the job has a live instance,
    CheckpointError if its checkpoints are damaged or of another plan.

    >>> import tempfile, pyarrow as pa
    >>> from millstream.stream import as_stream
    >>> readings = as_stream(pa.table({"at": [1, 2], "temp": [20.5, 21.0]}), event_time="at", name="readings")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = run(readings.to(f"{folder}/out"), job="copy", checkpoint=f"{folder}/state")
    >>> report.ending.value, report.sources["readings"].rows_in, list(report.rows_out.values())
    ('end of the sources', 2, [2])
    """
    if not isinstance(job, str) or not job:
        raise PlanError(f"run: job={job!r}; expected a name")
    if delivery not in ("exactly-once", "at-least-once"):
        raise PlanError(f"run: delivery={delivery!r}; expected 'exactly-once' or 'at-least-once'")
    if max_rows < 1:
        raise PlanError(f"run: max_rows={max_rows}; expected at least 1")
    positive(every, "every")
    clock = clock or SystemClock()
    stop = stop or threading.Event()
    sinks = _sinks(outputs)
    bindings = merged(*(output.stream.bindings for output in outputs))
    started = clock.monotonic()
    with stop_on_signals(stop):
        checkpoints = None if checkpoint is None else Checkpoints(Path(checkpoint), job)
        try:
            work = Job(
                job,
                [output.stream.plan for output in outputs],
                sinks,
                bindings,
                checkpoints,
                write_ahead=checkpoints is not None and delivery == "exactly-once",
                clock=clock,
                monitor=monitor or (lambda moment, number: None),
            )
            try:
                work.start()
                ending = _drive(work, every, max_rows, max_delay, clock, stop)
            finally:
                work.close()
        finally:
            if checkpoints is not None:
                checkpoints.close()
    taken, out = work.counts()
    skipped = () if checkpoints is None else tuple(checkpoints.skipped)
    seconds = clock.monotonic() - started
    return JobReport(job, ending, taken, out, seconds, work.commits, work.resumed_from, skipped)


def _drive(
    work: Job, every: timedelta, max_rows: int, max_delay: timedelta, clock: Clock, stop: threading.Event
) -> Ending:
    """Rounds until the end or a stop, with a barrier every `every` and one at last."""
    if work.ended:
        return Ending.END
    last = clock.monotonic()
    while not work.at_end:
        if stop.is_set():
            work.barrier()
            return Ending.STOPPED
        work.round(max_rows, max_delay)
        if clock.monotonic() - last >= every.total_seconds() or work.pending_rows > PENDING_ROWS:
            work.barrier()
            last = clock.monotonic()
    work.end()
    work.barrier()
    return Ending.END


def _sinks(outputs: Sequence[Output]) -> list[Sink]:
    """One sink an output; PlanError if two write to one place or rows don't fit."""
    if not outputs:
        raise PlanError("run: no output; hand in at least one stream.to(sink)")
    sinks: list[Sink] = []
    for output in outputs:
        if not isinstance(output, Output):
            raise PlanError(
                f"run: a {type(output).__name__} is no output; expected a stream with its sink; write stream.to(topic) "
                "or stream.to('directory'), or stream.collect() to have the rows here"
            )
        sink = sink_for(output.sink)
        if any(sink.name == other.name for other in sinks):
            raise PlanError(f"run: two outputs write to {sink.name!r}; give each a sink of its own")
        sink.check(output.stream.schema)
        sinks.append(sink)
    return sinks
