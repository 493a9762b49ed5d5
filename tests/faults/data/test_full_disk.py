"""A write that does not fit: an error, nothing half-written left, and what was there before still there.

A limit on the size of a file (RLIMIT_FSIZE) stands for the full disk; the process that has it is a child.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROLOGUE = """
import resource, sys
from pathlib import Path
import numpy as np
import pyarrow as pa
import millstream.data as data
from millstream.parallel import Inline, fit

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

class Grows:
    def init(self, meta, rng):
        return {"w": np.zeros(1)}

    def local(self, params, part, ctx):
        return {"n": part.n_rows}

    def update(self, state, statistic):
        return {"w": np.zeros(100 * len(state["w"]))}

place = Path(sys.argv[1])
columns = {f"x{i}": np.random.default_rng(i).random(100_000) for i in range(4)}
dataset = data.from_arrow(pa.table(columns), part_rows=1000)
"""
SMALL = "limit(16_000)\n"


def run(script: str, place: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROLOGUE + script, str(place)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "write",
    ["dataset.write_parquet(place / 'out')", "dataset.persist(place)"],
    ids=["write_parquet", "persist"],
)
def test_nothing_half_written_is_left(write: str, tmp_path: Path) -> None:
    failed = run(SMALL + write, tmp_path)
    assert failed.returncode == 1
    assert "OSError" in failed.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
    assert run(write, tmp_path).returncode == 0


def test_the_checkpoint_of_the_step_before_is_still_there(tmp_path: Path) -> None:
    fits = "fit(Grows(), data.from_numpy(np.ones((9, 1))), engine=Inline(), checkpoint=place / 'fit.npz', steps={})\n"
    failed = run(SMALL + fits.format(3), tmp_path)
    assert failed.returncode == 1
    assert "TrainingCheckpointError" in failed.stderr.splitlines()[-1]
    assert [file.name for file in tmp_path.iterdir()] == ["fit.npz"]
    resumed = run("print(" + fits.format(2).strip() + ".report.resumed_at)", tmp_path)
    assert resumed.stdout.strip() == "1", resumed.stderr
