"""What is peculiar to processes: what travels and how, what is refused, errors from afar, what stays with a worker."""

from __future__ import annotations

import gc
import inspect
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

import millstream.data as data
from millstream.errors import DeadlineExceeded, InputError, Refused, TrainingError, WorkerLost
from millstream.parallel import CONCAT, MAX, Done, Fault, Inline, Processes, Step, Threads, fit
from millstream.parallel.arena import Arena, ArenaView
from millstream.parallel.local import Setting
from millstream.parallel.parcel import pack, unpack

MB = 1 << 20
SOON = timedelta(seconds=1)


class Sum:
    """One step over the parts: the sum of the rows."""

    def init(self, meta, rng):
        return {"total": np.zeros(meta.n_features)}

    def local(self, params, part, ctx):
        total = np.zeros(len(params["total"]))
        for block in part.blocks():
            total += block.X.sum(axis=0)
        return {"total": total}

    def update(self, state, statistic):
        return Done({"total": statistic["total"]})


@pytest.fixture
def numbers() -> data.Dataset:
    return data.from_numpy(np.arange(20.0).reshape(10, 2), part_rows=[3, 0, 4, 3])


# What travels


def open_files() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def test_rows_in_memory_are_written_once_whatever_the_number_of_parts() -> None:
    rows = data.from_numpy(np.random.default_rng(0).random((50_000, 10)), part_rows=500)
    setting = Setting(Sum(), 0, {"train": rows.parts, "again": rows.parts[:50]})
    parcel = pack(setting)
    try:
        assert os.fstat(parcel.descriptors[0]).st_size == 50_000 * 10 * 8
        assert len(parcel.stream) < 200_000  # 100 parts
    finally:
        parcel.close()


def test_a_row_major_copy_travels_as_a_descriptor() -> None:
    columns = {f"x{i}": np.random.default_rng(i).random(50_000) for i in range(4)}
    copy = data.from_arrow(pa.table(columns), part_rows=5000).persist()
    parcel = pack(Setting(Sum(), 0, {"train": copy.parts}))
    assert parcel.spans == ()
    assert len(parcel.stream) < 20_000
    assert parcel.descriptors == tuple(parcel.borrowed)
    there = unpack(parcel.stream, parcel.about, [os.dup(descriptor) for descriptor in parcel.descriptors])
    assert there.views["train"][7].to_table() == copy.parts[7].to_table()


def test_parquet_travels_as_a_description(tmp_path: Path) -> None:
    data.from_numpy(np.random.default_rng(0).random((50_000, 10)), part_rows=5000).write_parquet(
        tmp_path / "rows"
    )
    rows = data.read_parquet(tmp_path / "rows")
    parcel = pack(Setting(Sum(), 0, {"train": rows.parts}))
    assert parcel.descriptors == ()
    assert len(parcel.stream) < 20_000
    there = unpack(parcel.stream, parcel.about, ())
    assert there.views["train"][3].to_table() == rows.parts[3].to_table()


def test_large_arrays_come_back_as_they_were_and_can_be_written() -> None:
    sent = {
        "c": np.random.default_rng(0).random((300, 200)),
        "f": np.asfortranarray(np.ones((300, 200))),
        "n": 3,
    }
    parcel = pack(sent)
    assert len(parcel.stream) < 1000
    came = unpack(parcel.stream, parcel.about, parcel.descriptors)
    assert came["f"].flags.f_contiguous
    assert all(np.array_equal(came[name], sent[name]) for name in sent)
    came["c"][0] = 0.0
    assert sent["c"][0].any()


def test_memory_is_given_back_with_the_last_that_refers_to_it() -> None:
    before = open_files()
    parcel = pack(np.zeros(MB))
    came = unpack(parcel.stream, parcel.about, parcel.descriptors)
    assert open_files() > before
    del came
    assert open_files() == before


class Square:
    """A large statistic and large parameters."""

    combine: ClassVar = {"rows": CONCAT}

    def init(self, meta, rng):
        return {"w": rng.standard_normal((500, 500)), "step": 0}

    def local(self, params, part, ctx):
        return {"g": params["w"] * (part.index + 1), "rows": np.array([part.n_rows])}

    def update(self, state, statistic):
        state = {"w": state["w"] + statistic["g"] / 100, "step": state["step"] + 1}
        return Done({**state, **statistic}) if state["step"] == 3 else state


def test_large_parameters_and_statistics_have_the_same_bytes(numbers: data.Dataset) -> None:
    fit(Square(), numbers, engine=Processes(2))  # starts the server
    before, expected = open_files(), fit(Square(), numbers, engine=Inline()).params
    for workers in (1, 2, 3, 9):
        params = fit(Square(), numbers, engine=Processes(workers)).params
        assert params["rows"].tolist() == [3, 0, 4, 3]
        assert params["w"].tobytes() == expected["w"].tobytes()
        del params
    assert open_files() == before


