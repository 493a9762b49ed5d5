"""Promise 2: the fitted parameters have the same bytes at any width, on every engine, after any worker's death.

Engines are discovered as subclasses of `Engine`. The data are 37 uneven parts, one of them without rows, with values
over eight decades, so that another order of summation changes the last bits; the last tests show that it does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import threadpoolctl

import millstream.data as data
from millstream.parallel import MPI, Done, Engine, Fault, Inline, Op, Processes, Threads, fit
from millstream.parallel.tree import Statistic

N_PARTS, EMPTY = 37, 11


def uneven_parts() -> data.Dataset:
    rng = np.random.default_rng(20130101)
    rows = rng.integers(1, 400, N_PARTS)
    rows[EMPTY] = 0
    X = rng.standard_normal((rows.sum(), 7)) * 10 ** rng.uniform(-4, 4, (rows.sum(), 1))
    y = X @ rng.standard_normal(7) + rng.standard_normal(len(X))
    return data.from_numpy(X, y, part_rows=rows.tolist())


@dataclass
class GradientDescent:
    """Least squares by gradient steps on standardised features: every bit of a step's sum enters all later steps."""

    steps: int = 6

    def init(self, meta, rng):
        return {"w": rng.standard_normal(meta.n_features), "step": np.array(0)}

    def local(self, params, part, ctx):
        d = len(params["w"])
        gradient, squares, noise = np.zeros(d), np.zeros(d), ctx.rng.standard_normal(d)
        for block in part.blocks():
            gradient += block.X.T @ (block.X @ params["w"] - block.y)
            squares += (block.X**2).sum(axis=0)
        return {"gradient": gradient + noise, "squares": squares, "rows": np.array(part.n_rows)}

    def update(self, state, statistic):
        w = state["w"] - 0.3 * statistic["gradient"] / statistic["squares"]
        step = state["step"] + 1
        return Done({"w": w}) if step == self.steps else {"w": w, "step": step}


def bytes_of(engine: Engine, dataset: data.Dataset) -> bytes:
    return fit(GradientDescent(), dataset, engine=engine, seed=3).params["w"].tobytes()


def faulty(kind: str, workers: int) -> list[Fault]:
    return [Fault(step=2, worker=workers - 1, kind=kind)]


def variants(engine: type[Engine]) -> list[Engine]:
    """The engine at several widths, undisturbed and with a worker that dies or hangs in the middle of a step."""
    if engine is MPI:  # one rank in this process; more of them, and lost ones, in test_mpi.py
        pytest.importorskip("mpi4py")
        return [MPI()]
    deadline = {"die": timedelta(minutes=1), "hang": timedelta(milliseconds=500)}
    made: dict[type[Engine], list[Engine]] = {
        Inline: [Inline(seed, workers=n) for seed in range(4) for n in (1, 2, 3)]
        + [Inline(seed, faulty(kind, n), n) for seed in range(3) for n in (2, 3) for kind in ("die", "hang")],
        Threads: [Threads(n) for n in (1, 2, 3)]
        + [Threads(n, deadline[kind], faulty(kind, n)) for n in (2, 3) for kind in ("die", "hang")],
        Processes: [Processes(n) for n in (1, 2, 3)]
        + [Processes(n, 2 * deadline[kind], faulty(kind, n)) for n in (2, 3) for kind in ("die", "hang")],
    }
    return made[engine]  # a KeyError here: give the new engine its variants


def subclasses(engine: type[Engine]) -> list[type[Engine]]:
    found = engine.__subclasses__()
    return found + [below for one in found for below in subclasses(one)]


def engines() -> list[type[Engine]]:
    """Every engine of the package; the planted ones below are not of it."""
    return [engine for engine in subclasses(Engine) if engine.__module__.startswith("millstream.")]


@pytest.fixture(scope="module")
def dataset() -> data.Dataset:
    return uneven_parts()


@pytest.fixture(scope="module")
def expected(dataset: data.Dataset) -> bytes:
    return bytes_of(Inline(workers=1), dataset)


@pytest.mark.parametrize("engine", engines(), ids=lambda engine: engine.__name__)
def test_same_bytes_at_any_width(engine: type[Engine], dataset: data.Dataset, expected: bytes) -> None:
    different = [variant for variant in variants(engine) if bytes_of(variant, dataset) != expected]
    assert different == []


