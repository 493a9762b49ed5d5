"""Taking a fit up again: to the same bits, or refused with the reason."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import millstream.data as data
from millstream.clock import ManualClock
from millstream.errors import InputError, Refused, TrainingCheckpointError
from millstream.parallel import Checkpoint, Done, Inline, Meta, StepReport, Threads, fit, located
from millstream.parallel.checkpoint import CheckpointFile, Progress


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


class Ridge:
    """Hyperparameters of every kind, and no dataclass."""

    def __init__(self, alpha=1.0, start=(0.0, 0.0, 0.0), bounds=(0, 1)):
        self.alpha, self.start, self.bounds = alpha, np.array(start), {"w": list(bounds)}

    def init(self, meta, rng):
        return {"w": self.start}

    def local(self, params, part, ctx):
        return {"gradient": sum(b.X.T @ (b.X @ params["w"] - b.y) for b in part.blocks())}

    def update(self, state, statistic):
        return {"w": state["w"] - (statistic["gradient"] + self.alpha * state["w"]) / 1000}


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (Ridge(alpha=1e6), r"hyperparameter alpha is 1000000\.0 here, in the file 1\.0"),
        (Ridge(start=(0.0, 0.0, 1.0)), "hyperparameter start is array of float64"),
        (Ridge(bounds=(0, 2)), "hyperparameter bounds is"),
    ],
    ids=["plain", "array", "nested"],
)
def test_other_hyperparameters_are_refused_and_named(
    other: Ridge, named: str, dataset: data.Dataset, tmp_path: Path
) -> None:
    fit(Ridge(), dataset, checkpoint=tmp_path / "fit.npz", steps=2)
    with pytest.raises(Refused, match=rf"fit\.npz is .* another fit: {named}[^;]*; fit what .*remove it"):
        fit(other, dataset, checkpoint=tmp_path / "fit.npz", steps=4)
    assert fit(Ridge(), dataset, checkpoint=tmp_path / "fit.npz", steps=4).report.resumed_at == 2


@pytest.mark.parametrize("view", ["train", "check"])
def test_other_data_of_the_same_shape_is_refused(view: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((100, 3)), rng.standard_normal(100)
    views = {name: data.from_numpy(X, y, part_rows=9) for name in ("train", "check")}
    fit(Ridge(), views, checkpoint=tmp_path / "fit.npz", steps=2)
    others = {**views, view: data.from_numpy(X + 100, y, part_rows=9)}
    with pytest.raises(Refused, match=f"another fit: data of view '{view}' is sha256"):
        fit(Ridge(), others, checkpoint=tmp_path / "fit.npz", steps=4)


def test_the_same_rows_are_the_same_data_wherever_they_lie(dataset: data.Dataset, tmp_path: Path) -> None:
    columns = dataset.map_batches(lambda batch: batch)
    fit(Ridge(), dataset, checkpoint=tmp_path / "fit.npz", steps=2)
    assert fit(Ridge(), columns, checkpoint=tmp_path / "fit.npz", steps=4).report.resumed_at == 2


def foreign(path: Path, kind: str) -> None:
    if kind == "an array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif kind == "another archive":
        np.savez(path, w=np.zeros(3))
    elif kind == "another record":
        np.savez(path, progress=np.array(json.dumps([1, 2])))
    else:
        np.savez(path, progress=np.array(json.dumps({"format": 2, "identity": 3})))


@pytest.mark.parametrize("kind", ["an array", "another archive", "another record", "a record without all"])
def test_a_foreign_file_is_an_error_that_names_it(kind: str, dataset: data.Dataset, tmp_path: Path) -> None:
    foreign(tmp_path / "fit.npz", kind)
    with pytest.raises(TrainingCheckpointError, match=r"fit\.npz is not a checkpoint .*remove it"):
        fit(Descent(), dataset, checkpoint=tmp_path / "fit.npz")


def test_wherever_a_byte_is_flipped_it_is_noticed_or_harmless(dataset: data.Dataset, tmp_path: Path) -> None:
    path = tmp_path / "fit.npz"
    file = CheckpointFile(
        Checkpoint(path), Ridge(), Meta(3, 100, 12, np.dtype("f8"), dataset.schema), 0, {"train": dataset}
    )
    file.save(Progress(3, {"w": np.arange(3.0)}, False, ()))
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        raw = bytearray(whole)
        raw[place] ^= 0xFF
        path.write_bytes(raw)
        try:
            found = file.load()
        except TrainingCheckpointError:
            continue
        assert found is not None
        assert (found.step, found.state["w"].tolist()) == (3, [0.0, 1.0, 2.0])


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"", lambda raw: b"PK" + raw[:40]]
)
def test_a_torn_file_is_an_error(damage: Any, dataset: data.Dataset, tmp_path: Path) -> None:
    path = tmp_path / "fit.npz"
    fit(Descent(), dataset, checkpoint=path, steps=2)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(TrainingCheckpointError, match="not a checkpoint that can be read"):
        fit(Descent(), dataset, checkpoint=path)


def test_a_flipped_byte_in_an_array_is_noticed(dataset: data.Dataset, tmp_path: Path) -> None:
    path = tmp_path / "fit.npz"
    w = fit(Descent(), dataset, checkpoint=path, steps=2).params["w"]
    raw = bytearray(path.read_bytes())
    raw[raw.index(w.tobytes()) + 3] ^= 1
    path.write_bytes(raw)
    with pytest.raises(TrainingCheckpointError, match="not a checkpoint that can be read"):
        fit(Descent(), dataset, checkpoint=path)


def test_nothing_is_unpickled(dataset: data.Dataset, tmp_path: Path) -> None:
    path = tmp_path / "fit.npz"
    np.savez(path, progress=np.array([{"format": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(TrainingCheckpointError, match="allow_pickle=False"):
        fit(Descent(), dataset, checkpoint=path)


class KeepsAList(Descent):
    def init(self, meta, rng):
        return {**super().init(meta, rng), "losses": [1.0]}


def test_a_state_that_can_not_be_kept_is_refused(dataset: data.Dataset, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="'losses' of the state is of type list"):
        fit(KeepsAList(), dataset, checkpoint=tmp_path / "fit.npz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stopped_after", [0, 2, 3, 6])
def test_with_an_interval_an_error_loses_no_step(
    stopped_after: int, dataset: data.Dataset, tmp_path: Path
) -> None:
    checkpoint = Checkpoint(tmp_path / "fit.npz", every=3)
    with pytest.raises(Killed):
        fit(Descent(), dataset, checkpoint=checkpoint, monitor=stop_after(stopped_after))
    resumed = fit(Descent(), dataset, checkpoint=checkpoint)
    assert resumed.report.resumed_at == stopped_after + 1
    assert resumed.params["w"].tobytes() == fit(Descent(), dataset).params["w"].tobytes()
    assert resumed.history == fit(Descent(), dataset).history


def kept_steps(every: int | timedelta, dataset: data.Dataset, path: Path) -> list[int]:
    """The step the file is at, after each of ten steps of two seconds."""
    clock, steps = ManualClock(), []
    meta = Meta(3, 100, 12, np.dtype("f8"), dataset.schema)
    file = CheckpointFile(Checkpoint(path, every), Descent(), meta, 0, {"train": dataset}, clock)
    for step in range(1, 11):
        clock.advance(timedelta(seconds=2))
        file.after_step(Progress(step, {"w": np.zeros(3)}, False, ()))
        found = file.load()
        steps.append(0 if found is None else found.step)
    return steps


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        (1, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (4, [0, 0, 0, 4, 4, 4, 4, 8, 8, 8]),
        (timedelta(seconds=5), [0, 0, 3, 3, 3, 6, 6, 6, 9, 9]),
    ],
)
def test_kept_after_so_many_steps_or_so_much_time(
    every: int | timedelta, expected: list[int], dataset: data.Dataset, tmp_path: Path
) -> None:
    assert kept_steps(every, dataset, tmp_path / "fit.npz") == expected


@pytest.mark.parametrize("every", [0, -1, timedelta(0)])
def test_an_interval_is_above_zero(every: int | timedelta) -> None:
    with pytest.raises(InputError, match="expected a number of steps or a timedelta"):
        Checkpoint("fit.npz", every)


def test_numpy_and_json_read_the_file(dataset: data.Dataset, tmp_path: Path) -> None:
    fitted = fit(Descent(), dataset, checkpoint=tmp_path / "fit.npz", steps=2)
    with np.load(tmp_path / "fit.npz", allow_pickle=False) as archive:
        assert archive["state/w"].tobytes() == fitted.params["w"].tobytes()
        progress = json.loads(str(archive["progress"]))
    assert (progress["step"], progress["done"], progress["plain"]["name"]) == (2, False, "w")
    assert [step["best"] for step in progress["history"]] == fitted.history["best"].to_pylist()


def test_where_it_can_not_be_written_or_read_the_step_and_the_place_are_named(
    dataset: data.Dataset, tmp_path: Path
) -> None:
    place = tmp_path / "folder"
    (place / "something").mkdir(parents=True)
    meta = Meta(3, 100, 12, np.dtype("f8"), dataset.schema)
    file = CheckpointFile(Checkpoint(place), Descent(), meta, 0, {"train": dataset})
    with pytest.raises(TrainingCheckpointError, match=r"step 3 can't be kept in .*folder"):
        file.save(Progress(3, {"w": np.zeros(3)}, False, ()))
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]
    with pytest.raises(TrainingCheckpointError, match="not a checkpoint that can be read"):
        fit(Descent(), dataset, checkpoint=place)


def test_what_a_killed_writer_left_is_removed_and_nothing_else(dataset: data.Dataset, tmp_path: Path) -> None:
    fit(Descent(), dataset, checkpoint=tmp_path / "fit.npz", steps=2)
    for name in (".fit.npz.0a1b2c3d.unfinished", ".other.npz.0a1b2c3d.unfinished"):
        (tmp_path / name).write_bytes(b"half")
    assert fit(Descent(), dataset, checkpoint=tmp_path / "fit.npz").report.resumed_at == 2
    assert sorted(file.name for file in tmp_path.iterdir()) == [".other.npz.0a1b2c3d.unfinished", "fit.npz"]


class KeepsPairs(Descent):
    """A state with a structured array, as MINLOC, TOPK and SPARSE_SUM make them."""

    def init(self, meta, rng):
        return {**super().init(meta, rng), "best row": located([3.5, np.inf], [7, 1])}


def test_structured_arrays_are_kept(dataset: data.Dataset, tmp_path: Path) -> None:
    fit(KeepsPairs(), dataset, checkpoint=tmp_path / "fit.npz", steps=2)
    resumed = fit(KeepsPairs(), dataset, checkpoint=tmp_path / "fit.npz", steps=3)
    assert resumed.params["best row"].tolist() == [(3.5, 7), (np.inf, 1)]
