"""`fit`: an algorithm over a dataset, on an engine.

What is promised: the fitted parameters depend on the algorithm, the data and the seed. The engine, its
width, and which of its workers died or hung along the way change the time and not a bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import pyarrow as pa

from millstream.data import Dataset
from millstream.errors import InputError, Refused
from millstream.parallel.algorithm import Algorithm, Done, Meta, Step
from millstream.parallel.blas import one_blas_thread
from millstream.parallel.checkpoint import Checkpoint, CheckpointFile, Progress
from millstream.parallel.engine import Crew, Engine
from millstream.parallel.history import history_table
from millstream.parallel.inline import Inline
from millstream.parallel.local import Contribution, Local, Setting, rng_of
from millstream.parallel.minibatch import Minibatch
from millstream.parallel.progress_line import ProgressLine
from millstream.parallel.report import Report, StepReport
from millstream.parallel.scored import run_scored
from millstream.parallel.served import refuse_served, train_served
from millstream.parallel.sync import Async, Bulk, Stale, Sync
from millstream.parallel.threads import Threads
from millstream.parallel.traffic import Traffic
from millstream.parallel.tree import Statistic

__all__ = ["Fit", "fit"]

Monitor = Callable[[StepReport], None]


@dataclass(frozen=True)
class Fit:
    """What came out.

    params: as the algorithm's `update` returned them. history: what its `measure` said, one row a step, from the first
    step on also where a checkpoint was taken up: ``step`` int64, every measure float64.
    done: False if `steps` ran out before the algorithm said it was done; `params` is then the state it had reached.
    """

    params: Any
    history: pa.Table
    report: Report
    done: bool


def fit(
    algorithm: Algorithm,
    dataset: Dataset | Mapping[str, Dataset],
    *,
    engine: Engine | None = None,
    sync: Sync | None = None,
    steps: int | None = None,
    checkpoint: str | Path | Checkpoint | None = None,
    monitor: Monitor | None = None,
    seed: int = 0,
    baseline: bool = False,
) -> Fit:
    """Train.

    dataset: the data, or views of it by name, of which the one called "train" describes it to `init`. Unless the
    algorithm is `single_pass`, what is not row-major in memory is copied so once, into a mapped temporary file.
    engine: by default `Threads()`, one for each core.
    sync: when statistics meet: `Bulk()`, the default, `Stale(bound)` or `Async()`. The latter two take `steps`, and an
    algorithm with ``delta``; what comes out is the parameters that ``plan`` ships of the first state, trained.
    steps: no more than so many; by default until the algorithm is done.
    checkpoint: a file, written after every step or as `Checkpoint` says; a fit that finds it goes on from there, to the
    same bits.
    monitor: called after every step, on this thread, with its report; under `Stale` and `Async` on a worker's, when the
    last part is through the step.
    seed: of every random number.
    baseline: measure what one worker takes for the first step, for the speedup in the report. It costs that step twice
    over, once to warm up.

    A fit of more than two seconds shows how far it is in a line on standard error, if that is a terminal.

    Raises `Refused` where the algorithm, data and arguments don't go together, what `local` or `update`
    raise as they raise it (with a note of the part and step), `WorkerLost` and `DeadlineExceeded` when no
    worker is left.

    >>> import numpy as np
    >>> import millstream.data as data
    >>> class Mean:
    ...     def init(self, meta, rng):
    ...         return {"mean": np.zeros(meta.n_features)}
    ...
    ...     def local(self, params, part, ctx):
    ...         total = np.zeros(len(params["mean"]))
    ...         for block in part.blocks():
    ...             total += block.X.sum(axis=0, dtype="f8")
    ...         return {"sum": total, "rows": np.array(part.n_rows)}
    ...
    ...     def update(self, state, statistic):
    ...         return Done({"mean": statistic["sum"] / statistic["rows"]})
    >>> fit(Mean(), data.from_numpy(np.arange(6.0).reshape(3, 2)), engine=Threads(2)).params["mean"]
    array([2., 3.])
    """
    engine, sync = engine or Threads(), sync or Bulk()
    _refuse(engine, sync, steps)
    if not isinstance(sync, Bulk):
        refuse_served(algorithm, engine, sync, steps, checkpoint, baseline)
    if baseline and hasattr(algorithm, "score"):
        raise Refused(
            "baseline=True measures `local` alone, which here needs the scores of all shards; leave it out"
        )
    if not isinstance(dataset, Dataset | Mapping):
        raise InputError(
            f"dataset is {dataset!r:.200}, a {type(dataset).__name__}; expected a Dataset or a mapping of them: "
            "make one with from_numpy(X, y), from_arrow or read_parquet"
        )
    views = {"train": dataset} if isinstance(dataset, Dataset) else dict(dataset)
    if "train" not in views:
        raise InputError(f"the views are {sorted(views)}; one of them must be called 'train'")
    training = _Training(algorithm, engine, sync, views, seed, monitor, baseline)
    return training.run(steps, Checkpoint(checkpoint) if isinstance(checkpoint, str | Path) else checkpoint)


def _refuse(engine: object, sync: object, steps: int | None) -> None:
    if not isinstance(engine, Engine):
        raise InputError(f"engine={engine!r}; expected an engine such as Threads(2) or Inline()")
    if not isinstance(sync, Sync):
        raise InputError(f"sync={sync!r}; expected Bulk(), Stale(bound) or Async()")
    if steps is not None and steps < 1:
        raise InputError(f"steps={steps}; expected a positive number, or None for as many as it takes")


class _Training:
    def __init__(
        self,
        algorithm: Algorithm,
        engine: Engine,
        sync: Sync,
        views: dict[str, Dataset],
        seed: int,
        monitor: Monitor | None,
        baseline: bool,
    ) -> None:
        self.algorithm, self.engine, self.views, self.seed = algorithm, engine, views, seed
        self.sync, self.monitor, self.baseline = sync, monitor, baseline
        # what an algorithm may leave out
        self.operations = getattr(algorithm, "combine", {})
        self.plan: Callable[[Any], Step] = getattr(algorithm, "plan", Step)
        self.measure: Callable[[Any, Statistic], Mapping[str, float]] = getattr(
            algorithm, "measure", lambda state, statistic: {}
        )
        self.single_pass: bool = getattr(algorithm, "single_pass", False)
        self.flops: Callable[[Any, int], float] | None = getattr(algorithm, "flops", None)
        self.setting: Setting
        self.last_step_over: dict[str, int] = {}  # by view
        self.one_worker: float | None = None
        self.traffic: Traffic | None = None

    def run(self, steps: int | None, checkpoint: Checkpoint | None) -> Fit:
        started = perf_counter()
        with one_blas_thread():
            meta = _meta(self.views["train"])
            file = None
            if checkpoint is not None:
                file = CheckpointFile(checkpoint, self.algorithm, meta, self.seed, self.views)
            found = None if file is None else self.engine.shared(file.load)
            file = file if self.engine.keeps_checkpoints else None
            persist = 0.0 if found is not None and found.done else self._persist()
            progress = found or Progress(
                0, self.algorithm.init(meta, rng_of(self.seed, 2**64 - 1)), False, ()
            )
            views = {name: view.parts for name, view in self.views.items()}
            self.setting = Setting(self.algorithm, self.seed, views)
            with self.engine.crew() as crew:
                if isinstance(self.sync, Bulk):
                    progress, reports = self._steps(crew, progress, steps, file)
                else:
                    progress, reports = self._served(crew, progress, steps, self.sync)
        report = Report(
            repr(self.engine),
            self.engine.n_workers,
            perf_counter() - started,
            persist,
            tuple(reports),
            None if found is None else found.step,
            self.one_worker,
            self.traffic,
        )
        return Fit(progress.state, history_table(progress.history), report, progress.done)

    def _steps(
        self, crew: Crew, progress: Progress, steps: int | None, file: CheckpointFile | None
    ) -> tuple[Progress, list[StepReport]]:
        reports: list[StepReport] = []
        line = ProgressLine(steps)
        try:
            while not progress.done and (steps is None or progress.step < steps):
                progress, report = self._step(crew, progress)
                if file is not None:
                    file.after_step(progress)
                reports.append(report)
                line.show(report)
                if self.monitor is not None:
                    self.monitor(report)
        finally:
            line.close()
            if file is not None:
                file.at_end()
        return progress, reports

    def _served(
        self, crew: Crew, progress: Progress, steps: int | None, sync: Stale | Async
    ) -> tuple[Progress, list[StepReport]]:
        assert steps is not None
        line = ProgressLine(steps)

        def after_round(report: StepReport) -> None:
            line.show(report)
            if self.monitor is not None:
                self.monitor(report)

        try:
            served = train_served(
                self.setting,
                self._plan(progress),
                steps,
                engine=self.engine,
                crew=crew,
                sync=sync,
                after_round=after_round,
            )
        finally:
            line.close()
        self.traffic = served.traffic
        return Progress(steps, served.params, False, served.history), list(served.reports)

    def _persist(self) -> float:
        started = perf_counter()
        if not self.single_pass:
            self.views = {name: v if v.row_major else v.persist() for name, v in self.views.items()}
        return perf_counter() - started

    def _step(self, crew: Crew, progress: Progress) -> tuple[Progress, StepReport]:
        assert isinstance(self.sync, Bulk)
        started = perf_counter()
        plan = self._plan(progress)
        view = self.views[plan.view]
        n_parts = len(view.parts)
        reduction = self.engine.reduction(n_parts, self.operations)
        sizes: dict[int, int] = {}

        def accept(index: int, contribution: Contribution, level: int = 0) -> None:
            sizes[index] = contribution.nbytes
            reduction.insert(index, contribution.statistic, level)

        since = self.last_step_over.get(plan.view)
        batch = None if plan.rows is None else Minibatch.of(plan.rows, view.n_rows, self.seed, progress.step)
        rows = view.n_rows if batch is None else batch.count
        task = Local(self.setting, plan.params, plan.view, progress.step, since, batch)
        self.last_step_over[plan.view] = progress.step
        if self.baseline and self.one_worker is None:
            self.one_worker = self._alone(task, n_parts)
            started = perf_counter()
        if hasattr(self.algorithm, "score"):
            work, statistic, sizes[0] = run_scored(
                task, n_parts, engine=self.engine, crew=crew, queue=self.sync.queue
            )
        else:
            work = crew.run(
                task, accept, n_parts, step=progress.step, combine=task.combine, queue=self.sync.queue
            )
            statistic = reduction.result()
        updating = perf_counter()
        try:
            answer = self.algorithm.update(progress.state, statistic)
            state = answer.params if isinstance(answer, Done) else answer
            measures = dict(self.measure(state, statistic))
        except Exception as error:
            error.add_note(f"in update of {type(self.algorithm).__name__}, step {progress.step}")
            raise
        ended = perf_counter()
        report = StepReport(
            progress.step,
            plan.view,
            seconds=ended - started,
            compute=work.compute,
            combine=work.combine,
            wait=work.wait,
            update=ended - updating,
            statistic_bytes=sum(sizes.values()),
            lost=work.lost,
            measures=measures,
            rows=rows,
            block_bytes=rows * _row_bytes(view),
            flops=None if self.flops is None else self.flops(plan.params, rows),
        )
        after = Progress(progress.step + 1, state, isinstance(answer, Done), (*progress.history, measures))
        return after, report

    def _plan(self, progress: Progress) -> Step:
        plan = self.plan(progress.state)
        if plan.view not in self.views:
            raise InputError(
                f"step {progress.step} asks for the view {plan.view!r}; the views are {sorted(self.views)}"
            )
        return plan

    def _alone(self, task: Local, n_parts: int) -> float:
        """Seconds of one worker for a task that keeps nothing; what it computes is thrown away."""
        alone = replace(task, setting=Setting(self.algorithm, self.seed, task.setting.views), since=None)
        for _ in range(2):  # the first round compiles, and reads cold files
            reduction = self.engine.reduction(n_parts, self.operations)
            with Inline(workers=1).crew() as crew:
                work = crew.run(
                    alone,
                    lambda index, contribution, to=reduction: to.insert(index, contribution.statistic),
                    n_parts,
                    step=task.step,
                )
        return work.compute + work.combine


def _row_bytes(view: Dataset) -> int:
    """Bytes of one row of ``Block.X``; 0 while a feature is not a number."""
    return 0 if view.dtype is None or view.n_features is None else view.n_features * view.dtype.itemsize


def _meta(train: Dataset) -> Meta:
    if not train.n_rows:
        raise InputError(f"{train!r} has no rows; there is nothing to learn from")
    return Meta(train.n_features, train.n_rows, len(train.parts), train.dtype, train.schema)
