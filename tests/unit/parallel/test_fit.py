"""`fit` through the door: contract, errors, views, report."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
import threadpoolctl

import millstream.data as data
from millstream.errors import InputError, TrainingError
from millstream.parallel import CONCAT, MAX, Done, Fault, Inline, Processes, Step, StepReport, Threads, fit

IN_PROCESS = [Inline(seed=5), Threads(1), Threads(2)]
ENGINES = [*IN_PROCESS, Processes(2)]


@pytest.fixture
def numbers() -> data.Dataset:
    return data.from_numpy(np.arange(20.0).reshape(10, 2), part_rows=[3, 0, 4, 3])


class Sum:
    def init(self, meta, rng):
        return {"total": np.zeros(meta.n_features), "seen": 0}

    def local(self, params, part, ctx):
        total = np.zeros(len(params["total"]))
        for block in part.blocks():
            total += block.X.sum(axis=0)
        return {"total": total}

    def update(self, state, statistic):
        return Done({"total": statistic["total"]})


@pytest.mark.parametrize("engine", ENGINES, ids=repr)
def test_sum(engine: Any, numbers: data.Dataset) -> None:
    result = fit(Sum(), numbers, engine=engine)
    assert result.params["total"].tolist() == [90.0, 100.0]
    assert result.done


class Endless(Sum):
    def update(self, state, statistic):
        return {"total": state["total"] + statistic["total"], "seen": state["seen"] + 1}

    def measure(self, state, statistic):
        return {"seen": float(state["seen"])}


@pytest.mark.parametrize("engine", ENGINES, ids=repr)
def test_steps_bound_a_fit_that_is_never_done(engine: Any, numbers: data.Dataset) -> None:
    result = fit(Endless(), numbers, engine=engine, steps=4)
    assert not result.done
    assert result.params["total"].tolist() == [360.0, 400.0]
    assert result.history.to_pydict() == {"step": [0, 1, 2, 3], "seen": [1.0, 2.0, 3.0, 4.0]}


class MeasuresNow(Endless):
    def measure(self, state, statistic):
        return {"loss": 0.5} if state["seen"] == 1 else {"loss": 0.25, "rate": state["seen"]}


def test_history_is_a_table_with_nulls_where_nothing_was_measured(numbers: data.Dataset) -> None:
    history = fit(MeasuresNow(), numbers, engine=Inline(), steps=2).history
    assert history.schema == pa.schema({"step": pa.int64(), "loss": pa.float64(), "rate": pa.float64()})
    assert history.to_pydict() == {"step": [0, 1], "loss": [0.5, 0.25], "rate": [None, 2.0]}
    assert fit(Sum(), numbers, engine=Inline()).history.to_pydict() == {"step": [0]}


class MeasuresStep(Endless):
    def measure(self, state, statistic):
        return {"step": 1.0}


def test_a_measure_can_not_take_the_name_of_the_step(numbers: data.Dataset) -> None:
    with pytest.raises(TrainingError, match="another name"):
        fit(MeasuresStep(), numbers, engine=Inline(), steps=2)


def test_monitor_sees_every_step_and_the_report_adds_up(numbers: data.Dataset) -> None:
    seen: list[StepReport] = []
    report = fit(Endless(), numbers, engine=Threads(2), steps=3, monitor=seen.append).report
    assert tuple(seen) == report.steps
    assert [step.step for step in seen] == [0, 1, 2]
    assert report.statistic_bytes == 3 * 4 * 2 * 8
    assert report.workers == 2
    assert report.compute == sum(step.compute for step in seen) > 0
    for step in seen:
        assert step.compute + step.combine + step.wait <= 2 * step.seconds
    assert 0 <= report.share_of_waiting <= 1
    assert "3 steps on Threads(2)" in str(report)


class RaisesInLocal(Sum):
    def local(self, params, part, ctx):
        if part.index == 2:
            raise ZeroDivisionError("no rows to divide by")
        return super().local(params, part, ctx)


@pytest.mark.parametrize("engine", ENGINES, ids=repr)
def test_an_exception_of_local_surfaces_with_its_part_and_step(engine: Any, numbers: data.Dataset) -> None:
    with pytest.raises(ZeroDivisionError, match="no rows") as caught:
        fit(RaisesInLocal(), numbers, engine=engine)
    assert caught.value.__notes__ == ["in local of RaisesInLocal, part 2 of view 'train', step 0"]


class RaisesInUpdate(Sum):
    def update(self, state, statistic):
        raise np.linalg.LinAlgError("Singular matrix")


def test_an_exception_of_update_surfaces_with_its_step(numbers: data.Dataset) -> None:
    with pytest.raises(np.linalg.LinAlgError) as caught:
        fit(RaisesInUpdate(), numbers, engine=Threads(2))
    assert caught.value.__notes__ == ["in update of RaisesInUpdate, step 0"]


class WritesParams(Sum):
    def local(self, params, part, ctx):
        params["total"][:] = 1.0
        return super().local(params, part, ctx)


class WritesBlock(Sum):
    def local(self, params, part, ctx):
        for block in part.blocks():
            block.X[:] = 0.0
        return super().local(params, part, ctx)


@pytest.mark.parametrize("algorithm", [WritesParams(), WritesBlock()], ids=lambda a: type(a).__name__)
def test_parameters_and_rows_can_not_be_written_by_local(algorithm: Any, numbers: data.Dataset) -> None:
    with pytest.raises(ValueError, match="read-only"):
        fit(algorithm, numbers, engine=Threads(2))


class ReturnsArray(Sum):
    def local(self, params, part, ctx):
        return np.zeros(2)


def test_a_statistic_must_have_names(numbers: data.Dataset) -> None:
    with pytest.raises(TrainingError, match="local returned ndarray; expected a mapping"):
        fit(ReturnsArray(), numbers, engine=Inline())


class Spread:
    combine: ClassVar = {"highest": MAX, "parts": CONCAT}

    def init(self, meta, rng):
        return {}

    def local(self, params, part, ctx):
        highest = max((block.X.max() for block in part.blocks()), default=-np.inf)
        return {"highest": highest, "parts": [part.index], "rows": part.n_rows}

    def update(self, state, statistic):
        return Done(statistic)


@pytest.mark.parametrize("engine", ENGINES, ids=repr)
def test_each_field_has_its_own_operation(engine: Any, numbers: data.Dataset) -> None:
    params = fit(Spread(), numbers, engine=engine).params
    assert (params["highest"], params["rows"], params["parts"].tolist()) == (19.0, 10, [0, 1, 2, 3])


class Alternating(Sum):
    def plan(self, state):
        return Step(state, "validation" if state["seen"] else "train")

    def update(self, state, statistic):
        if not state["seen"]:
            return {"total": statistic["total"], "seen": 1}
        return Done({"train": state["total"], "validation": statistic["total"]})


def test_a_plan_chooses_the_view(numbers: data.Dataset) -> None:
    views = {"train": numbers, "validation": data.from_numpy(np.ones((5, 2)))}
    params = fit(Alternating(), views, engine=Threads(2)).params
    assert params["train"].tolist() == [90.0, 100.0]
    assert params["validation"].tolist() == [5.0, 5.0]
    with pytest.raises(InputError, match=r"view 'validation'; the views are \['train'\]"):
        fit(Alternating(), numbers, engine=Inline())


class Keeps(Sum):
    """Counts in `keep` how often each part was seen; the statistic tells."""

    def local(self, params, part, ctx):
        ctx.keep["times"] = ctx.keep.get("times", 0) + 1
        return {"total": np.array([ctx.keep["times"]])}

    def update(self, state, statistic):
        return Done(statistic) if state["seen"] == 2 else {**state, "seen": state["seen"] + 1}


@pytest.mark.parametrize("engine", IN_PROCESS, ids=repr)
def test_keep_stays_with_its_part(engine: Any, numbers: data.Dataset) -> None:
    assert fit(Keeps(), numbers, engine=engine).params["total"].tolist() == [3 * 4]


def test_keep_is_dropped_with_the_worker_that_may_still_write_to_it(numbers: data.Dataset) -> None:
    engine = Threads(2, timedelta(milliseconds=500), [Fault(step=1, worker=0, kind="hang")])
    result = fit(Keeps(), numbers, engine=engine)
    assert result.report.lost == (0,)
    assert result.params["total"].tolist() == [3 * 3 + 2]  # part 0 begins anew in step 1


class Draws(Sum):
    combine: ClassVar = {"draws": CONCAT}

    def local(self, params, part, ctx):
        return {"draws": ctx.rng.integers(0, 2**62, 1)}

    def update(self, state, statistic):
        return Done(statistic)


def test_random_numbers_differ_by_part_and_seed_and_are_repeatable(numbers: data.Dataset) -> None:
    draws = [fit(Draws(), numbers, engine=Threads(2), seed=seed).params["draws"] for seed in (1, 1, 2)]
    assert draws[0].tolist() == draws[1].tolist()
    assert len({*draws[0].tolist(), *draws[2].tolist()}) == 8


class ReadsStrings(Sum):
    single_pass = True

    def init(self, meta, rng):
        assert meta.n_features is None
        return {}

    def local(self, params, part, ctx):
        return {"letters": sum(len(value.as_py()) for batch in part.batches() for value in batch["carrier"])}

    def update(self, state, statistic):
        return Done(statistic)


def test_a_single_pass_reads_the_data_as_they_are() -> None:
    flights = data.from_arrow(pa.table({"carrier": ["UA", "B6", "EV"]}), part_rows=1)
    result = fit(ReadsStrings(), flights, engine=Threads(2))
    assert result.params["letters"] == 6
    with pytest.raises(ValueError, match="encode them first"):
        fit(Sum(), flights, engine=Threads(2))


class BlasThreads(Sum):
    """Reports the threads of BLAS as seen in local and in update."""

    def local(self, params, part, ctx):
        return {"threads": np.array(most_blas_threads())}

    def update(self, state, statistic):
        return Done({"local": statistic["threads"], "update": most_blas_threads()})

    combine: ClassVar = {"threads": MAX}


def most_blas_threads() -> int:
    return max(pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas")


@pytest.mark.parametrize("engine", ENGINES, ids=repr)
def test_blas_has_one_thread_during_a_fit_and_its_own_number_after(
    engine: Any, numbers: data.Dataset
) -> None:
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        assert most_blas_threads() == 2
        params = fit(BlasThreads(), numbers, engine=engine).params
        assert (params["local"], params["update"]) == (1, 1)
        assert most_blas_threads() == 2
        with pytest.raises(ZeroDivisionError):
            fit(RaisesInLocal(), numbers, engine=engine)
        assert most_blas_threads() == 2


def test_what_can_not_run_is_refused(numbers: data.Dataset) -> None:
    with pytest.raises(InputError, match="expected an engine such as"):
        fit(Sum(), numbers, engine="threads")
    with pytest.raises(InputError, match=r"expected Bulk\(\), Stale"):
        fit(Sum(), numbers, sync="async")
    with pytest.raises(InputError, match="steps=0"):
        fit(Sum(), numbers, steps=0)
    with pytest.raises(InputError, match="'train'"):
        fit(Sum(), {"test": numbers})
    with pytest.raises(InputError, match="no rows"):
        fit(Sum(), data.from_numpy(np.zeros((0, 2))))
