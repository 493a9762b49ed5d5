"""A fit through a parameter server: `Stale` and `Async`.

Every part is a source of updates. A task is a part in a round: pull, `local`, `delta`; handing it over pushes the delta
and ends the part's round. The queue gives out a part no earlier than it may read, so a pull never waits here, and who
does wait holds no part. A part that is computed twice pushes the same round twice, and the server takes it once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np

from millstream.errors import Refused, TrainingError
from millstream.parallel.algorithm import Step
from millstream.parallel.engine import Crew, Engine
from millstream.parallel.local import Contribution, Local, Prepared, Setting, read_only
from millstream.parallel.minibatch import Minibatch
from millstream.parallel.parameter_client import ParameterClient
from millstream.parallel.parameter_server import ParameterServer
from millstream.parallel.report import StepReport
from millstream.parallel.shard_server import add
from millstream.parallel.significance import Significance
from millstream.parallel.sync import Async, Stale, round_queue
from millstream.parallel.traffic import Traffic
from millstream.parallel.tree import PairwiseTree

__all__ = ["Served", "refuse_served", "train_served"]


@dataclass(frozen=True)
class Served:
    """What came out: the parameters, what `measure` said of each round, the rounds, and the server's counters."""

    params: Mapping[str, Any]
    history: tuple[Mapping[str, float], ...]
    reports: tuple[StepReport, ...]
    traffic: Traffic


def refuse_served(
    algorithm: object,
    engine: Engine,
    sync: Stale | Async,
    steps: int | None,
    checkpoint: object,
    baseline: bool,
) -> None:
    """Say why this fit can't run through a parameter server, if it can't."""
    name = type(algorithm).__name__
    if not hasattr(algorithm, "delta"):
        raise Refused(
            f"{name} has no delta(params, statistic, clock), so what one part learned can't be added to the parameters "
            f"alone, as {sync!r} needs; give it one, or train under Bulk()"
        )
    if hasattr(algorithm, "score"):
        raise Refused(f"{name} has score, whose rows meet in every step; train it under Bulk(), not {sync!r}")
    if not engine.prepares:
        raise Refused(
            f"{engine!r} ships the parameters once a step, but under {sync!r} every part is sent the latest; use "
            "Threads, Processes or Inline, or Bulk()"
        )
    if steps is None:
        raise Refused(f"under {sync!r} no update says when it is done; give fit(steps=) a number of rounds")
    if baseline:
        raise Refused(f"baseline=True measures a step, and {sync!r} has none; measure it under Bulk()")
    if checkpoint is not None:
        raise Refused(f"{sync!r} has no moment at which all parts are equally far; train without checkpoint=")


def train_served(
    setting: Setting,
    plan: Step,
    steps: int,
    *,
    engine: Engine,
    crew: Crew,
    sync: Stale | Async,
    after_round: Callable[[StepReport], None],
) -> Served:
    """Rounds 0 to `steps` of every part of the plan's view."""
    service = _Service(setting, plan, steps, engine.n_workers, sync, after_round)
    n_parts = service.n_parts
    work = crew.run(
        Prepared(setting, service.prepare),
        service.accept,
        steps * n_parts,
        step=0,
        queue=round_queue(sync, n_parts),
    )
    return service.finish(work.lost)


@dataclass(frozen=True)
class _Computed:
    contribution: Contribution
    delta: Mapping[str, Any]
    seconds: float


@dataclass(frozen=True)
class _LocalDelta(Local):
    """`local` and `delta` of a part in a round."""

    def __call__(self, index: int, attempt: int) -> _Computed:  # type: ignore[override]
        started = perf_counter()
        algorithm: Any = self.setting.algorithm
        part = index % len(self.setting.views[self.view])
        contribution = super().__call__(part, attempt)
        try:
            delta = algorithm.delta(read_only(self.params), contribution.statistic, self.step)
        except Exception as error:
            error.add_note(f"in delta of {type(algorithm).__name__}, part {part}, step {self.step}")
            raise
        if not isinstance(delta, Mapping):
            raise TrainingError(
                f"delta of {type(algorithm).__name__} returned {type(delta).__name__}; expected a mapping of names of "
                "parameters to arrays or Sparse"
            )
        return _Computed(contribution, delta, perf_counter() - started)


@dataclass
class _Round:
    """What is known of a round that some parts are in."""

    tree: PairwiseTree | None
    parts: int = 0
    nbytes: int = 0


@dataclass
class _Since:
    """Since the last round was complete; seconds of the workers."""

    started: float
    compute: float = 0.0
    combine: float = 0.0


