"""Laws of `Stale` and `Async`, on every engine that trains under them.

`Tally` counts in its parameters which part's delta of how many rounds is in them, so that every reader can see how old
what it reads is, without asking the server. On `Inline` the schedule is drawn from a seed: same seed, same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pytest

import millstream.data as data
from millstream.errors import DeadlineExceeded, Refused
from millstream.parallel import (
    CONCAT,
    Async,
    Bulk,
    Engine,
    Fault,
    Inline,
    Processes,
    Stale,
    Threads,
    fit,
    served,
)
from millstream.parallel.parameter_server import ParameterServer
from millstream.parallel.round_queue import RoundQueue

N_PARTS, ROUNDS = 7, 9
BOUNDS = [0, 1, 3]
SYNCS = [Stale(bound, assign) for bound in BOUNDS for assign in ("dynamic", "pinned")]
SYNCS += [Async(), Async("pinned")]


class Tally:
    """params["rounds"]: (n_parts,) how many rounds of each part are in; what readers saw is noted in `seen`."""

    combine: ClassVar = {"seen": CONCAT}

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []  # clock, part and what it read, on the driver

    def init(self, meta: Any, rng: Any) -> Any:
        return {"rounds": np.zeros(meta.n_parts), "total": np.array(0.0)}

    def local(self, params: Any, part: Any, ctx: Any) -> Any:
        one = np.zeros(len(params["rounds"]))
        one[part.index] = 1
        return {"rounds": one, "seen": np.array([[ctx.step, part.index, *params["rounds"]]])}

    def update(self, state: Any, statistic: Any) -> Any:
        return {"rounds": state["rounds"] + statistic["rounds"], "total": state["total"] + 1.0}

    def delta(self, params: Any, statistic: Any, clock: int) -> Any:
        return {"rounds": statistic["rounds"], "total": 1.0}

    def measure(self, state: Any, statistic: Any) -> Any:
        self.seen.extend(statistic["seen"].astype(int))
        return {}


@pytest.fixture(scope="module")
def parts() -> data.Dataset:
    return data.from_numpy(np.arange(2.0 * N_PARTS)[:, None], part_rows=2)


def faults(kind: str) -> list[Fault]:
    return [Fault(0, 1, kind, after=5), Fault(0, 2, kind, after=9)]


ENGINES: dict[str, Callable[[], list[Engine]]] = {
    "Inline": lambda: [Inline(seed, workers=n) for seed in range(4) for n in (1, 2, 3, 8)],
    "Inline, some die": lambda: [Inline(seed, faults("die")) for seed in range(6)],
    "Inline, some hang": lambda: [Inline(seed, faults("hang")) for seed in range(6)],
    "Threads": lambda: [Threads(n) for n in (1, 2, 3)],
    "Threads, some die": lambda: [Threads(3, faults=[Fault(0, 1, "die", after=2)])],
    "Threads, some hang": lambda: [
        Threads(3, timedelta(milliseconds=300), faults=[Fault(0, 1, "hang", after=2)])
    ],
    "Processes": lambda: [Processes(2)],
    "Processes, some die": lambda: [Processes(3, faults=[Fault(0, 1, "die", after=2)])],
}
# Processes take a while to hire, and a thread that hangs takes its deadline to be noticed.
SOME = [Stale(1), Stale(0, "pinned"), Async()]
CASES = [
    (engines, sync)
    for engines in ENGINES
    for sync in (SOME if engines in ("Threads, some hang", "Processes", "Processes, some die") else SYNCS)
]


def reads_are_no_older_than_the_bound(engine: Engine, sync: Stale | Async, parts: data.Dataset) -> None:
    tally = Tally()
    fit(tally, parts, engine=engine, sync=sync, steps=ROUNDS)
    assert len(tally.seen) == ROUNDS * N_PARTS
    for clock, part, *rounds in tally.seen:
        assert rounds[part] >= clock  # what a part did itself it sees
        assert sync.bound is None or min(rounds) >= clock - sync.bound


def every_delta_is_applied_once(engine: Engine, sync: Stale | Async, parts: data.Dataset) -> None:
    trained = fit(Tally(), parts, engine=engine, sync=sync, steps=ROUNDS)
    assert trained.params["rounds"].tolist() == [ROUNDS] * N_PARTS
    assert trained.params["total"] == ROUNDS * N_PARTS
    assert trained.report.traffic.pushes == ROUNDS * N_PARTS
    assert [step.step for step in trained.report.steps] == list(range(ROUNDS))


LAWS = [reads_are_no_older_than_the_bound, every_delta_is_applied_once]


@pytest.mark.parametrize(("engines", "sync"), CASES, ids=repr)
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law: Callable[..., None], engines: str, sync: Stale | Async, parts: data.Dataset) -> None:
    for engine in ENGINES[engines]():
        law(engine, sync, parts)


def test_the_faults_did_strike_and_late_deltas_did_come(parts: data.Dataset) -> None:
    died = fit(Tally(), parts, engine=Inline(0, faults("die")), sync=Stale(1), steps=ROUNDS).report
    hung = fit(Tally(), parts, engine=Inline(0, faults("hang")), sync=Stale(1), steps=ROUNDS).report
    assert sorted(died.lost) == sorted(hung.lost) == [1, 2]


def test_readers_do_run_ahead_as_far_as_the_bound_and_no_further(parts: data.Dataset) -> None:
    for bound in BOUNDS:
        traffic = [
            fit(Tally(), parts, engine=Inline(seed), sync=Stale(bound, "pinned"), steps=20).report.traffic
            for seed in range(5)
        ]
        assert max(one.most_stale for one in traffic) == bound
    free = [
        fit(Tally(), parts, engine=Inline(s), sync=Async("pinned"), steps=20).report.traffic for s in range(5)
    ]
    assert max(one.most_stale for one in free) > max(BOUNDS)


class Unbounded(RoundQueue):
    """A planted queue that forgets the bound."""

    def __init__(self, order: Any, workers: Any, n_parts: int, bound: Any, pinned: bool) -> None:
        super().__init__(order, workers, n_parts, None, pinned)


def test_a_queue_without_the_bound_waits_at_the_server(
    parts: data.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shards keep the law by themselves; with one thread for all, the reader waits there until its deadline."""
    monkeypatch.setattr("millstream.parallel.sync.RoundQueue", Unbounded)
    reads_are_no_older_than_the_bound(Threads(3), Stale(1), parts)
    monkeypatch.setattr(
        served, "ParameterServer", partial(ParameterServer, deadline=timedelta(milliseconds=20))
    )
    with pytest.raises(DeadlineExceeded):
        reads_are_no_older_than_the_bound(Inline(0), Stale(0, "pinned"), parts)


