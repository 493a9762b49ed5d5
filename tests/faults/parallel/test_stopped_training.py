"""A process that trains is interrupted or killed: nothing is left behind, and the checkpoint takes it up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

SCRIPT = """
import os, sys, time
import numpy as np
import millstream.data as data
from millstream.parallel import Checkpoint, Done, Threads, fit

class Descent:
    def init(self, meta, rng):
        return {"w": rng.standard_normal(meta.n_features), "step": 0}

    def local(self, params, part, ctx):
        time.sleep(float(os.environ["PAUSE"]))
        return {"gradient": sum(block.X.T @ (block.X @ params["w"] - block.y) for block in part.blocks())}

    def update(self, state, statistic):
        state = {"w": state["w"] - 1e-3 * statistic["gradient"], "step": state["step"] + 1}
        return Done(state) if state["step"] == 40 else state

def monitor(report):
    print(report.step, flush=True)

rng = np.random.default_rng(0)
dataset = data.from_numpy(rng.standard_normal((600, 5)), rng.standard_normal(600), part_rows=50)
dataset = dataset.map_batches(lambda batch: batch)  # no longer row-major: fit makes a copy
checkpoint = Checkpoint(sys.argv[1], every=int(os.environ["EVERY"]))
result = fit(Descent(), dataset, engine=Threads(2), checkpoint=checkpoint, monitor=monitor)
print("w", result.params["w"].tobytes().hex(), flush=True)
"""


def start(checkpoint: Path, temporary: Path, pause: float, every: int = 1) -> subprocess.Popen[str]:
    temporary.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(checkpoint)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PAUSE": str(pause), "EVERY": str(every), "TMPDIR": str(temporary)},
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("undisturbed")
    out, err = start(path / "fit.npz", path / "tmp", pause=0).communicate(timeout=60)
    assert "w " in out, err
    return out.splitlines()[-1]


def wait_for_step(process: subprocess.Popen[str], step: int) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= step:
            return
    raise AssertionError(f"ended before step {step}: {process.stderr.read() if process.stderr else ''}")


def test_interrupted_it_ends_at_once_and_leaves_nothing_behind(undisturbed: str, tmp_path: Path) -> None:
    process = start(tmp_path / "fit.npz", tmp_path / "tmp", pause=0.02)
    wait_for_step(process, 2)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert time.monotonic() - started < 20
    assert list((tmp_path / "tmp").iterdir()) == []  # the row-major copy is gone
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["fit.npz"]
    out, err = start(tmp_path / "fit.npz", tmp_path / "tmp", pause=0).communicate(timeout=60)
    assert int(out.splitlines()[0]) >= 3, err
    assert out.splitlines()[-1] == undisturbed


@pytest.mark.parametrize("step", np.random.default_rng(5).integers(1, 30, 3))
def test_killed_it_is_taken_up_to_the_same_bits(step: int, undisturbed: str, tmp_path: Path) -> None:
    process = start(tmp_path / "fit.npz", tmp_path / "tmp", pause=0.002)
    wait_for_step(process, step)
    process.kill()
    process.communicate(timeout=30)
    assert list((tmp_path / "tmp").iterdir()) == []  # not even then is the row-major copy left
    out, err = start(tmp_path / "fit.npz", tmp_path / "tmp", pause=0).communicate(timeout=60)
    assert int(out.splitlines()[0]) > step, err
    assert out.splitlines()[-1] == undisturbed


def test_killed_between_two_checkpoints_it_is_taken_up_at_the_former(
    undisturbed: str, tmp_path: Path
) -> None:
    process = start(tmp_path / "fit.npz", tmp_path / "tmp", pause=0.01, every=7)
    wait_for_step(process, 10)
    process.kill()
    rest, _ = process.communicate(timeout=30)
    reached = max([10, *map(int, rest.split())])
    out, err = start(tmp_path / "fit.npz", tmp_path / "tmp", pause=0).communicate(timeout=60)
    assert int(out.splitlines()[0]) in (7, (reached + 1) // 7 * 7, (reached + 2) // 7 * 7), err
    assert out.splitlines()[-1] == undisturbed
