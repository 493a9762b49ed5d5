"""Laws of every engine: every task is done, in whatever order, whoever dies; errors come out as they went in.

Engines are discovered as subclasses of `Engine`; each says below how it is made with given faults.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from millstream.errors import WorkerLost
from millstream.parallel import MPI, Engine, Fault, Inline, Processes, Threads, Work

SOON, LATE = timedelta(milliseconds=500), timedelta(minutes=1)


def one_rank(workers: int, faults: Sequence[Fault] = ()) -> Engine:
    """MPI in this process; what happens at other widths is in test_mpi.py."""
    pytest.importorskip("mpi4py")
    if faults:
        pytest.skip("a lost rank ends the job: test_mpi.py")
    return MPI()


MAKE: dict[type[Engine], Callable[..., Engine]] = {
    Inline: lambda workers, faults=(): Inline(workers, faults, workers),
    Threads: lambda workers, faults=(): Threads(
        workers, SOON if any(fault.kind == "hang" for fault in faults) else LATE, faults
    ),
    Processes: lambda workers, faults=(): Processes(
        workers, 2 * SOON if any(fault.kind == "hang" for fault in faults) else LATE, faults
    ),
    MPI: one_rank,
}


def subclasses(engine: type[Engine]) -> list[type[Engine]]:
    found = engine.__subclasses__()
    return found + [below for one in found for below in subclasses(one)]


def engines() -> list[type[Engine]]:
    return [engine for engine in subclasses(Engine) if engine.__module__.startswith("millstream.")]


class Unlucky(Exception):
    pass


def unlucky(task: int) -> int:
    if task == 13:
        raise Unlucky(task)
    return task


def square(x: int) -> int:
    return x * x


def negative(index: int, attempt: int) -> int:
    return -index


def map_keeps_order(make: Callable[..., Engine]) -> None:
    for workers in (1, 2, 5):
        for n_tasks in (0, 1, 2, 40):
            assert make(workers).map(square, range(n_tasks)) == [x * x for x in range(n_tasks)]


def lost_workers_tasks_are_done_by_others(make: Callable[..., Engine]) -> None:
    for kind in ("die", "hang"):
        assert make(3, [Fault(0, 1, kind)]).map(str, range(20)) == [str(i) for i in range(20)]
    assert make(3, [Fault(0, 0), Fault(0, 2, after=1)]).map(str, range(20)) == [str(i) for i in range(20)]


def losing_every_worker_is_an_error(make: Callable[..., Engine]) -> None:
    with pytest.raises(WorkerLost):
        make(2, [Fault(0, 0), Fault(0, 1)]).map(str, range(20))


def errors_come_out_as_they_went_in(make: Callable[..., Engine]) -> None:
    for workers in (1, 3):
        with pytest.raises(Unlucky) as caught:
            make(workers).map(unlucky, range(40))
        assert caught.value.args == (13,)


def every_step_reports_its_work_and_who_was_lost(make: Callable[..., Engine]) -> None:
    with make(3, [Fault(1, 2)]).crew() as crew:
        for step, lost in ((0, ()), (1, (2,)), (2, ())):
            accepted: dict[int, int] = {}
            work = crew.run(negative, accepted.__setitem__, 10, step=step)
            assert accepted == {index: -index for index in range(10)}
            assert work.lost == lost
            assert min(work.compute, work.combine, work.wait) >= 0


def nothing_is_left_running(make: Callable[..., Engine]) -> None:
    before = threading.active_count()
    make(4).map(str, range(10))
    with pytest.raises(Unlucky):
        make(4).map(unlucky, range(40))
    assert threading.active_count() == before


LAWS = [
    map_keeps_order,
    lost_workers_tasks_are_done_by_others,
    losing_every_worker_is_an_error,
    errors_come_out_as_they_went_in,
    every_step_reports_its_work_and_who_was_lost,
    nothing_is_left_running,
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("engine", engines(), ids=lambda engine: engine.__name__)
def test_law(law: Callable[..., None], engine: type[Engine]) -> None:
    law(MAKE[engine])  # a KeyError here: say above how the new engine is made


class Planted(Engine):
    """A plain loop over the tasks, broken in one way."""

    def __init__(self, breaks: str, workers: int, faults: Sequence[Fault] = ()) -> None:
        self.breaks, self.n_workers, self.faults = breaks, workers, faults

    @contextmanager
    def crew(self) -> Iterator[Planted]:
        yield self

    def run(self, task: Any, accept: Any, n_tasks: int, *, step: int, combine: Any = None) -> Work:
        for index in range(n_tasks):
            if self.breaks == "leaves out the parts of the dead" and index == 1 and self.faults:
                continue
            try:
                result = task(index, 0)
            except Unlucky:
                if self.breaks == "hides errors":
                    result = None
                elif self.breaks == "wraps errors":
                    raise RuntimeError("a task failed") from None
                else:
                    raise
            accept(index + (self.breaks == "mixes up parts" and n_tasks - 2 * index - 1), result)
        if self.breaks == "leaves a thread":
            threading.Thread(target=threading.Event().wait, args=(2,), daemon=True).start()
        return Work(-1.0 if self.breaks == "counts wrong" else 0.0, 0.0, 0.0, ())


@pytest.mark.parametrize(
    ("law", "breaks"),
    [
        (map_keeps_order, "mixes up parts"),
        (lost_workers_tasks_are_done_by_others, "leaves out the parts of the dead"),
        (losing_every_worker_is_an_error, "notices no death"),
        (errors_come_out_as_they_went_in, "hides errors"),
        (errors_come_out_as_they_went_in, "wraps errors"),
        (every_step_reports_its_work_and_who_was_lost, "counts wrong"),
        (nothing_is_left_running, "leaves a thread"),
    ],
)
def test_an_engine_that_breaks_a_law_is_found_out(law: Callable[..., None], breaks: str) -> None:
    with pytest.raises((AssertionError, KeyError, RuntimeError, pytest.fail.Exception)):
        law(lambda workers, faults=(): Planted(breaks, workers, faults))


def test_the_plain_loop_itself_keeps_order_and_errors() -> None:
    for law in (map_keeps_order, errors_come_out_as_they_went_in, nothing_is_left_running):
        law(lambda workers, faults=(): Planted("nothing", workers, faults))
