"""MPI keeps the bytes of Inline at every number of ranks; a fault on one rank ends every rank, with the reason.

Each test runs one script under ``mpiexec -n N``; what every rank saw comes back as JSON.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from math import fsum
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pytest

import millstream.data as data
from millstream.errors import InputError, Refused
from millstream.parallel import MPI, Done, Inline, fit, mpi

MPIEXEC = Path(sys.executable).with_name("mpiexec")
LAUNCHER = str(MPIEXEC) if MPIEXEC.exists() else shutil.which("mpiexec")

if importlib.util.find_spec("mpi4py") is None or LAUNCHER is None:
    pytest.skip("mpi4py or mpiexec is missing: pip install 'millstream[mpi]'", allow_module_level=True)

RANKS = (1, 2, 3)
TWO_PARTS = [3, 4]


def uneven_parts() -> data.Dataset:
    """37 parts, one without rows, values over eight decades: another order of summation changes the last bits."""
    rng = np.random.default_rng(20130101)
    rows = rng.integers(1, 400, 37)
    rows[11] = 0
    X = rng.standard_normal((rows.sum(), 7)) * 10 ** rng.uniform(-4, 4, (rows.sum(), 1))
    return data.from_numpy(X, X @ rng.standard_normal(7), part_rows=rows.tolist())


@dataclass
class GradientDescent:
    """Least squares by gradient steps: every bit of a step's sum enters all later steps."""

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
        w, step = state["w"] - 0.3 * statistic["gradient"] / statistic["squares"], state["step"] + 1
        return Done({"w": w}) if step == self.steps else {"w": w, "step": step}


class Total:
    """The sums of the columns, in one step."""

    def init(self, meta, rng):
        return {}

    def local(self, params, part, ctx):
        return {"sum": sum((block.X.sum(axis=0) for block in part.blocks()), np.zeros(7))}

    def update(self, state, statistic):
        return Done({"sum": statistic["sum"]})


def fitted(engine: Any) -> dict[str, str]:
    """Bytes of what is fitted, in hexadecimal."""
    from millstream.learn import (
        KMeans,
        LogisticRegression,
    )  # not in scripts that don't need it: it takes long

    dataset = uneven_parts()
    rows = np.concatenate([block.X for part in dataset.parts for block in part.blocks()])
    few = data.from_numpy(rows[:7], rows[:7, 0], part_rows=TWO_PARTS)
    table = data.from_numpy(rows, part_rows=[part.n_rows for part in dataset.parts])
    label = data.from_numpy(rows, (rows[:, 0] > 0).astype("i8"), part_rows=500)
    found = {
        "planted": fit(GradientDescent(), dataset, engine=engine, seed=3).params["w"],
        "fewer parts than ranks": fit(GradientDescent(), few, engine=engine).params["w"],
        "KMeans": KMeans(5, engine=engine, random_state=1).fit(table).cluster_centers_,
        "LogisticRegression": LogisticRegression(engine=engine).fit(label).coef_,
    }
    return {name: array.tobytes().hex() for name, array in found.items()}


PROLOGUE = """
import json, os, pathlib, signal, sys
from datetime import timedelta
sys.path.insert(0, {tests!r})
from millstream.parallel import MPI, Op, fit, materialize, regroup
from test_mpi import GradientDescent, Total, fitted, uneven_parts
engine = MPI()
def tell(seen):
    pathlib.Path(sys.argv[1], f"{{engine.rank}}.json").write_text(json.dumps(seen))
"""


def launch(ranks: int, script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    file = folder / "script.py"
    file.write_text(PROLOGUE.format(tests=str(Path(__file__).parent)) + script)
    assert LAUNCHER is not None
    command = [LAUNCHER, "-n", str(ranks), sys.executable, str(file), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=folder)


def seen_by_all(ranks: int, script: str, folder: Path) -> list[Any]:
    done = launch(ranks, script, folder)
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]


