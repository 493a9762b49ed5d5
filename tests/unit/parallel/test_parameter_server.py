"""The parameter server among threads, and what it is made of."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from millstream.errors import DeadlineExceeded, InputError, TrainingError
from millstream.parallel.keyed_rows import Keyed
from millstream.parallel.parameter_client import ParameterClient
from millstream.parallel.parameter_server import ParameterServer
from millstream.parallel.part_queue import Dynamic, Pinned
from millstream.parallel.round_queue import RoundQueue
from millstream.parallel.shard import SHARD_BYTES, Sharding, Sparse
from millstream.parallel.significance import Significance

SHARDS = [1, 2, 3, 7]


@pytest.mark.parametrize("shards", SHARDS)
def test_dense_and_sparse_updates_are_those_of_one_array(shards: int) -> None:
    rng = np.random.default_rng(shards)
    w, v, words = rng.standard_normal(50), rng.standard_normal((5, 4)), dict[int, np.ndarray]()
    server = ParameterServer({"w": w, "v": v, "b": 0.0, "words": Keyed(2)}, sources=1, shards=shards)
    b = 0.0
    for clock in range(20):
        keys, values = rng.integers(0, 50, 30), rng.standard_normal(30)
        hashed, rows = rng.integers(-(2**62), 2**62, 6) // 2**60, rng.standard_normal((6, 2))
        delta = {"w": Sparse(keys, values), "v": v * 0.1, "b": 1.5, "words": Sparse(hashed, rows)}
        if clock % 3 == 0:
            delta["w"] = w * 0.5
            w = w + w * 0.5
        else:
            np.add.at(w, keys, values)
        v, b = v + v * 0.1, b + 1.5
        for key, row in zip(hashed.tolist(), rows, strict=True):
            words[key] = words.get(key, np.zeros(2)) + row
        server.push(0, clock, delta)
        server.clock(0, clock)
        everything = server.pull(0, clock + 1)
        assert everything["w"].tobytes() == w.tobytes()
        assert everything["v"].tobytes() == v.tobytes()
        assert everything["b"] == b
        assert everything["words"].keys.tolist() == sorted(words)
        assert everything["words"].values.tobytes() == np.array([words[k] for k in sorted(words)]).tobytes()
        some = server.pull(
            0, clock + 1, keys={"w": np.array([49, 0, 0, 7]), "words": np.array([99, hashed[0]])}
        )
        assert some["w"].tolist() == w[[49, 0, 0, 7]].tolist()
        assert some["words"].tolist() == [[0.0, 0.0], words[int(hashed[0])].tolist()]


def test_the_number_of_shards_comes_from_the_parameters() -> None:
    for mb, expected in ((0.001, 1), (1, 1), (1.5, 2), (5, 5)):
        params = {"w": np.zeros(int(mb * SHARD_BYTES / 8))}
        assert ParameterServer(params, sources=1).n_shards == expected
    assert Sharding.of({"w": np.zeros(3), "v": np.zeros(2)}, 4).cut({"w": np.arange(3), "v": np.arange(2)})[
        3
    ]["w"].tolist() == [2]


@pytest.mark.parametrize("backup", ["replica", "journal"])
def test_a_lost_shard_comes_back_with_the_same_bits(backup: Any) -> None:
    def trained(lose: bool) -> bytes:
        rng = np.random.default_rng(0)
        server = ParameterServer({"w": np.zeros(100)}, sources=2, bound=None, shards=3, backup=backup)
        for clock in range(30):
            for source in range(2):
                server.push(source, clock, {"w": Sparse(rng.integers(0, 100, 9), rng.standard_normal(9))})
                if lose and clock % 7 == 3:
                    server.lose(clock % 3)
                server.clock(source, clock)
        assert (server.traffic.recovered > 0) == lose
        return server.read()["w"].tobytes()

    assert trained(lose=True) == trained(lose=False)


def test_a_shard_lost_without_a_backup_is_an_error() -> None:
    with pytest.raises(TrainingError, match='backup="replica"'):
        ParameterServer({"w": np.zeros(3)}, sources=1).lose(0)


def test_a_reader_waits_for_a_slower_source_and_the_wait_is_counted() -> None:
    server = ParameterServer({"w": np.zeros(3)}, sources=2, bound=0)
    server.push(0, 0, {"w": np.ones(3)})
    server.clock(0, 0)
    seen: list[Any] = []
    reader = threading.Thread(target=lambda: seen.append(server.pull(0, 1)["w"]))
    reader.start()
    reader.join(0.05)
    assert reader.is_alive()
    server.push(1, 0, {"w": np.ones(3)})
    server.clock(1, 0)
    reader.join(10)
    assert seen[0].tolist() == [2.0] * 3
    assert server.traffic.waited > 0.04


def test_a_wait_has_a_deadline_and_the_server_goes_on_after_it() -> None:
    server = ParameterServer({"w": np.zeros(3)}, sources=2, bound=0, deadline=timedelta(milliseconds=10))
    server.clock(0, 0)
    with pytest.raises(DeadlineExceeded, match="has finished 0 rounds"):
        server.pull(0, 1)
    server.clock(1, 0)
    assert server.pull(0, 1)["w"].tolist() == [0.0] * 3


def test_many_threads_lose_no_update() -> None:
    n, rounds = 6, 40
    server = ParameterServer({"w": np.zeros(64, "i8"), "k": Keyed(1, "i8")}, sources=n, bound=2, shards=4)

    def work(source: int) -> None:
        for clock in range(rounds):
            w = server.pull(source, clock)["w"]
            assert w.min() >= (clock - 2) * n
            keys = np.arange(64)
            server.push(source, clock, {"w": np.ones(64, "i8"), "k": Sparse(keys, np.ones((64, 1), "i8"))})
            server.clock(source, clock)

    threads = [threading.Thread(target=work, args=(source,)) for source in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert server.read()["w"].tolist() == [n * rounds] * 64
    assert server.read()["k"].values.tolist() == [[n * rounds]] * 64
    assert server.traffic.most_stale <= 2
    assert server.traffic.pushes == n * rounds


@pytest.mark.parametrize("shards", [1, 3])
def test_a_delta_that_does_not_fit_leaves_every_shard_as_it_was(shards: int) -> None:
    server = ParameterServer(
        {"w": np.zeros(9), "v": np.zeros((9, 2)), "k": Keyed()}, sources=1, shards=shards
    )
    good = np.ones(9)
    for bad, reason in [
        ({"w": good, "v": Sparse([8], [[1.0, 1.0, 1.0]])}, "shape"),
        ({"w": good, "v": Sparse([9], [[1.0, 1.0]])}, "key 9"),
        ({"w": good, "nothing": good}, "nothing"),
        ({"w": good, "k": good}, "Sparse"),
        ({"w": np.ones(8)}, "shape|rows"),
    ]:
        with pytest.raises(TrainingError, match=reason):
            server.push(0, 0, bad)
    assert server.read()["w"].tolist() == [0.0] * 9
    assert server.push(0, 0, {"w": good})


def test_what_makes_no_server_is_refused() -> None:
    for params, options in [
        ({"w": np.zeros(2)}, {"sources": 0}),
        ({"w": np.zeros(2)}, {"sources": 1, "bound": -1}),
        ({"w": np.zeros(2)}, {"sources": 1, "shards": 0}),
        ({"w": np.array(["a"])}, {"sources": 1}),
        ([1, 2], {"sources": 1}),
    ]:
        with pytest.raises(InputError):
            ParameterServer(params, **options)
    with pytest.raises(InputError, match="Keyed"):
        Keyed(0)
    with pytest.raises(InputError, match="Sparse"):
        Sparse([0.5], [1.0])


def test_bytes_are_counted_and_what_is_unchanged_is_not_sent_again() -> None:
    server = ParameterServer({"w": np.zeros(1000)}, sources=1, shards=4)
    client = ParameterClient(server)
    client.pull(0, 0)
    assert server.traffic.pulled_bytes == 8000
    client.push(0, 0, {"w": Sparse([3], [1.0])})
    assert client.pull(0, 1)["w"][3] == 1.0
    assert server.traffic.pushed_bytes == 16
    assert server.traffic.unchanged == 3
    assert str(server.traffic).startswith("1 pushes of 1.6e-05 MB, 2 pulls of 0.01 MB")
    before = server.traffic.pulled_bytes
    client.pull(0, 1)
    assert server.traffic.pulled_bytes == before


def test_what_is_held_back_adds_up() -> None:
    rng = np.random.default_rng(4)
    held_back = Significance({"w": np.zeros((20, 2)), "b": np.array(0.0)}, threshold=0.5)
    sent, expected = np.zeros((20, 2)), np.zeros((20, 2))
    rows = []
    for turn in range(50):
        change = rng.standard_normal((20, 2)) * 0.1
        delta: Any = change if turn % 2 else Sparse(np.arange(20), change)
        expected += change
        split = held_back.split({"w": delta, "b": 1.0})
        assert split["b"] == 1.0
        rows.append(len(split["w"].keys))
        assert (np.abs(split["w"].values).max(axis=1) >= 0.5).all()
        np.add.at(sent, split["w"].keys, split["w"].values)
    assert 0 < np.mean(rows) < 10
    assert np.abs(sent - expected).max() < 1.0
    rest = held_back.flush()["w"]
    np.add.at(sent, rest.keys, rest.values)
    np.testing.assert_allclose(sent, expected, atol=1e-12)
    assert held_back.flush() == {}


@pytest.mark.parametrize("make", [Dynamic, Pinned], ids=["dynamic", "pinned"])
def test_parts_of_the_lost_are_drawn_by_those_who_live(make: Any) -> None:
    queue = make(range(10), [0, 1, 2])
    first = {worker: queue.draw(worker) for worker in (0, 1, 2)}
    queue.lose(1)
    queue.put_back(first[1])
    queue.lose(2)
    queue.put_back(first[2])
    left = [queue.draw(0) for _ in range(9)]
    assert sorted([first[0], *left]) == list(range(10))
    assert queue.draw(0) is None
    assert len(queue) == 0
    queue.lose(0)
    queue.put_back(3)
    assert len(queue) == 1


@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_rounds_are_drawn_in_order_within_the_bound_whoever_is_lost(pinned: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_parts, n_rounds, bound = 5, 6, int(rng.integers(0, 3))
    queue = RoundQueue(rng.permutation(n_parts * n_rounds).tolist(), range(4), n_parts, bound, pinned)
    alive, held, done = [0, 1, 2, 3], dict[int, int](), [0] * n_parts
    while sum(done) < n_parts * n_rounds:
        worker = int(rng.choice(alive))
        if worker in held:
            if rng.random() < 0.1 and len(alive) > 1:
                alive.remove(worker)
                queue.lose(worker)
                queue.put_back(held.pop(worker))
                continue
            index = held.pop(worker)
            done[index % n_parts] += 1
            queue.finish(index)
        elif (index := queue.draw(worker)) is not None:
            held[worker] = index
            clock, part = divmod(index, n_parts)
            assert clock == done[part]
            assert clock - bound <= min(done)
        else:
            assert held or len(queue) == 0 or pinned
    assert len(queue) == 0