class UnboundedServer(ParameterServer):
    """A planted server that answers at once, whoever asks."""

    def __init__(self, params: Any, *, bound: Any, **rest: Any) -> None:
        super().__init__(params, bound=None, **rest)


class ForgetfulServer(ParameterServer):
    """A planted server that takes a repeated push for a new one."""

    def push(self, source: int, clock: int, delta: Any, number: int = 0) -> bool:
        super().push(source, clock, delta, number)
        return super().push(source, clock, delta, number + 1)


def test_planted_violations_are_found_out(parts: data.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as planted:
        planted.setattr("millstream.parallel.sync.RoundQueue", Unbounded)
        planted.setattr(served, "ParameterServer", UnboundedServer)
        with pytest.raises(AssertionError):
            reads_are_no_older_than_the_bound(Inline(0), Stale(0, "pinned"), parts)
    with monkeypatch.context() as planted:
        planted.setattr(served, "ParameterServer", ForgetfulServer)
        with pytest.raises(AssertionError):
            every_delta_is_applied_once(Inline(0), Stale(1), parts)


class BulkDescent:
    """Gradient steps for logistic regression, without `delta`."""

    rate = 2.0

    def init(self, meta: Any, rng: Any) -> Any:
        self.n_rows = meta.n_rows
        return {"w": np.zeros(meta.n_features)}

    def local(self, params: Any, part: Any, ctx: Any) -> Any:
        gradient, loss = np.zeros(len(params["w"])), 0.0
        for block in part.blocks():
            margin = np.where(block.y == 1, 1.0, -1.0) * (block.X @ params["w"])
            loss += np.logaddexp(0, -margin).sum()
            gradient += (1 / (1 + np.exp(-block.X @ params["w"])) - block.y) @ block.X
        return {"gradient": gradient, "loss": np.array(loss)}

    def update(self, state: Any, statistic: Any) -> Any:
        return {"w": state["w"] - self.rate * statistic["gradient"] / self.n_rows}

    def measure(self, state: Any, statistic: Any) -> Any:
        return {"loss": float(statistic["loss"]) / self.n_rows}


class LogisticDescent(BulkDescent):
    """Under `Stale` each part takes its share of a step on its own."""

    def delta(self, params: Any, statistic: Any, clock: int) -> Any:
        return {"w": -self.rate * statistic["gradient"] / self.n_rows}


@pytest.fixture(scope="module")
def labelled() -> data.Dataset:
    rng = np.random.default_rng(5)
    X = rng.standard_normal((3000, 12))
    y = (X @ rng.standard_normal(12) + rng.logistic(size=3000) > 0).astype(float)
    return data.from_numpy(X, y, part_rows=250)


def loss_of(params: Any, dataset: data.Dataset) -> float:
    algorithm = LogisticDescent()
    statistic = [algorithm.local(params, part, None) for part in dataset.parts]
    return float(sum(one["loss"] for one in statistic)) / dataset.n_rows


@pytest.fixture(scope="module")
def bulk_loss(labelled: data.Dataset) -> float:
    return loss_of(fit(LogisticDescent(), labelled, engine=Inline(), sync=Bulk(), steps=60).params, labelled)


@pytest.mark.parametrize(
    ("engine", "sync"),
    [
        *((engine, sync) for engine in (Inline(1), Threads(2)) for sync in SYNCS),
        *((engine, sync) for engine in (Inline(2, faults("die")), Processes(2)) for sync in SOME),
        *((engine, Stale(1, insignificant=1e-3)) for engine in (Inline(1), Threads(2), Processes(2))),
    ],
    ids=repr,
)
def test_the_loss_is_that_of_bulk_within_a_thousandth_or_without_a_bound_a_hundredth(
    engine: Engine, sync: Stale | Async, labelled: data.Dataset, bulk_loss: float
) -> None:
    other = fit(LogisticDescent(), labelled, engine=engine, sync=sync, steps=60)
    within = 1e-2 if sync.bound is None else 1e-3
    assert loss_of(other.params, labelled) == pytest.approx(bulk_loss, rel=within)
    history = other.history["loss"].to_pylist()
    assert len(history) == 60
    assert history[-1] == pytest.approx(loss_of(other.params, labelled), rel=1e-2)
    assert history[0] > history[-1]


@pytest.mark.parametrize("sync", SYNCS, ids=repr)
def test_inline_gives_the_same_bits_for_the_same_seed(sync: Stale | Async, labelled: data.Dataset) -> None:
    def bits(seed: int) -> bytes:
        return fit(LogisticDescent(), labelled, engine=Inline(seed), sync=sync, steps=5).params["w"].tobytes()

    assert bits(3) == bits(3)
    assert bits(3) != bits(4)  # or the schedule is not what the seed decides


@pytest.mark.parametrize(
    "engine", [Inline(3, workers=n) for n in (1, 2, 3)] + [Threads(2), Processes(2)], ids=repr
)
def test_pinned_bulk_has_the_bits_of_dynamic_bulk(engine: Engine, labelled: data.Dataset) -> None:
    dynamic = fit(LogisticDescent(), labelled, engine=Inline(), steps=5)
    pinned = fit(LogisticDescent(), labelled, engine=engine, sync=Bulk("pinned"), steps=5)
    assert pinned.params["w"].tobytes() == dynamic.params["w"].tobytes()


class Adagrad(LogisticDescent):
    """The update function on the server: per-key step sizes (Duchi et al., JMLR 2011)."""

    def init(self, meta: Any, rng: Any) -> Any:
        return {**super().init(meta, rng), "squares": np.full(meta.n_features, 1e-8)}

    def delta(self, params: Any, statistic: Any, clock: int) -> Any:
        return {"w": statistic["gradient"] / self.n_rows}

    def apply(self, shard: Any, delta: Any) -> Any:
        shard["squares"][:] += delta["w"] ** 2
        shard["w"][:] -= 0.2 * delta["w"] / np.sqrt(shard["squares"])
        return shard


def test_the_server_applies_the_update_function_of_the_algorithm(
    labelled: data.Dataset, bulk_loss: float
) -> None:
    adagrad = fit(Adagrad(), labelled, engine=Inline(), sync=Stale(1), steps=60)
    assert loss_of(adagrad.params, labelled) == pytest.approx(bulk_loss, rel=1e-2)


def test_what_can_not_be_stale_is_refused_with_the_reason(labelled: data.Dataset, tmp_path: Any) -> None:
    for sync in (Stale(2), Async()):
        with pytest.raises(Refused, match="has no delta"):
            fit(BulkDescent(), labelled, sync=sync, steps=3)
        with pytest.raises(Refused, match="steps="):
            fit(LogisticDescent(), labelled, sync=sync)
        with pytest.raises(Refused, match="checkpoint="):
            fit(LogisticDescent(), labelled, sync=sync, steps=3, checkpoint=tmp_path / "fit")
        with pytest.raises(Refused, match="baseline"):
            fit(LogisticDescent(), labelled, sync=sync, steps=3, baseline=True)
        far = Inline()
        far.prepares = False
        with pytest.raises(Refused, match="ships the parameters once a step"):
            fit(LogisticDescent(), labelled, sync=sync, steps=3, engine=far)


def test_every_engine_is_under_these_laws_or_refuses() -> None:
    own = {one for one in Engine.__subclasses__() if one.__module__.startswith("millstream.")}
    tested = {type(engine) for make in ENGINES.values() for engine in make()}
    assert {engine for engine in own if engine.prepares} == tested
