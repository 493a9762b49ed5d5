"""One shard: messages in, replies out, compared as lists."""

from __future__ import annotations

import numpy as np
import pytest

from millstream.errors import TrainingError
from millstream.parallel.backup import Backup, Journal, Replica
from millstream.parallel.keyed_rows import Keyed
from millstream.parallel.shard import Shard, Sparse
from millstream.parallel.shard_messages import Clock, Message, Pull, Push, Pushed, Unchanged
from millstream.parallel.shard_server import ShardServer


def server_of(sources: int = 2, bound: int | None = 0) -> ShardServer:
    return ShardServer(Shard(0, {"w": np.zeros(3)}, {"w": 0}), sources, bound, keyed={"k": Keyed(2)})


def push(source: int, clock: int, number: int = 0, by: float = 1.0) -> Push:
    return Push(source, clock, number, {"w": np.full(3, by)})


def values(server: ShardServer) -> list[float]:
    return np.asarray(server.read().arrays["w"]).tolist()


def test_a_push_that_comes_again_changes_nothing() -> None:
    server = server_of()
    assert server.handle(push(0, 0)) == [Pushed(0, 0, 0, fresh=True)]
    assert server.handle(push(0, 0)) == [Pushed(0, 0, 0, fresh=False)]
    assert server.handle(push(0, 0, number=1)) == [Pushed(0, 0, 1, fresh=True)]
    assert server.handle(Clock(0, 0)) == []
    assert server.handle(push(0, 0, number=1)) == [Pushed(0, 0, 1, fresh=False)]
    assert server.handle(Clock(0, 0)) == []
    assert server.handle(push(0, 1)) == [Pushed(0, 1, 0, fresh=True)]
    assert values(server) == [3.0, 3.0, 3.0]


def test_a_pull_waits_for_the_slowest_and_is_answered_by_its_clock() -> None:
    server = server_of(sources=3, bound=1)
    for clock in range(2):
        server.handle(push(0, clock))
        assert server.handle(Clock(0, clock)) == []
    assert server.handle(Pull(0, 2)) == []
    server.handle(Clock(1, 0))
    (answer,) = server.handle(Clock(2, 0))
    assert (answer.source, answer.clock, answer.slowest) == (0, 2, 1)


def test_without_a_bound_no_pull_waits() -> None:
    server = server_of(bound=None)
    for clock in range(9):
        server.handle(Clock(0, clock))
    (answer,) = server.handle(Pull(0, 9))
    assert answer.slowest == 0


def test_who_has_the_latest_version_is_told_so() -> None:
    server = server_of()
    server.handle(push(0, 0))
    (first,) = server.handle(Pull(1, 0))
    assert server.handle(Pull(1, 0, have=first.version)) == [Unchanged(1, 0, first.version, slowest=0)]
    server.handle(push(1, 0))
    (second,) = server.handle(Pull(1, 0, have=first.version))
    assert second.version > first.version
    assert first.arrays["w"].tolist() == [1.0] * 3  # what was read doesn't change with later pushes
    with pytest.raises(ValueError, match="read-only"):
        first.arrays["w"][0] = 9.0


def test_messages_that_can_not_be_leave_everything_as_it_was() -> None:
    server = server_of()
    server.handle(push(0, 0))
    refused: list[tuple[Message, str]] = [
        (push(0, 1), "the next of it is number 1 of clock 0"),
        (push(0, 0, number=2), "the next of it is number 1 of clock 0"),
        (Clock(0, 1), "it is in round 0"),
        (Push(1, 0, 0, {"w": np.ones(4)}), "shape"),
        (Push(1, 0, 0, {"w": np.ones(3), "k": np.ones(3)}), "no Sparse of width 2"),
        (Push(1, 0, 0, {"w": Sparse([0, 3], [1.0, 1.0])}), "key 3"),
        (Push(1, 0, 0, {"w": Sparse([0, -1], [1.0, 1.0])}), "key -1"),
        (Push(1, 0, 0, {"w": Sparse([0], [[1.0, 2.0]])}), "shape"),
    ]
    for message, reason in refused:
        with pytest.raises(TrainingError, match=reason):
            server.handle(message)
    assert values(server) == [1.0, 1.0, 1.0]
    assert server.handle(push(1, 0)) == [Pushed(1, 0, 0, fresh=True)]


def messages(n: int) -> list[Message]:
    rng = np.random.default_rng(n)
    clocks, numbers, made = [0, 0], [0, 0], list[Message]()
    for _ in range(n):
        source = int(rng.integers(2))
        if rng.random() < 0.3:
            made.append(Clock(source, clocks[source]))
            clocks[source], numbers[source] = clocks[source] + 1, 0
        else:
            keyed = Sparse(rng.integers(-9, 9, 4), rng.standard_normal((4, 2)))
            made.append(
                Push(source, clocks[source], numbers[source], {"w": rng.standard_normal(3), "k": keyed})
            )
            numbers[source] += 1
    return made


@pytest.mark.parametrize(
    "make", [Replica, lambda server: Journal(server, every=7)], ids=["replica", "journal"]
)
@pytest.mark.parametrize("n", [0, 1, 6, 7, 8, 40])
def test_a_backup_recovers_the_same_bits_and_goes_on_alike(make: type[Backup], n: int) -> None:
    first = server_of(bound=None)
    backup = make(first)
    said = messages(n + 5)
    for message in said[:n]:
        first.handle(message)
        backup.record(message, first)
    second = backup.recover()
    for server in (first, second):
        replies = [server.handle(message) for message in said[n:]]
        assert len(replies) == 5
    for name in ("w", "k"):
        one, other = first.read().arrays[name], second.read().arrays[name]
        pair = (one, other) if name == "w" else (one.values, other.values)
        assert pair[0].tobytes() == pair[1].tobytes()
    assert first.handle(Pull(0, 0)) != []


def test_a_twin_is_independent() -> None:
    server = server_of()
    twin = server.copy()
    server.handle(push(0, 0))
    assert values(twin) == [0.0] * 3
