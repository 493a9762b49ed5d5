"""What the report says of a fit: figures that follow from the steps, as text, dict and picture."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import millstream.data as data
from millstream.parallel import Done, Inline, Limits, Report, Step, StepReport, Threads, fit

LIMITS = Limits(sgemm=100e9, bandwidth=10e9)


def step(number: int = 0, **other: Any) -> StepReport:
    figures: dict[str, Any] = {"seconds": 2.0, "compute": 3.0, "combine": 0.2, "wait": 0.4, "update": 0.2}
    return StepReport(number, "train", statistic_bytes=800, **{**figures, **other})


def report(*steps: StepReport, **other: Any) -> Report:
    return Report("Threads(2)", 2, 4.5, 0.5, steps, **other)


def test_speedup_from_the_time_in_local() -> None:
    two = report(step(0), step(1, seconds=1.0, compute=1.5))
    assert two.speedup == pytest.approx((3.2 + 0.2 + 1.7 + 0.2) / 3.0)
    assert two.efficiency == two.speedup / 2
    assert report().speedup == 1.0


def test_against_a_measured_worker_the_time_lost_to_each_other_does_not_count() -> None:
    kind, measured = report(step(0)), report(step(0), one_worker=1.6)  # workers beside each other took 3.2
    assert kind.speedup == pytest.approx(3.4 / 2)
    assert measured.speedup == pytest.approx((1.6 + 0.2) / 2)
    later = report(step(0), step(1), one_worker=1.6)
    assert later.speedup == pytest.approx(measured.speedup)


def test_shares_of_the_limits() -> None:
    counted = report(step(0, block_bytes=6e9, flops=240e9), step(1, block_bytes=6e9, flops=60e9))
    assert counted.share_of_bandwidth(LIMITS) == pytest.approx(12e9 / 6 / 10e9)
    assert counted.share_of_sgemm(LIMITS) == pytest.approx(300e9 / 6 / 100e9)
    assert report(step(0)).share_of_sgemm(LIMITS) is None
    assert report().share_of_bandwidth(LIMITS) == 0.0


def test_text_shows_every_step_or_the_first_and_last_ten() -> None:
    text = report(*map(step, range(3)), one_worker=1.6).text(LIMITS)
    assert "speedup 0.90, efficiency 45% (against one worker, measured)" in text
    assert "sgemm 100 GFLOP/s, reading memory 10.0 GB/s; local at 0% of the bandwidth" in text
    assert len(text.splitlines()) == 4 + 3
    assert "lost [1]" in report(step(0, lost=(1,))).text(LIMITS)
    assert len(report(*map(step, range(50))).text(LIMITS).splitlines()) == 4 + 21


def test_dict_is_ready_for_json() -> None:
    record = report(step(0, lost=(1,), measures={"loss": 0.5})).to_dict(LIMITS)
    assert json.loads(json.dumps(record)) == record
    assert record["limits"] == {"sgemm": 100e9, "bandwidth": 10e9}
    assert record["steps"][0]["measures"] == {"loss": 0.5}
    assert record["lost"] == [1]
    assert record["speedup"] == pytest.approx(1.7)


@pytest.mark.parametrize("n", [0, 1, 450])
def test_the_picture(n: int, tmp_path: Path) -> None:
    report(*map(step, range(n))).plot(tmp_path / "scaling.svg")
    root = ElementTree.parse(tmp_path / "scaling.svg").getroot()
    patches = [e.get("id") for e in root.iter() if (e.get("id") or "").startswith("patch_")]
    assert len(patches) >= 4 * min(n, 150)  # a bar a step and kind, or a bar for a run of three
    report(step(0)).plot(tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_matplotlib_is_imported_by_the_first_plot_alone() -> None:
    code = (
        "import sys, millstream.parallel; assert not [m for m in sys.modules if m.startswith('matplotlib')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


class Gram:
    def __init__(self) -> None:
        self.calls: list[int] = []

    def init(self, meta, rng):
        return {"step": 0}

    def plan(self, state):
        return Step(state, rows=None if state["step"] == 0 else 100)

    def local(self, params, part, ctx):
        self.calls.append(part.index)
        assert ctx.keep.setdefault("step", ctx.step) <= ctx.step
        return {"gram": sum(block.X.T @ block.X for block in part.blocks())}

    def update(self, state, statistic):
        return Done(dict(statistic)) if state["step"] == 1 else {"step": 1}

    def flops(self, params, n_rows):
        return 2 * n_rows * 8 * 8


def test_a_fit_counts_rows_bytes_and_operations() -> None:
    X = np.random.default_rng(0).standard_normal((400, 8)).astype("f4")
    first, second = fit(Gram(), data.from_numpy(X, part_rows=100), engine=Threads(2)).report.steps
    assert (first.rows, first.block_bytes, first.flops) == (400, 400 * 8 * 4, 2 * 400 * 64)
    assert (second.rows, second.block_bytes, second.flops) == (100, 100 * 8 * 4, 2 * 100 * 64)


def test_the_baseline_runs_the_first_step_twice_more_and_changes_no_bit() -> None:
    dataset = data.from_numpy(np.random.default_rng(0).standard_normal((400, 8)), part_rows=100)
    algorithm = Gram()
    measured = fit(algorithm, dataset, engine=Threads(2), baseline=True)
    assert len(algorithm.calls) == 4 * (2 + 2)
    assert measured.report.one_worker is not None
    assert 0 < measured.report.one_worker < 60
    plain = fit(Gram(), dataset, engine=Inline())
    assert plain.report.one_worker is None
    assert plain.params["gram"].tobytes() == measured.params["gram"].tobytes()