class KeepsStatistics(Sum):
    """The state holds on to what earlier steps brought, as it came from the worker."""

    def init(self, meta, rng):
        return {"seen": []}

    def plan(self, state):
        return Step({"step": len(state["seen"])})

    def local(self, params, part, ctx):
        return {
            "large": np.full(40_000, params["step"]),
            "larger": np.full(10_000 * (params["step"] + 1), 7.0),
        }

    def update(self, state, statistic):
        state = {"seen": [*state["seen"], statistic]}
        return Done(state) if len(state["seen"]) == 6 else state


def test_what_is_held_on_to_is_not_written_over() -> None:
    before = open_files()
    seen = fit(KeepsStatistics(), data.from_numpy(np.ones((1, 1))), engine=Processes(1)).params["seen"]
    assert [set(statistic["large"].tolist()) for statistic in seen] == [{step} for step in range(6)]
    assert all((statistic["larger"] == 7.0).all() for statistic in seen)
    del seen
    assert open_files() == before


def test_a_segment_is_used_again_when_nothing_refers_to_it() -> None:
    arena, view = Arena(), ArenaView()

    def through(content: Any) -> tuple[int, Any]:
        parcel = pack(content, arena=arena)
        assert parcel.written is not None
        came = unpack(parcel.stream, parcel.about, [os.dup(one) for one in parcel.descriptors], view=view)
        arena.free(view.released())
        return parcel.written.number, came

    first, held = through(np.arange(9000))
    second, other = through(np.arange(9000) + 1)
    assert second != first
    part = held[4000:5000]
    del held, other
    third = through(np.arange(9000) + 2)[0]  # while it is written the view learns that `second` is free
    fourth = through(np.arange(9001)[1:] + 3)[0]
    assert fourth == second
    assert third not in (first, second)
    assert part.tolist() == list(range(4000, 5000))
    del part
    arena.free(view.released())
    numbers = [through(np.zeros(90_000))[0] for _ in range(3)]  # too large for the others, which are dropped
    assert numbers[0] not in (first, second, third)
    assert numbers[2] == numbers[0] != numbers[1]
    assert sorted(view._mapped) == sorted(set(numbers))


def imported_by_reading(part: data.Part) -> list[str]:
    before = set(sys.modules)
    assert sum(block.X.sum() for block in part.blocks()) == 4.0
    return sorted(set(sys.modules) - before)


def test_a_worker_has_imported_what_reading_needs() -> None:
    rows = data.from_numpy(np.ones((4, 2)), part_rows=2)
    assert Processes(2).map(imported_by_reading, rows.parts) == [[], []]


# What is refused


def test_what_has_no_name_elsewhere_is_refused_with_the_next_step(numbers: data.Dataset) -> None:
    class Inner(Sum):
        pass

    with pytest.raises(
        Refused, match=r"<lambda> of .*test_processes.*at the top of a module, or use Threads\(\)"
    ):
        Processes(2).map(lambda x: x, [1])
    with pytest.raises(Refused, match="Inner"):
        fit(Inner(), numbers, engine=Processes(2))


class HoldsALock(Sum):
    def __init__(self) -> None:
        self.lock = threading.Lock()


def test_what_can_not_be_sent_is_refused(numbers: data.Dataset) -> None:
    with pytest.raises(Refused, match=r"cannot pickle '_thread.lock' object.*Threads\(\)"):
        fit(HoldsALock(), numbers, engine=Processes(2))
    assert fit(HoldsALock(), numbers, engine=Threads(2)).done


def prints(task: int) -> None:
    print("task", task)


