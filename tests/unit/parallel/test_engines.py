"""What is peculiar to one engine: deadlines and late results of threads, the seeded history of `Inline`."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import pytest

from millstream.errors import DeadlineExceeded, InputError
from millstream.parallel import Fault, Inline, Threads

SOON = timedelta(milliseconds=500)


def workers_alive() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("millstream-worker")]


def test_when_every_worker_is_stuck_the_run_ends() -> None:
    faults = [Fault(0, 0, "hang"), Fault(0, 1, "hang")]
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"0:00:00.5.*raise Threads\(deadline=\)"):
        Threads(2, SOON, faults).map(str, range(20))
    assert time.monotonic() - started < 30


def test_a_part_that_really_blocks_is_computed_by_another() -> None:
    release, first = threading.Event(), threading.Event()

    def blocks_once(task: int) -> int:
        if task == 3 and not first.is_set():
            first.set()
            release.wait(60)
        return task

    try:
        assert Threads(2, SOON).map(blocks_once, range(8)) == list(range(8))
    finally:
        release.set()


def test_what_comes_late_changes_nothing() -> None:
    came: list[Any] = []
    engine = Threads(2, SOON, [Fault(0, 1, "hang")])
    with engine.crew() as crew:
        work = crew.run(lambda index, attempt: (index, attempt), lambda i, r: came.append(r), 4, step=0)
        assert work.lost == (1,)
        assert sorted(came[:4]) == [(0, 0), (1, 1), (2, 0), (3, 0)]
        crew.run(lambda index, attempt: None, lambda i, r: None, 4, step=1)
        for thread in workers_alive():
            if thread.name.endswith("-1"):
                thread.join(10)
    assert came[4:] == [(1, 0)]  # handed to the run that is over, and to no later one


def test_inline_plays_the_same_history_for_the_same_seed() -> None:
    def history(seed: int) -> list[int]:
        order: list[int] = []
        Inline(seed).map(order.append, range(30))
        return order

    assert history(1) == history(1)
    assert history(1) != history(2)
    assert history(1) != list(range(30))


def test_bad_arguments_are_named() -> None:
    with pytest.raises(InputError, match=r"Threads\(0\)"):
        Threads(0)
    with pytest.raises(InputError, match="deadline"):
        Threads(2, deadline=timedelta(0))
    with pytest.raises(InputError, match="workers=0"):
        Inline(workers=0)
    with pytest.raises(InputError, match="'explode'"):
        Fault(0, 0, "explode")
