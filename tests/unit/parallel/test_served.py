"""What a fit through a parameter server says and does, beside its laws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import millstream.data as data
from millstream.errors import InputError, TrainingError
from millstream.parallel import Async, Bulk, Engine, Inline, Sparse, Stale, Step, Threads, fit

ENGINES = [Inline(1), Threads(2)]


class Count:
    """Counts rows, part by part."""

    def init(self, meta: Any, rng: Any) -> Any:
        return {"rows": np.zeros(meta.n_parts)}

    def local(self, params: Any, part: Any, ctx: Any) -> Any:
        rows = np.zeros(len(params["rows"]))
        rows[part.index] = sum(len(block) for block in part.blocks())
        ctx.keep["times"] = ctx.keep.get("times", 0) + 1
        return {"rows": rows, "times": np.array(ctx.keep["times"])}

    def update(self, state: Any, statistic: Any) -> Any:
        return {"rows": state["rows"] + statistic["rows"]}

    def delta(self, params: Any, statistic: Any, clock: int) -> Any:
        return {"rows": statistic["rows"]}

    def measure(self, state: Any, statistic: Any) -> Any:
        return {"times": float(statistic["times"])}


@pytest.fixture(scope="module")
def parts() -> data.Dataset:
    return data.from_numpy(np.ones((17, 2)), part_rows=[5, 0, 4, 8])


@pytest.mark.parametrize("engine", ENGINES, ids=repr)
def test_the_report_has_a_step_for_each_round(engine: Engine, parts: data.Dataset) -> None:
    seen: list[int] = []
    fitted = fit(
        Count(), parts, engine=engine, sync=Stale(1), steps=4, monitor=lambda report: seen.append(report.step)
    )
    assert fitted.params["rows"].tolist() == [20.0, 0.0, 16.0, 32.0]
    assert seen == [0, 1, 2, 3]
    assert [step.rows for step in fitted.report.steps] == [17] * 4
    assert min(step.seconds for step in fitted.report.steps) > 0
    assert "parameter server: 16 pushes" in fitted.report.text()
    assert fitted.report.to_dict()["traffic"]["pushes"] == 16
    assert not fitted.done


@pytest.mark.parametrize("engine", ENGINES, ids=repr)
def test_what_a_part_kept_is_there_in_its_next_round(engine: Engine, parts: data.Dataset) -> None:
    history = fit(Count(), parts, engine=engine, sync=Stale(2), steps=5).history
    assert history["times"].to_pylist() == [4.0, 8.0, 12.0, 16.0, 20.0]


class Minibatched(Count):
    def plan(self, state: Any) -> Step:
        return Step(state, rows=6)


@pytest.mark.parametrize("engine", ENGINES, ids=repr)
def test_each_round_has_the_minibatch_it_has_in_bulk(engine: Engine, parts: data.Dataset) -> None:
    bulk = fit(Minibatched(), parts, engine=Inline(), steps=5, seed=3)
    stale = fit(Minibatched(), parts, engine=engine, sync=Async(), steps=5, seed=3)
    assert stale.params["rows"].tolist() == bulk.params["rows"].tolist()
    assert [step.rows for step in stale.report.steps] == [6] * 5


class Breaks(Count):
    def __init__(self, where: str) -> None:
        self.where = where

    def local(self, params: Any, part: Any, ctx: Any) -> Any:
        if self.where == "local" and (part.index, ctx.step) == (2, 1):
            raise ZeroDivisionError("by design")
        return super().local(params, part, ctx)

    def delta(self, params: Any, statistic: Any, clock: int) -> Any:
        if self.where == "delta":
            raise ZeroDivisionError("by design")
        if self.where == "type":
            return [1.0]
        if self.where == "name":
            return {"columns": np.zeros(4)}
        if self.where == "shape":
            return {"rows": np.zeros(3)}
        if self.where == "key":
            return {"rows": Sparse([1, 4], [1.0, 1.0])}
        return super().delta(params, statistic, clock)

    def apply(self, shard: Any, delta: Any) -> Any:
        if self.where == "apply":
            raise ZeroDivisionError("by design")
        shard["rows"][:] += delta["rows"]
        return shard

    def measure(self, state: Any, statistic: Any) -> Any:
        if self.where == "measure":
            raise ZeroDivisionError("by design")
        return {}


@pytest.mark.parametrize("engine", ENGINES, ids=repr)
@pytest.mark.parametrize("where", ["local", "delta", "apply", "measure"])
def test_errors_come_out_as_they_went_in(engine: Engine, where: str, parts: data.Dataset) -> None:
    with pytest.raises(ZeroDivisionError, match="by design") as caught:
        fit(Breaks(where), parts, engine=engine, sync=Stale(1), steps=3)
    if where in ("local", "delta"):
        assert f"in {where} of Breaks, part" in caught.value.__notes__[0]


@pytest.mark.parametrize("engine", ENGINES, ids=repr)
@pytest.mark.parametrize(
    ("where", "reason"),
    [("type", "returned list"), ("name", "columns"), ("shape", "shape"), ("key", "key 4")],
)
def test_a_delta_that_does_not_fit_ends_the_fit(
    engine: Engine, where: str, reason: str, parts: data.Dataset
) -> None:
    with pytest.raises(TrainingError, match=reason):
        fit(Breaks(where), parts, engine=engine, sync=Stale(1), steps=3)


def test_a_monitor_that_raises_ends_the_fit(parts: data.Dataset) -> None:
    def full(report: Any) -> None:
        raise OSError("disk full")

    for engine in ENGINES:
        with pytest.raises(OSError, match="disk full"):
            fit(Count(), parts, engine=engine, sync=Stale(1), steps=3, monitor=full)


def test_params_are_read_only_and_named_arrays(parts: data.Dataset) -> None:
    class Writes(Count):
        def local(self, params: Any, part: Any, ctx: Any) -> Any:
            params["rows"][0] = 9.0
            return super().local(params, part, ctx)

    with pytest.raises(ValueError, match="read-only"):
        fit(Writes(), parts, engine=Inline(), sync=Stale(1), steps=2)

    class NoNames(Count):
        def init(self, meta: Any, rng: Any) -> Any:
            return np.zeros(3)

    with pytest.raises(InputError, match="mapping of names"):
        fit(NoNames(), parts, engine=Inline(), sync=Stale(1), steps=2)


def test_syncs_say_what_is_wrong_with_them(parts: data.Dataset) -> None:
    for make, reason in [
        (lambda: Stale(-1), "bound=-1"),
        (lambda: Stale(0.5), "bound=0.5"),
        (lambda: Stale(True), "bound=True"),
        (lambda: Stale(1, "both"), "assign='both'"),
        (lambda: Async("both"), "assign='both'"),
        (lambda: Bulk("both"), "assign='both'"),
        (lambda: Stale(1, insignificant=-1.0), "insignificant=-1.0"),
        (lambda: Async(insignificant=float("nan")), "insignificant=nan"),
    ]:
        with pytest.raises(InputError, match=reason):
            make()
    with pytest.raises(InputError, match=r"expected Bulk\(\), Stale"):
        fit(Count(), parts, sync=Stale, steps=2)


def test_insignificant_updates_are_fewer_bytes_and_add_up(parts: data.Dataset) -> None:
    everything = fit(Count(), parts, engine=Inline(), sync=Stale(1), steps=8)
    held_back = fit(Count(), parts, engine=Inline(), sync=Stale(1, insignificant=20.0), steps=8)
    assert held_back.params["rows"].tolist() == everything.params["rows"].tolist()
    assert held_back.report.traffic.pushed_bytes < everything.report.traffic.pushed_bytes / 2