@dataclass
class _Source:
    """A part: its rounds that are in, one lock for those who hand over the same part, what it holds back."""

    held_back: Significance | None
    rounds: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class _Service:
    def __init__(
        self,
        setting: Setting,
        plan: Step,
        steps: int,
        n_workers: int,
        sync: Stale | Async,
        after_round: Callable[[StepReport], None],
    ) -> None:
        self._setting, self._plan, self._steps, self._n_workers = setting, plan, steps, n_workers
        self._after_round = after_round
        self._algorithm: Any = setting.algorithm
        self._parts = setting.views[plan.view]
        self.n_parts = len(self._parts)
        self._server = ParameterServer(
            plan.params,
            sources=self.n_parts,
            bound=sync.bound,
            apply=getattr(self._algorithm, "apply", add),
            shards=getattr(self._algorithm, "shards", None),
        )
        self._client = ParameterClient(self._server)
        self._sources = [_Source(self._filter(sync)) for _ in range(self.n_parts)]
        # guarded by _lock
        self._lock = threading.Lock()
        self._rounds: dict[int, _Round] = {}
        self._since = _Since(perf_counter())
        self._history: list[Mapping[str, float]] = []
        self._reports: list[StepReport] = []

    def prepare(self, index: int) -> _LocalDelta:
        """The task of a part in a round, with the parameters as they are now."""
        clock, part = divmod(index, self.n_parts)
        params = self._client.pull(part, clock)
        return _LocalDelta(self._setting, params, self._plan.view, clock, clock - 1, self._batch(clock))

    def accept(self, index: int, computed: _Computed) -> None:
        clock, part = divmod(index, self.n_parts)
        started = perf_counter()
        source = self._sources[part]
        with source.lock:
            if clock < source.rounds:  # from a worker that was lost, after another did its part
                return
            delta = computed.delta if source.held_back is None else source.held_back.split(computed.delta)
            if source.held_back is not None and clock == self._steps - 1:
                self._server.push(part, clock, delta)
                self._server.push(part, clock, source.held_back.flush(), number=1)
                self._server.clock(part, clock)
            else:
                self._client.push(part, clock, delta)
            source.rounds += 1
        self._count(clock, part, computed, started)

    def finish(self, lost: Sequence[int]) -> Served:
        """After the last round."""
        reports = tuple(self._reports)
        reports = (*reports[:-1], replace(reports[-1], lost=tuple(lost)))
        return Served(self._server.read(), tuple(self._history), reports, self._server.traffic)

    def _count(self, clock: int, part: int, computed: _Computed, started: float) -> None:
        tree = self._round(clock).tree
        if tree is not None:
            tree.insert(part, computed.contribution.statistic)
        with self._lock:
            one = self._rounds[clock]
            one.parts += 1
            one.nbytes += computed.contribution.nbytes
            self._since.compute += computed.seconds
            self._since.combine += perf_counter() - started
            if one.parts == self.n_parts:
                del self._rounds[clock]
                self._complete(clock, one)

    def _round(self, clock: int) -> _Round:
        with self._lock:
            if clock not in self._rounds:
                operations = getattr(self._algorithm, "combine", {})
                measured = hasattr(self._algorithm, "measure")
                self._rounds[clock] = _Round(PairwiseTree(self.n_parts, operations) if measured else None)
            return self._rounds[clock]

    def _complete(self, clock: int, one: _Round) -> None:
        """Every part is through a round. Rounds complete in order, since a part begins one after it ended the last."""
        measures = {}
        if one.tree is not None:
            measures = dict(self._algorithm.measure(self._server.read(), one.tree.result()))
        since, now = self._since, perf_counter()
        seconds = now - since.started
        batch = self._batch(clock)
        rows = sum(part.n_rows for part in self._parts) if batch is None else batch.count
        report = StepReport(
            clock,
            self._plan.view,
            seconds=seconds,
            compute=since.compute,
            combine=since.combine,
            wait=max(0.0, self._n_workers * seconds - since.compute - since.combine),
            update=0.0,
            statistic_bytes=one.nbytes,
            measures=measures,
            rows=rows,
        )
        self._since = _Since(now)
        self._history.append(measures)
        self._reports.append(report)
        self._after_round(report)

    def _batch(self, clock: int) -> Minibatch | None:
        if self._plan.rows is None:
            return None
        n_rows = sum(part.n_rows for part in self._parts)
        return Minibatch.of(self._plan.rows, n_rows, self._setting.seed, clock)

    def _filter(self, sync: Stale | Async) -> Significance | None:
        if not sync.insignificant:
            return None
        params = {name: np.asarray(value) for name, value in self._plan.params.items()}
        return Significance(params, sync.insignificant)
