"""`check_algorithm`: lawful algorithms pass, and one planted for each law is found out, with field and size."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

import millstream.data as data
from millstream.errors import InputError
from millstream.parallel import (
    CONCAT,
    MINLOC,
    MOMENTS,
    NOWHERE,
    QR,
    SPARSE_SUM,
    TOPK,
    Done,
    LawBroken,
    Op,
    Processes,
    Step,
    Threads,
    check_algorithm,
    largest,
    located,
    moments,
    r_factor,
    sparse,
)
from millstream.parallel.algorithm_laws import LAWS

RNG = np.random.default_rng(8)
X = RNG.standard_normal((120, 3))
DATASET = data.from_numpy(X, X @ np.array([1.0, -2.0, 0.5]) + RNG.standard_normal(120))


class Descent:
    """Gradient descent with momentum in the state, and the products of each part kept with it."""

    def init(self, meta, rng):
        return {"w": np.zeros(meta.n_features), "v": np.zeros(meta.n_features), "rows": meta.n_rows}

    def local(self, params, part, ctx):
        if "gram" not in ctx.keep:
            blocks = list(part.blocks())
            ctx.keep["gram"] = sum((b.X.T @ b.X for b in blocks), np.zeros((3, 3)))
            ctx.keep["xty"] = sum((b.X.T @ b.y for b in blocks), np.zeros(3))
        return {"gradient": ctx.keep["gram"] @ params["w"] - ctx.keep["xty"]}

    def update(self, state, statistic):
        v = 0.5 * state["v"] - 0.3 * statistic["gradient"] / state["rows"]
        return {**state, "w": state["w"] + v, "v": v}


@dataclass
class Everything:
    """Every operation at once, in one step."""

    combine: ClassVar = {
        "moments": MOMENTS,
        "R": QR,
        "least": MINLOC,
        "most": TOPK(5),
        "counts": SPARSE_SUM,
        "signs": CONCAT,
    }
    single_pass: ClassVar = True

    def init(self, meta, rng):
        return {"d": meta.n_features}

    def local(self, params, part, ctx):
        rows = np.concatenate([np.empty((0, params["d"])), *(block.X for block in part.blocks())])
        at = np.arange(part.first_row, part.first_row + part.n_rows)
        least = (
            located(rows.min(axis=0), at[rows.argmin(axis=0)])
            if len(rows)
            else located([np.inf] * 3, NOWHERE)
        )
        return {
            "moments": moments(rows),
            "R": r_factor(rows),
            "least": least,
            "most": largest(5, rows[:, 0], at),
            "counts": sparse((rows[:, 1] * 3).astype(int), rows[:, 2]),
            "signs": np.signbit(rows[:, 0]),
        }

    def update(self, state, statistic):
        mean = statistic["moments"][1]
        return Done({**statistic, "moments": statistic["moments"][[0, 1, 3]], "mean": mean})


class Noisy(Descent):
    def local(self, params, part, ctx):
        return {"gradient": super().local(params, part, ctx)["gradient"] + ctx.rng.random(3)}


class Sampled(Descent):
    def plan(self, state):
        return Step(state, rows=0.5)

    def local(self, params, part, ctx):
        blocks = list(part.blocks())
        return {"gradient": sum((b.X.T @ (b.X @ params["w"] - b.y) for b in blocks), np.zeros(3))}


class ListState(Descent):
    """A state that no checkpoint can hold."""

    def init(self, meta, rng):
        return {**super().init(meta, rng), "losses": [0.5]}


NO_PARTS = "any partitioning"


@pytest.mark.parametrize(
    ("algorithm", "not_asked"),
    [
        (Descent(), None),
        (Everything(), None),
        (Noisy(), NO_PARTS),
        (Sampled(), NO_PARTS),
        (ListState(), "resume"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_lawful_algorithms_pass(algorithm: Any, not_asked: str | None) -> None:
    verdicts = check_algorithm(algorithm, DATASET)
    assert list(verdicts) == list(LAWS)
    assert {law for law, verdict in verdicts.items() if verdict != "held"} == ({not_asked} - {None})
    assert not_asked is None or verdicts[not_asked].startswith("not asked: ")


def test_single_precision_is_measured_as_such() -> None:
    narrow = data.from_numpy(X.astype("f4"), DATASET.to_table()["y"].to_numpy().astype("f4"))
    assert set(check_algorithm(Descent(), narrow).values()) == {"held"}
    with pytest.raises(LawBroken, match="any partitioning"):
        check_algorithm(Descent(), narrow, rtol=1e-18)


class WritesParameters(Descent):
    def local(self, params, part, ctx):
        statistic = super().local(params, part, ctx)
        params["w"][1] += 0.25
        return statistic


class WritesRows(Descent):
    def local(self, params, part, ctx):
        for block in part.blocks():
            block.X[0] = 0.0
        return super().local(params, part, ctx)


@dataclass
class Counts(Descent):
    """Remembers in itself how often it was called."""

    calls: list[int] = field(default_factory=list)

    def local(self, params, part, ctx):
        self.calls.append(part.index)
        return {"gradient": super().local(params, part, ctx)["gradient"] + len(self.calls)}


@dataclass
class ReusesItsArray(Descent):
    """Returns one array again and again."""

    buffer: Any = field(default_factory=lambda: np.zeros(3))

    def local(self, params, part, ctx):
        self.buffer[:] = super().local(params, part, ctx)["gradient"]
        return {"gradient": self.buffer}


class NotAssociative(Descent):
    combine: ClassVar = {"gradient": Op("MEAN", lambda left, right: (left + right) / 2)}


def add_into(left: Any, right: Any) -> Any:
    left += right
    return left


class WritesOperand(Descent):
    combine: ClassVar = {"gradient": Op("INTO", add_into)}


class MeansForSums(Descent):
    def local(self, params, part, ctx):
        return {"gradient": super().local(params, part, ctx)["gradient"] / max(1, part.n_rows)}


class FailsWithoutRows(Descent):
    def local(self, params, part, ctx):
        return {"gradient": np.mean([b.X.T @ (b.X @ params["w"] - b.y) for b in part.blocks()], axis=0)[:3]}

    def update(self, state, statistic):
        assert statistic["gradient"].shape == (3,)
        return super().update(state, statistic)


class KnowsItsThread(Descent):
    def local(self, params, part, ctx):
        ahead = threading.current_thread() is threading.main_thread()
        return {"gradient": super().local(params, part, ctx)["gradient"] + ahead}


class TrustsKeep(Descent):
    """Sums up in `keep` what belongs into the state."""

    def local(self, params, part, ctx):
        gradient = super().local(params, part, ctx)["gradient"]
        ctx.keep["sum"] = ctx.keep.get("sum", 0.0) + gradient
        return {"gradient": ctx.keep["sum"]}


class NeedsKeep(Descent):
    def local(self, params, part, ctx):
        if ctx.step == 0:
            ctx.keep["rows"] = sum(len(block) for block in part.blocks())
        return {"gradient": super().local(params, part, ctx)["gradient"] * ctx.keep["rows"]}


@dataclass
class HidesMomentum(Descent):
    """Keeps the optimiser's history in itself, and not in the state."""

    velocity: Any = 0.0

    def update(self, state, statistic):
        self.velocity = 0.5 * self.velocity - 0.3 * statistic["gradient"] / state["rows"]
        return {**state, "w": state["w"] + self.velocity}


