"""Taking a fit up again: to the same bits, or refused with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import millstream.data as data
from millstream.errors import Refused, TrainingError
from millstream.parallel import Done, Inline, StepReport, Threads, fit


@dataclass
class Descent:
    """Gradient steps with noise; the state holds arrays and plain values of every kind."""

    rate: float = 0.1
    steps: int = 8

    def init(self, meta, rng):
        return {
            "w": rng.standard_normal(meta.n_features),
            "step": 0,
            "best": float("inf"),
            "name": "w",
            "none": None,
        }

    def local(self, params, part, ctx):
        noise = ctx.rng.standard_normal(len(params["w"]))
        return {"gradient": noise + sum(b.X.T @ (b.X @ params["w"] - b.y) for b in part.blocks())}

    def update(self, state, statistic):
        w = state["w"] - self.rate * statistic["gradient"] / 100
        best = min(state["best"], float(np.abs(statistic["gradient"]).max()))
        after = {**state, "w": w, "step": state["step"] + 1, "best": best}
        return Done(after) if after["step"] == self.steps else after

    def measure(self, state, statistic):
        return {"best": state["best"]}


@pytest.fixture(scope="module")
def dataset() -> data.Dataset:
    rng = np.random.default_rng(0)
    return data.from_numpy(rng.standard_normal((100, 3)), rng.standard_normal(100), part_rows=9)


class Killed(Exception):
    pass


def stop_after(step: int) -> Any:
    def monitor(report: StepReport) -> None:
        if report.step == step:
            raise Killed

    return monitor


@pytest.mark.parametrize("stopped_after", range(7))
def test_taken_up_after_any_step_it_ends_at_the_same_bits(
    stopped_after: int, dataset: data.Dataset, tmp_path: Path
) -> None:
    path = tmp_path / "deep" / "fit.npz"
    undisturbed = fit(Descent(), dataset, engine=Inline())
    with pytest.raises(Killed):
        fit(Descent(), dataset, engine=Threads(2), checkpoint=path, monitor=stop_after(stopped_after))
    resumed = fit(Descent(), dataset, engine=Threads(1), checkpoint=path)
    assert resumed.report.resumed_at == stopped_after + 1
    assert len(resumed.report.steps) == 7 - stopped_after
    assert resumed.params["w"].tobytes() == undisturbed.params["w"].tobytes()
    assert {**resumed.params, "w": None} == {**undisturbed.params, "w": None}
    assert resumed.history == undisturbed.history


def test_a_fit_that_is_done_is_not_done_again(dataset: data.Dataset, tmp_path: Path) -> None:
    first = fit(Descent(), dataset, checkpoint=tmp_path / "fit.npz")
    second = fit(Descent(), dataset, checkpoint=tmp_path / "fit.npz")
    assert second.done
    assert second.report.steps == ()
    assert second.params["w"].tobytes() == first.params["w"].tobytes()


def test_steps_counts_from_the_beginning(dataset: data.Dataset, tmp_path: Path) -> None:
    fit(Descent(), dataset, checkpoint=tmp_path / "fit.npz", steps=3)
    again = fit(Descent(), dataset, checkpoint=tmp_path / "fit.npz", steps=5)
    assert [step.step for step in again.report.steps] == [3, 4]


@pytest.mark.parametrize(
    "other",
    [
        {"algorithm": Descent(rate=0.2)},
        {"dataset": data.from_numpy(np.zeros((100, 3)), np.zeros(100), part_rows=10)},
        {"seed": 1},
    ],
    ids=["algorithm", "parts", "seed"],
)
def test_the_checkpoint_of_another_fit_is_refused(other: dict, dataset: data.Dataset, tmp_path: Path) -> None:
    fit(Descent(), dataset, checkpoint=tmp_path / "fit.npz", steps=2)
    with pytest.raises(Refused, match="the checkpoint of another fit"):
        fit(**{"algorithm": Descent(), "dataset": dataset, "checkpoint": tmp_path / "fit.npz", **other})


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"", lambda raw: b"PK" + raw[:40]]
)
def test_a_torn_file_is_an_error(damage: Any, dataset: data.Dataset, tmp_path: Path) -> None:
    path = tmp_path / "fit.npz"
    fit(Descent(), dataset, checkpoint=path, steps=2)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(TrainingError, match="not a checkpoint that can be read"):
        fit(Descent(), dataset, checkpoint=path)


def test_a_flipped_byte_in_an_array_is_noticed(dataset: data.Dataset, tmp_path: Path) -> None:
    path = tmp_path / "fit.npz"
    w = fit(Descent(), dataset, checkpoint=path, steps=2).params["w"]
    raw = bytearray(path.read_bytes())
    raw[raw.index(w.tobytes()) + 3] ^= 1
    path.write_bytes(raw)
    with pytest.raises(TrainingError, match="not a checkpoint that can be read"):
        fit(Descent(), dataset, checkpoint=path)


def test_nothing_is_unpickled(dataset: data.Dataset, tmp_path: Path) -> None:
    path = tmp_path / "fit.npz"
    np.savez(path, progress=np.array([{"format": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(TrainingError, match="allow_pickle=False"):
        fit(Descent(), dataset, checkpoint=path)


class KeepsAList(Descent):
    def init(self, meta, rng):
        return {**super().init(meta, rng), "losses": [1.0]}


def test_a_state_that_can_not_be_kept_is_refused(dataset: data.Dataset, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="'losses' of the state is of type list"):
        fit(KeepsAList(), dataset, checkpoint=tmp_path / "fit.npz")
    assert list(tmp_path.iterdir()) == []