@pytest.mark.parametrize("kind", ["die", "hang"])
@pytest.mark.parametrize("engine", engines(), ids=lambda engine: engine.__name__)
def test_the_fault_did_strike(engine: type[Engine], kind: str, dataset: data.Dataset) -> None:
    if engine is MPI:
        pytest.skip("a lost rank ends the job: test_mpi.py")
    struck = [
        fit(GradientDescent(), dataset, engine=variant, seed=3).report.lost
        for variant in variants(engine)
        if [fault.kind for fault in variant.faults] == [kind]
    ]
    assert struck
    assert all(len(lost) == 1 for lost in struck)


def test_the_row_major_copy_and_parquet_have_the_bytes_of_memory(
    dataset: data.Dataset, expected: bytes, tmp_path: Any
) -> None:
    dataset.write_parquet(tmp_path / "rows")
    stored = data.read_parquet(tmp_path / "rows", target="y")
    assert [part.n_rows for part in stored.parts] == [part.n_rows for part in dataset.parts]
    assert bytes_of(Threads(2), stored) == expected


class Gram:
    """One large matrix product, which BLAS splits over as many threads as it may use."""

    def init(self, meta, rng):
        return {}

    def local(self, params, part, ctx):
        (block,) = part.blocks()
        return {"gram": block.X.T @ block.X}

    def update(self, state, statistic):
        return Done({"gram": statistic["gram"], "inverse": np.linalg.inv(statistic["gram"])})


def blas_bits(threads: int) -> dict[str, list[bytes]]:
    """Bytes of a matrix product and an inverse, from NumPy alone and from fits, where BLAS is allowed `threads`."""
    X = np.random.default_rng(1).standard_normal((1000, 300))
    dataset = data.from_numpy(X, part_rows=len(X))
    bits: dict[str, list[bytes]] = {}
    with threadpoolctl.threadpool_limits(threads, user_api="blas"):
        bits["numpy"] = [(X.T @ X).tobytes(), np.linalg.inv(X.T @ X).tobytes()]
        for engine in (Inline(), Threads(1), Threads(2)):
            params = fit(Gram(), dataset, engine=engine).params
            bits[repr(engine)] = [params["gram"].tobytes(), params["inverse"].tobytes()]
    return bits


def test_the_number_of_blas_threads_changes_the_bytes_of_numpy_and_not_of_a_fit() -> None:
    one, two = blas_bits(1), blas_bits(2)
    alone = one.pop("numpy")
    if len(os.sched_getaffinity(0)) > 1:
        assert two.pop("numpy") != alone  # or this test shows nothing
    assert all(bits == alone for bits in (*one.values(), *two.values()))


class ArrivalOrder:
    """A planted reduction: adds statistics in the order they come in."""

    def __init__(self) -> None:
        self.total: dict[str, np.ndarray] = {}

    def insert(self, index: int, statistic: Statistic, level: int = 0) -> None:
        for name, array in statistic.items():
            self.total[name] = self.total[name] + array if name in self.total else array

    def result(self) -> Statistic:
        return self.total


class SumsAsTheyCome(Inline):
    def reduction(self, n_parts: int, operations: Mapping[str, Op]) -> ArrivalOrder:
        return ArrivalOrder()


def test_an_engine_that_sums_in_order_of_arrival_is_found_out(dataset: data.Dataset, expected: bytes) -> None:
    seen = {bytes_of(SumsAsTheyCome(seed), dataset) for seed in range(4)}
    assert len(seen) > 1
    assert expected not in seen


class ForgetsItsSeed(GradientDescent):
    """A planted algorithm: `local` draws from a generator of its own."""

    own = np.random.default_rng(1)

    def local(self, params, part, ctx):
        statistic = super().local(params, part, ctx)
        return {**statistic, "gradient": statistic["gradient"] + self.own.standard_normal(7)}


def test_an_algorithm_with_randomness_of_its_own_is_found_out(dataset: data.Dataset) -> None:
    results = {fit(ForgetsItsSeed(), dataset, engine=Inline(seed)).params["w"].tobytes() for seed in (0, 1)}
    assert len(results) == 2
