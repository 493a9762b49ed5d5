"""Laws of the engine Ray, over one local cluster: the bytes of `Inline` at any width, whoever is lost on the way.

The cluster is started for this module and ended after it, which is a law of its own: no process and no file is left.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import millstream.data as data
from millstream.errors import InputError, Refused
from millstream.learn import KMeans, LogisticRegression
from millstream.parallel import Done, Engine, Fault, Inline, fit
from millstream.parallel.local import Setting
from millstream.parallel.ray import Ray
from millstream.parallel.ray_worker import Packet

N_PARTS, EMPTY = 37, 11


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of the cluster."""
    pytest.importorskip("ray")
    from millstream.parallel import ray_cluster

    with Ray(2, object_store_memory=100_000_000):
        directory = Path(str(ray_cluster._connection.directory))
        yield directory
    until = time.monotonic() + 10
    while named(directory) and time.monotonic() < until:
        time.sleep(0.1)
    assert named(directory) == []
    assert not directory.exists()


def named(directory: Path) -> list[str]:
    """Processes that have the directory in their command line or environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(directory).encode() in (process / "cmdline").read_bytes():
                found.append(process.name)
        except OSError:  # it has ended
            continue
    return found


class GradientDescent:
    """Every bit of a step's sum enters all later steps; counts in `keep` how often a part came back."""

    def __init__(self, steps: int = 6, bad: int | None = None) -> None:
        self.steps, self.bad = steps, bad

    def init(self, meta: Any, rng: Any) -> Any:
        return {"w": rng.standard_normal(meta.n_features), "step": np.array(0)}

    def local(self, params: Any, part: Any, ctx: Any) -> Any:
        if part.index == self.bad:
            raise ValueError("this part is broken")
        d = len(params["w"])
        gradient, squares, noise = np.zeros(d), np.zeros(d), ctx.rng.standard_normal(d)
        for block in part.blocks():
            gradient += block.X.T @ (block.X @ params["w"] - block.y)
            squares += (block.X**2).sum(axis=0)
        return {"gradient": gradient + noise, "squares": squares}

    def update(self, state: Any, statistic: Any) -> Any:
        statistic["gradient"][:] *= 0.3  # statistics can be written, wherever they came from
        w = state["w"] - statistic["gradient"] / statistic["squares"]
        step = state["step"] + 1
        return Done({"w": w}) if step == self.steps else {"w": w, "step": step}


@pytest.fixture(scope="module")
def dataset() -> data.Dataset:
    rng = np.random.default_rng(20130101)
    rows = rng.integers(1, 400, N_PARTS)
    rows[EMPTY] = 0
    X = rng.standard_normal((rows.sum(), 7)) * 10 ** rng.uniform(-4, 4, (rows.sum(), 1))
    y = X @ rng.standard_normal(7) + rng.standard_normal(len(X))
    return data.from_numpy(X, y, part_rows=rows.tolist())


def bytes_of(engine: Engine, dataset: data.Dataset) -> bytes:
    return fit(GradientDescent(), dataset, engine=engine, seed=3).params["w"].tobytes()


@pytest.mark.parametrize("workers", [1, 2])  # 3 of them below
def test_same_bytes_at_any_width(cluster: Path, dataset: data.Dataset, workers: int) -> None:
    assert bytes_of(Ray(workers), dataset) == bytes_of(Inline(workers=1), dataset)


def test_an_actor_that_is_killed_and_one_that_hangs_change_no_bit(
    cluster: Path, dataset: data.Dataset
) -> None:
    faults = [Fault(step=1, worker=1, kind="die"), Fault(step=3, worker=2, kind="hang")]
    engine = Ray(3, deadline=timedelta(seconds=2), faults=faults)
    trained = fit(GradientDescent(), dataset, engine=engine, seed=3)
    assert trained.params["w"].tobytes() == bytes_of(Inline(workers=1), dataset)
    assert trained.report.lost == (1, 2)


def test_kmeans_and_logistic_regression_have_the_bytes_of_inline(cluster: Path) -> None:
    rng = np.random.default_rng(5)
    X = rng.standard_normal((3000, 4))
    y = (X[:, 0] + 0.5 * rng.standard_normal(len(X)) > 0).astype(int)
    rows = data.from_numpy(X, y, part_rows=250)

    def fitted(engine: Engine) -> list[bytes]:
        clusters = KMeans(n_clusters=5, max_iter=3, random_state=0, engine=engine).fit(rows)
        labels = LogisticRegression(max_iter=3, engine=engine).fit(rows)
        return [clusters.cluster_centers_.tobytes(), labels.coef_.tobytes(), labels.intercept_.tobytes()]

    assert fitted(Ray(2)) == fitted(Inline(workers=1))


def test_what_a_part_raises_comes_out_with_the_part(cluster: Path, dataset: data.Dataset) -> None:
    with pytest.raises(ValueError, match="this part is broken") as caught:
        fit(GradientDescent(bad=13), dataset, engine=Ray(1))
    assert "part 13 of view 'train', step 0" in caught.value.__notes__[0]


def where(index: int) -> tuple[int, int]:
    return index * index, os.getpid()


def test_map_keeps_order_and_runs_elsewhere(cluster: Path) -> None:
    answers = Ray(1).map(where, range(20))
    assert [square for square, _ in answers] == [index * index for index in range(20)]
    assert os.getpid() not in {pid for _, pid in answers}


def test_an_actor_far_away_is_sent_the_bytes_of_a_row_major_copy(dataset: data.Dataset) -> None:
    setting = Setting(GradientDescent(), 0, {"train": dataset.persist().parts})
    near, far = (Packet.of(setting, near=near) for near in (True, False))
    assert all(isinstance(file, str) for file in near.files)
    for packet in (near, far):
        assert packet.content().views["train"][7].to_table() == setting.views["train"][7].to_table()
    assert far.files[0].nbytes > dataset.n_rows * 7 * 8


def test_bad_arguments_and_a_missing_package_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(Refused, match=r"pip install 'millstream\[ray\]'"):
        Ray(2)
    monkeypatch.undo()
    pytest.importorskip("ray")
    with pytest.raises(InputError, match=r"Ray\(0\)"):
        Ray(0)
    with pytest.raises(InputError, match="deadline"):
        Ray(1, deadline=timedelta(0))
