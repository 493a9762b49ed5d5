"""Who gets which part, as a sequence of decisions."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings, strategies as st

from millstream.parallel.schedule import Assignment, Schedule


def test_the_first_round_is_fixed_and_the_rest_goes_to_whoever_asks() -> None:
    schedule = Schedule(range(4), [0, 1], deadline=1.0, now=0.0)
    assert schedule.take(1, 0.0) == Assignment(1, 0)
    schedule.finish(1, 1)
    assert schedule.take(1, 0.0) == Assignment(2, 0)
    assert schedule.take(0, 0.0) == Assignment(0, 0)


def test_a_lost_workers_part_is_next() -> None:
    schedule = Schedule(range(4), [0, 1], deadline=1.0, now=0.0)
    schedule.take(0, 0.0)
    schedule.take(1, 0.0)
    schedule.lose(0)
    schedule.finish(1, 1)
    assert schedule.take(1, 0.0) == Assignment(0, 1)
    assert schedule.take(0, 0.0) is None


def test_a_part_never_begun_is_no_second_attempt() -> None:
    schedule = Schedule(range(2), [0, 1], deadline=1.0, now=0.0)
    schedule.lose(0)
    schedule.take(1, 0.0)
    schedule.finish(1, 1)
    assert schedule.take(1, 0.0) == Assignment(0, 0)


def test_the_deadline_counts_from_taking_the_part() -> None:
    schedule = Schedule(range(2), [0, 1], deadline=1.0, now=0.0)
    schedule.take(0, 0.5)
    schedule.take(1, 0.9)
    assert schedule.wake_at() == 1.5
    assert schedule.overdue(1.4) == []
    assert schedule.overdue(1.6) == [0]


def test_what_a_lost_worker_finishes_is_not_counted() -> None:
    schedule = Schedule([0], [0], deadline=1.0, now=0.0)
    schedule.take(0, 0.0)
    schedule.lose(0)
    schedule.finish(0, 0)
    assert not schedule.done
    assert schedule.stranded


@settings(deadline=None)
@given(st.randoms(use_true_random=False), st.integers(0, 12), st.integers(1, 4))
def test_every_part_is_finished_once_while_a_worker_lives(
    random: Random, n_tasks: int, n_workers: int
) -> None:
    schedule = Schedule(range(n_tasks), range(n_workers), deadline=1.0, now=0.0)
    alive, holding, finished = set(range(n_workers)), {}, []
    while not schedule.done:
        worker = random.choice(sorted(alive))
        if worker in holding and len(alive) > 1 and random.random() < 0.2:
            schedule.lose(worker)
            alive.discard(worker)
            holding.pop(worker)
        elif worker in holding:
            finished.append(holding[worker])
            schedule.finish(worker, holding.pop(worker))
        elif (assignment := schedule.take(worker, 0.0)) is not None:
            holding[worker] = assignment.index
    assert sorted(finished) == list(range(n_tasks))
