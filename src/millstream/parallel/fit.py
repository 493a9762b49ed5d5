"""`fit`: an algorithm over a dataset, on an engine.

What is promised: the fitted parameters depend on the algorithm, the data and the seed. The engine, its
width, and which of its workers died or hung along the way change the time and not a bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from millstream.data import Dataset
from millstream.errors import InputError, Refused
from millstream.parallel.algorithm import Algorithm, Done, Meta, Step
from millstream.parallel.blas import one_blas_thread
from millstream.parallel.checkpoint import Checkpoint, Progress
from millstream.parallel.engine import Crew, Engine
from millstream.parallel.local import Contribution, Local, Setting, rng_of
from millstream.parallel.minibatch import Minibatch
from millstream.parallel.report import Report, StepReport
from millstream.parallel.sync import Bulk
from millstream.parallel.threads import Threads
from millstream.parallel.tree import Statistic

__all__ = ["Fit", "fit"]

Monitor = Callable[[StepReport], None]


@dataclass(frozen=True)
class Fit:
    """What came out.

    params: as the algorithm's `update` returned them. history: what its `measure` said, a mapping a step.
    done: False if `steps` ran out before the algorithm said it was done; `params` is then the state it had reached.
    """

    params: Any
    history: tuple[Mapping[str, float], ...]
    report: Report
    done: bool


def fit(
    algorithm: Algorithm,
    dataset: Dataset | Mapping[str, Dataset],
    *,
    engine: Engine | None = None,
    sync: Bulk | None = None,
    steps: int | None = None,
    checkpoint: str | Path | None = None,
    monitor: Monitor | None = None,
    seed: int = 0,
) -> Fit:
    """Train.

    dataset: the data, or views of it by name, of which the one called "train" describes it to `init`. Unless the
    algorithm is `single_pass`, what is not row-major in memory is copied so once, into a mapped temporary file.
    engine: by default `Threads()`, one for each core.
    sync: `Bulk()`, the default, is the only one so far.
    steps: no more than so many; by default until the algorithm is done.
    checkpoint: a file; it is written after every step, and a fit that finds it goes on from there, to the same bits.
    monitor: called after every step, on this thread, with its report.
    seed: of every random number.

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
    _refuse(engine, sync, steps)
    views = {"train": dataset} if isinstance(dataset, Dataset) else dict(dataset)
    if "train" not in views:
        raise InputError(f"the views are {sorted(views)}; one of them must be called 'train'")
    training = _Training(algorithm, engine or Threads(), views, seed, monitor)
    return training.run(steps, None if checkpoint is None else Path(checkpoint))


def _refuse(engine: object, sync: object, steps: int | None) -> None:
    if engine is not None and not isinstance(engine, Engine):
        raise InputError(f"engine={engine!r}; expected an engine such as Threads(2) or Inline()")
    if sync is not None and not isinstance(sync, Bulk):
        raise Refused(f"sync={sync!r}; every algorithm runs under Bulk() so far, and under nothing else")
    if steps is not None and steps < 1:
        raise InputError(f"steps={steps}; expected a positive number, or None for as many as it takes")


class _Training:
    def __init__(
        self,
        algorithm: Algorithm,
        engine: Engine,
        views: dict[str, Dataset],
        seed: int,
        monitor: Monitor | None,
    ) -> None:
        self.algorithm, self.engine, self.views, self.seed, self.monitor = (
            algorithm,
            engine,
            views,
            seed,
            monitor,
        )
        # what an algorithm may leave out
        self.operations = getattr(algorithm, "combine", {})
        self.plan: Callable[[Any], Step] = getattr(algorithm, "plan", Step)
        self.measure: Callable[[Any, Statistic], Mapping[str, float]] = getattr(
            algorithm, "measure", lambda state, statistic: {}
        )
        self.single_pass: bool = getattr(algorithm, "single_pass", False)
        self.setting: Setting
        self.last_step_over: dict[str, int] = {}  # by view

    def run(self, steps: int | None, path: Path | None) -> Fit:
        started = perf_counter()
        with one_blas_thread():
            meta = _meta(self.views["train"])
            checkpoint = None if path is None else Checkpoint(path, self.algorithm, meta, self.seed)
            found = None if checkpoint is None else checkpoint.load()
            persist = 0.0 if found is not None and found.done else self._persist()
            progress = found or Progress(
                0, self.algorithm.init(meta, rng_of(self.seed, 2**64 - 1)), False, ()
            )
            views = {name: view.parts for name, view in self.views.items()}
            self.setting = Setting(self.algorithm, self.seed, views)
            reports: list[StepReport] = []
            with self.engine.crew() as crew:
                while not progress.done and (steps is None or progress.step < steps):
                    progress, step_report = self._step(crew, progress)
                    if checkpoint is not None:
                        checkpoint.save(progress)
                    reports.append(step_report)
                    if self.monitor is not None:
                        self.monitor(step_report)
        report = Report(
            repr(self.engine),
            self.engine.n_workers,
            perf_counter() - started,
            persist,
            tuple(reports),
            None if found is None else found.step,
        )
        return Fit(progress.state, progress.history, report, progress.done)

    def _persist(self) -> float:
        started = perf_counter()
        if not self.single_pass:
            self.views = {name: v if v.row_major else v.persist() for name, v in self.views.items()}
        return perf_counter() - started

    def _step(self, crew: Crew, progress: Progress) -> tuple[Progress, StepReport]:
        started = perf_counter()
        plan = self.plan(progress.state)
        if plan.view not in self.views:
            raise InputError(
                f"step {progress.step} asks for the view {plan.view!r}; the views are {sorted(self.views)}"
            )
        n_parts = len(self.views[plan.view].parts)
        reduction = self.engine.reduction(n_parts, self.operations)
        sizes: dict[int, int] = {}

        def accept(index: int, contribution: Contribution, level: int = 0) -> None:
            sizes[index] = contribution.nbytes
            reduction.insert(index, contribution.statistic, level)

        since = self.last_step_over.get(plan.view)
        n_rows = self.views[plan.view].n_rows
        batch = None if plan.rows is None else Minibatch.of(plan.rows, n_rows, self.seed, progress.step)
        task = Local(self.setting, plan.params, plan.view, progress.step, since, batch)
        self.last_step_over[plan.view] = progress.step
        work = crew.run(task, accept, n_parts, step=progress.step, combine=task.combine)
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
        )
        after = Progress(progress.step + 1, state, isinstance(answer, Done), (*progress.history, measures))
        return after, report


def _meta(train: Dataset) -> Meta:
    if not train.n_rows:
        raise InputError(f"{train!r} has no rows; there is nothing to learn from")
    return Meta(train.n_features, train.n_rows, len(train.parts), train.dtype, train.schema)