def gone(pid: int) -> bool:
    """The process ends within ten seconds; its parent may have ended first."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        sleep(0.1)
    return False


@pytest.fixture(scope="module")
def expected() -> dict[str, str]:
    return fitted(Inline(workers=1))


BYTES = """
seen = fitted(engine)
seen["map"] = engine.map(str, range(10))
result = fit(Total(), uneven_parts(), engine=engine)
seen["native"] = fit(Total(), uneven_parts(), engine=MPI("native")).params["sum"].tolist()
seen["tree"] = result.params["sum"].tolist()
step = result.report.steps[0]
seen["report"] = [result.report.workers, step.compute, step.wait, step.statistic_bytes]
kept = pathlib.Path(sys.argv[1], f"kept{engine.rank}.npz")
fit(GradientDescent(), uneven_parts(), engine=engine, seed=3, checkpoint=kept, steps=2)
again = fit(GradientDescent(), uneven_parts(), engine=engine, seed=3, checkpoint=kept)
seen["resumed"] = [again.report.resumed_at, again.params["w"].tobytes().hex()]
tell(seen)
"""


@pytest.mark.parametrize("ranks", RANKS)
def test_every_rank_has_the_bytes_of_inline(ranks: int, expected: dict[str, str], tmp_path: Path) -> None:
    dataset = uneven_parts()
    parts = [sum((block.X.sum(axis=0) for block in part.blocks()), np.zeros(7)) for part in dataset.parts]
    exact = np.array([fsum(column) for column in np.array(parts).T])
    u = (len(parts) - 1) * 2.0**-53
    bound = u / (1 - u) * np.abs(parts).sum(axis=0)
    for seen in seen_by_all(ranks, BYTES, tmp_path):
        assert {name: seen[name] for name in expected} == expected
        assert seen["map"] == [str(i) for i in range(10)]
        assert (np.abs(seen["native"] - exact) <= bound).all()
        assert (seen["native"] == seen["tree"]) == (
            ranks == 1
        )  # else MPI has not added in an order of its own
        assert seen["resumed"] == [2, expected["planted"]]
        workers, compute, wait, nbytes = seen["report"]
        assert (workers, nbytes) == (ranks, 37 * 7 * 8)
        assert compute > 0
        assert wait >= 0
    assert [file.name for file in tmp_path.glob("*.npz")] == ["kept0.npz"]


ERRORS = """
class Unsendable(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")

class Raises(GradientDescent):
    def local(self, params, part, ctx):
        if part.index == 30 and ctx.step == 2:
            raise self.error
        return super().local(params, part, ctx)

border = sum(part.n_rows for part in uneven_parts().parts[24:26])  # which meet on rank 1, coming from 1 and 2

def fail(left, right):
    if left + right == border:
        raise ArithmeticError("these two don't combine")
    return left + right

class DoesNotCombine(GradientDescent):
    combine = {"rows": Op("FAIL", fail)}

def caught(act):
    try:
        act()
    except Exception as error:
        return [type(error).__name__, str(error), *getattr(error, "__notes__", ())]

def on_last_rank(report):
    if engine.rank == engine.n_workers - 1 and report.step == 1:
        raise KeyError("monitor")

def train(algorithm, **arguments):
    return lambda: fit(algorithm, uneven_parts(), engine=engine, seed=3, **arguments)

sends, does_not = Raises(), Raises()
sends.error, does_not.error = ValueError("part 30 is bad"), Unsendable(1, 2)
folder = pathlib.Path(sys.argv[1], "a folder, not a file")
folder.mkdir(exist_ok=True)
seen = {
    "part": caught(train(sends)),
    "unsendable": caught(train(does_not)),
    "combine": caught(train(DoesNotCombine())),
    "monitor": caught(train(GradientDescent(), monitor=on_last_rank)),
    "load": caught(train(GradientDescent(), checkpoint=folder)),
    "disagree": caught(train(GradientDescent(steps=3 + engine.rank))),
    "shuffle": caught(lambda: regroup(uneven_parts(), "X", engine=engine)),
    "materialize": caught(lambda: materialize(uneven_parts(), engine=engine)),
    "answer": caught(lambda: engine.map(lambda task: (lambda: task), range(3))),
}
seen["after all that"] = train(GradientDescent())().params["w"].tobytes().hex()
tell(seen)
"""


def test_an_error_on_one_rank_is_raised_on_all(expected: dict[str, str], tmp_path: Path) -> None:
    for rank, seen in enumerate(seen_by_all(3, ERRORS, tmp_path)):
        assert seen["part"][:2] == ["ValueError", "part 30 is bad"]
        assert seen["part"][2] == "in local of Raises, part 30 of view 'train', step 2"
        assert seen["unsendable"][0] == ("Unsendable" if rank == 2 else "TrainingError")
        assert "1 and 2" in seen["unsendable"][1]
        assert seen["combine"][:2] == ["ArithmeticError", "these two don't combine"]
        assert seen["monitor"][:2] == ["KeyError", "'monitor'"]
        assert seen["load"][0] == "TrainingCheckpointError"
        assert seen["disagree"][0] == "TrainingError"
        assert "rank 0 is at the end; rank 1 is at step 3" in seen["disagree"][1]
        assert seen["answer"][0] == seen["shuffle"][0] == seen["materialize"][0] == "Refused"
        assert seen["after all that"] == expected["planted"]


FAULT = """
local = GradientDescent.local

def suffers(self, params, part, ctx):
    if engine.rank == 1 and ctx.step == 3:
        pathlib.Path(sys.argv[1], "pid").write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIG{signal})
    return local(self, params, part, ctx)

GradientDescent.local, GradientDescent.__module__ = suffers, {module!r}
patient = MPI(deadline=timedelta(seconds={deadline}))
fit(GradientDescent(), uneven_parts(), engine=patient, seed=3, checkpoint=pathlib.Path(sys.argv[1], "kept.npz"))
"""


@pytest.mark.parametrize(
    ("signal", "deadline", "message"),
    [
        ("KILL", 60, "(signal 9)"),
        ("STOP", 8, "rank 0 has waited 8 seconds for rank 1 at step 3 of 37 parts"),
    ],
)
def test_a_lost_rank_ends_the_job_and_leaves_a_checkpoint(
    signal: str, deadline: int, message: str, expected: dict[str, str], tmp_path: Path
) -> None:
    done = launch(2, FAULT.format(signal=signal, deadline=deadline, module=__name__), tmp_path)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
    assert gone(int((tmp_path / "pid").read_text()))
    again = fit(GradientDescent(), uneven_parts(), engine=Inline(), seed=3, checkpoint=tmp_path / "kept.npz")
    assert again.report.resumed_at == 3
    assert again.params["w"].tobytes().hex() == expected["planted"]


def test_without_mpi4py_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    mpi._world.cache_clear()
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(Refused, match=r"pip install 'millstream\[mpi\]'"):
        MPI()


@pytest.mark.parametrize("make", [lambda: MPI("sum"), lambda: MPI(deadline=timedelta(0))])  # type: ignore[arg-type]
def test_values_that_make_no_sense_are_refused(make: Callable[[], MPI]) -> None:
    with pytest.raises(InputError):
        make()


def test_inside_a_part_there_is_one_worker() -> None:
    assert MPI().map(lambda task: MPI().map(abs, [task, -task]), [1, 2]) == [[1, 1], [2, 2]]