def test_what_a_worker_prints_is_seen(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    start = "if __name__ == '__main__':\n    Processes(1).map(prints, range(3))"
    script.write_text(f"from millstream.parallel import Processes\n{inspect.getsource(prints)}\n{start}")
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    command = [sys.executable, str(script)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert result.stdout.splitlines() == ["task 0", "task 1", "task 2"], result.stderr


def test_bad_arguments_are_named() -> None:
    with pytest.raises(InputError, match=r"Processes\(0\)"):
        Processes(0)
    with pytest.raises(InputError, match="deadline"):
        Processes(2, deadline=timedelta(0))


# Errors from afar


class RaisesInPartTwo(Sum):
    def local(self, params, part, ctx):
        if part.index == 2:
            raise ZeroDivisionError("no rows to divide by")
        return super().local(params, part, ctx)


def test_an_error_names_part_and_step_and_shows_where_it_was_raised(numbers: data.Dataset) -> None:
    with pytest.raises(ZeroDivisionError, match="no rows") as caught:
        fit(RaisesInPartTwo(), numbers, engine=Processes(2))
    assert caught.value.__notes__ == ["in local of RaisesInPartTwo, part 2 of view 'train', step 0"]
    assert 'raise ZeroDivisionError("no rows to divide by")' in str(caught.value.__cause__)


class Peculiar(Exception):
    def __init__(self, code: int, lock: Any) -> None:
        super().__init__(f"code {code}")
        self.lock = lock


def raises_peculiar(task: int) -> None:
    raise Peculiar(task, threading.Lock())


def test_an_error_that_can_not_travel_is_told() -> None:
    with pytest.raises(TrainingError, match="Peculiar in a worker process: code 7"):
        Processes(1).map(raises_peculiar, [7])


def ends_itself(task: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return task


def stops_itself(task: int) -> int:
    os.kill(os.getpid(), signal.SIGSTOP)
    return task


def test_when_every_worker_dies_or_is_stuck_the_run_ends() -> None:
    with pytest.raises(WorkerLost, match=r"all 2 worker processes died.*dmesg"):
        Processes(2).map(ends_itself, range(4))
    with pytest.raises(DeadlineExceeded, match=r"0:00:01; raise Processes\(deadline=\)"):
        Processes(2, SOON).map(stops_itself, range(4))
    assert Processes(2).map(abs, [-1, -2]) == [1, 2]


def short(index: int, attempt: int) -> None:
    pass


def slow(index: int, attempt: int) -> int:
    time.sleep(0.3)
    return attempt


def test_the_parts_of_a_run_may_together_take_longer_than_the_deadline() -> None:
    with Processes(1, SOON).crew() as crew:
        crew.run(
            short, lambda index, result: None, 64, step=0
        )  # parts so short that eight are handed out at once
        attempts: dict[int, int] = {}
        work = crew.run(slow, attempts.__setitem__, 8, step=1)
    assert (attempts, work.lost) == (dict.fromkeys(range(8), 0), ())


def test_a_crew_goes_on_after_an_error() -> None:
    with Processes(2).crew() as crew:
        with pytest.raises(ZeroDivisionError):
            crew.run(fails_at_three, lambda index, result: None, 8, step=0)
        came: dict[int, int] = {}
        crew.run(plain, came.__setitem__, 8, step=1)
    assert came == {index: index for index in range(8)}


def fails_at_three(index: int, attempt: int) -> float:
    return 1 / (index - 3)


def plain(index: int, attempt: int) -> int:
    return index


# What stays with a worker


class WhoKeeps(Sum):
    """The worker of each part in each step, and how many steps its keep remembers."""

    combine: ClassVar = {"worker": CONCAT, "times": CONCAT, "last": MAX}
    steps = 6

    def init(self, meta, rng):
        return {"step": 0, "seen": []}

    def plan(self, state):
        return Step({"step": state["step"]})

    def local(self, params, part, ctx):
        ctx.keep["steps"] = [*ctx.keep.get("steps", []), ctx.step]
        time.sleep(0.002)
        unbroken = ctx.keep["steps"] == list(range(ctx.step + 1 - len(ctx.keep["steps"]), ctx.step + 1))
        return {
            "worker": [os.getpid()],
            "times": [len(ctx.keep["steps"]) if unbroken else -1],
            "last": ctx.step,
        }

    def update(self, state, statistic):
        seen = [*state["seen"], (statistic["worker"].tolist(), statistic["times"].tolist())]
        state = {"step": state["step"] + 1, "seen": seen}
        return Done(state) if state["step"] == self.steps else state


def test_keep_is_what_this_worker_left_in_the_step_before_or_nothing() -> None:
    rows = data.from_numpy(np.ones((40, 2)), part_rows=1)
    seen = fit(WhoKeeps(), rows, engine=Processes(3)).params["seen"]
    assert len({pid for pids, _ in seen for pid in pids}) == 3
    expected = [1] * 40
    for (before, _), (pids, times) in itertools.pairwise(seen):
        expected = [n + 1 if same else 1 for n, same in zip(expected, np.equal(before, pids), strict=True)]
        assert times == expected
    together = np.mean([np.equal(a, b) for (a, _), (b, _) in itertools.pairwise(seen[1:])])
    assert together > 0.5  # by chance it would be a third


# Engines within engines


def maps_within(task: int) -> list[int]:
    return Processes(2).map(abs, [-task, task])


class FitsWithin(Sum):
    def local(self, params, part, ctx):
        inner = fit(Sum(), data.from_numpy(np.full((4, 2), 1.0 + part.index)), engine=Processes(2))
        return {"total": inner.params["total"]}


def test_within_a_worker_everything_runs_on_that_worker(numbers: data.Dataset) -> None:
    assert Processes(2).map(maps_within, [1, 2, 3]) == [[1, 1], [2, 2], [3, 3]]
    assert fit(FitsWithin(), numbers, engine=Processes(2)).params["total"].tolist() == [40.0, 40.0]
    assert Threads(2).map(maps_within, [1, 2]) == [[1, 1], [2, 2]]


def test_a_worker_that_dies_costs_its_runs_and_no_more(numbers: data.Dataset) -> None:
    result = fit(Sum(), numbers, engine=Processes(3, faults=[Fault(0, 1, "die")]))
    assert result.report.lost == (1,)
    assert result.params["total"].tolist() == [90.0, 100.0]