@pytest.mark.parametrize(
    ("algorithm", "law", "told"),
    [
        (
            WritesParameters(),
            "local is pure",
            r"part 0, step 0, wrote to its parameters, params\['w'\] differs at 1 by 0.25",
        ),
        (WritesRows(), "local is pure", r"part 0, step 0, wrote to the rows.*read-only"),
        (Counts(), "local is pure", r"called twice, statistic\['gradient'\] differs at \d by \d"),
        (
            ReusesItsArray(),
            "local is pure",
            r"changed after it was returned, statistic\['gradient'\] differs",
        ),
        (
            NotAssociative(),
            "combine is associative",
            r"parts 0 to 2, .*statistic\['gradient'\] differs at \d by",
        ),
        (
            WritesOperand(),
            "combine is associative",
            r"INTO wrote to an operand, statistic\['gradient'\]\[0\] differs",
        ),
        (
            MeansForSums(),
            "any partitioning",
            r"as does statistic\['gradient'\] of step 0\), state\['w'\] differs at",
        ),
        (FailsWithoutRows(), "any partitioning", r"on parts of \[0, 17, 0, 40, \.\.\.\] rows"),
        (KnowsItsThread(), "any width", r"on Threads\(1\) against one worker, state\['w'\] differs at \d by"),
        (
            TrustsKeep(),
            "keep is a cache",
            r"with ctx.keep emptied before 50% of the calls of local, state\['w'\]",
        ),
        (NeedsKeep(), "keep is a cache", r"state differs: raised KeyError: 'rows'"),
        (HidesMomentum(), "resume", r"stopped after step 0 and taken up .*, state\['w'\] differs at \d by"),
        (TrustsKeep(), "killed worker", r"with injected faults: die \(worker 1, step 0\)"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else type(value).__name__,
)
@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value")
def test_a_planted_violation_is_found_out(algorithm: Any, law: str, told: str) -> None:
    with pytest.raises(LawBroken, match=told) as caught:
        check_algorithm(algorithm, DATASET)
    assert law in {violation.law for violation in caught.value.violations}
    assert type(algorithm).__name__ in str(caught.value)
    others = {v.law for v in caught.value.violations} - {law}
    assert others <= {"keep is a cache", "killed worker", "resume", "any partitioning"}, others


def test_how_much_is_told_as_a_number() -> None:
    with pytest.raises(LawBroken) as caught:
        check_algorithm(WritesParameters(), DATASET)
    first = caught.value.violations[0]
    assert (first.law, first.difference.field, first.difference.at, first.difference.by) == (
        "local is pure",
        "params['w']",
        (1,),
        0.25,
    )


class AlwaysFails(Descent):
    def local(self, params, part, ctx):
        raise ZeroDivisionError("no luck")


def test_what_fails_undisturbed_is_raised_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError, match="no luck"):
        check_algorithm(AlwaysFails(), DATASET)
    with pytest.raises(InputError, match="steps=0"):
        check_algorithm(Descent(), DATASET, steps=0)


class Lengths:
    """Over strings, by views."""

    single_pass = True

    def init(self, meta, rng):
        return {"n": 0, "view": 0}

    def plan(self, state):
        return Step(state, ("train", "test")[state["view"]])

    def local(self, params, part, ctx):
        return {"n": np.array(sum(len(s.as_py()) for batch in part.batches() for s in batch["s"]))}

    def update(self, state, statistic):
        after = {"n": int(state["n"] + statistic["n"]), "view": state["view"] + 1}
        return Done(after) if after["view"] == 2 else after


def test_engines_of_ones_own_are_tried_too() -> None:
    assert set(check_algorithm(Descent(), DATASET, engines=[Processes(2)]).values()) == {"held"}
    with pytest.raises(
        LawBroken, match=r"any width: on Processes\(2\) against one worker, state\['w'\] differs"
    ):
        check_algorithm(KnowsItsProcess(), DATASET, engines=[Processes(2)])


@dataclass
class KnowsItsProcess(Descent):
    home: int = os.getpid()

    def local(self, params, part, ctx):
        return {"gradient": super().local(params, part, ctx)["gradient"] + (os.getpid() != self.home)}


def test_views_strings_and_further_engines() -> None:
    views = {name: data.from_arrow(pa.table({"s": list("Millstream")})) for name in ("train", "test")}
    assert set(check_algorithm(Lengths(), views, engines=[Threads(5)]).values()) == {"held"}
