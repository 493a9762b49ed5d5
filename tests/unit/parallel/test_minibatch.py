"""Mini-batches: exact in number, fair to every row, and the same whoever draws them."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st

import millstream.data as data
from millstream.errors import InputError
from millstream.parallel import CONCAT, Done, Engine, Fault, Inline, Processes, Step, Threads, fit
from millstream.parallel.minibatch import Minibatch

SIZES = [30, 0, 1, 49, 20]
DATASET = data.from_numpy(np.arange(100.0)[:, None], y=np.arange(100) % 7, part_rows=SIZES)


def drawn(batch: Minibatch, dataset: data.Dataset = DATASET) -> list[int]:
    return [part.first_row + int(row) for part in dataset.parts for row in batch.rows_of(part)]


@settings(deadline=None)
@given(st.integers(1, 100), st.integers(0, 2**64 - 1), st.integers(0, 1000))
def test_exactly_as_many_rows_as_asked_for_each_part_its_share(count: int, seed: int, step: int) -> None:
    batch = Minibatch.of(count, 100, seed, step)
    rows = drawn(batch)
    assert len(set(rows)) == count
    assert rows == sorted(rows)
    for part in DATASET.parts:
        assert abs(len(batch.rows_of(part)) - count * part.n_rows / 100) < 1


def test_a_fraction_is_rounded_to_rows() -> None:
    assert [Minibatch.of(f, 100, 0, 0).count for f in (1.0, 0.126, 0.004)] == [100, 13, 1]
    assert drawn(Minibatch.of(1.0, 100, 0, 0)) == list(range(100))


@pytest.mark.parametrize("rows", [0, 101, -3, 0.0, 1.5, float("nan"), True, "10"])
def test_other_sizes_are_refused(rows: float) -> None:
    with pytest.raises(InputError, match=r"Step\(rows="):
        Minibatch.of(rows, 100, 0, 0)


def test_every_row_is_drawn_equally_often() -> None:
    steps, count = 4000, 7
    seen = np.zeros(100)
    for step in range(steps):
        seen[drawn(Minibatch.of(count, 100, 3, step))] += 1
    expected = steps * count / 100
    statistic = ((seen - expected) ** 2 / (expected * (1 - count / 100))).sum()
    assert 60 < statistic < 150  # chi-squared with 99 degrees of freedom; four standard deviations are 56


def test_steps_seeds_and_parts_draw_for_themselves() -> None:
    same = data.from_numpy(np.zeros((400, 1)), part_rows=100)
    batches = [Minibatch.of(0.2, 400, seed, step) for seed in (0, 1) for step in (0, 1)]
    draws = {tuple(batch.rows_of(part).tolist()) for batch in batches for part in same.parts}
    assert len(draws) == 16


def test_the_part_in_hand_has_only_these_rows_in_every_form() -> None:
    table = pa.table({"a": np.arange(100), "s": [f"row {i}" for i in range(100)], "y": np.arange(100.0)})
    ragged = pa.Table.from_batches(table.to_batches(max_chunksize=13))
    batch = Minibatch.of(40, 100, 5, 2)
    expected = drawn(batch)
    for part in data.from_arrow(ragged, target="y", part_rows=SIZES).parts:
        mine = [row for row in expected if part.first_row <= row < part.first_row + part.n_rows]
        got = batch.within(part)
        assert got.n_rows == len(mine)
        assert got.to_table()["s"].to_pylist() == [f"row {row}" for row in mine]
        numbers = batch.within(part.with_schema(part.schema.with_roles(features=["a"])))
        assert [x for block in numbers.blocks() for x in block.X[:, 0]] == mine
        assert [y for block in numbers.blocks() for y in block.y] == mine


class Rows:
    """Which rows `local` saw, step by step, beside random numbers of its own."""

    combine: ClassVar = {"rows": CONCAT, "noise": CONCAT}

    def init(self, meta, rng):
        return {"step": 0, "rows": np.zeros(0), "noise": np.zeros(0)}

    def plan(self, state):
        return Step(state, rows=25)

    def local(self, params, part, ctx):
        rows = [block.X[:, 0] for block in part.blocks()]
        assert sum(map(len, rows)) == part.n_rows
        return {"rows": np.concatenate([np.zeros(0), *rows]), "noise": ctx.rng.random(1)}

    def update(self, state, statistic):
        both = {name: np.concatenate([state[name], statistic[name]]) for name in ("rows", "noise")}
        after = {"step": state["step"] + 1, **both}
        return Done(after) if after["step"] == 4 else after


@pytest.mark.parametrize(
    "engine",
    [
        Inline(1),
        Inline(2, [Fault(1, 0), Fault(2, 2, "hang")]),
        Threads(1),
        Threads(2),
        Threads(3, faults=[Fault(1, 2)]),
        Processes(2, faults=[Fault(2, 1)]),
    ],
    ids=repr,
)
def test_through_fit_the_same_on_every_engine(engine: Engine) -> None:
    params = fit(Rows(), DATASET, engine=engine, seed=9).params
    expected = [drawn(Minibatch.of(25, 100, 9, step)) for step in range(4)]
    assert params["rows"].reshape(4, 25).tolist() == expected
    assert len({tuple(rows) for rows in expected}) == 4


class AllRows(Rows):
    def plan(self, state):
        return Step(state)


def test_drawing_rows_leaves_the_random_numbers_of_local_as_they_are() -> None:
    with_rows, without = (
        fit(a, DATASET, engine=Inline(), seed=9).params["noise"] for a in (Rows(), AllRows())
    )
    assert with_rows.tolist() == without.tolist()


class Descent:
    """Stochastic gradient descent on a mini-batch a step, without noise in the target: it reaches the solution."""

    def init(self, meta, rng):
        return {"w": np.zeros(meta.n_features), "step": 0}

    def plan(self, state):
        return Step(state, rows=0.1)

    def local(self, params, part, ctx):
        gradient = np.zeros(len(params["w"]))
        for block in part.blocks():
            gradient += block.X.T @ (block.X @ params["w"] - block.y)
        return {"gradient": gradient, "rows": part.n_rows}

    def update(self, state, statistic):
        w = state["w"] - 0.3 * statistic["gradient"] / statistic["rows"]
        return {"w": w, "step": state["step"] + 1}


def test_stochastic_gradient_descent_arrives() -> None:
    rng = np.random.default_rng(0)
    X, w = rng.standard_normal((600, 4)), np.array([1.0, -2.0, 3.0, 0.5])
    dataset = data.from_numpy(X, X @ w, part_rows=90)
    fitted = [
        fit(Descent(), dataset, engine=engine, steps=150).params["w"] for engine in (Inline(), Threads(2))
    ]
    np.testing.assert_allclose(fitted[0], w, rtol=1e-9)
    assert fitted[0].tobytes() == fitted[1].tobytes()
