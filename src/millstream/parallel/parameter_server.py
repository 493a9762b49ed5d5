"""Parameters that many workers read and update at once, in shards.

Each shard is a `ShardServer` behind a lock of its own. In process there is no wire: the arrays of a pull are the
shard's own read-only copies, shared by all who read that version.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from time import monotonic
from typing import Any, Literal

import numpy as np

from millstream.errors import DeadlineExceeded, InputError, TrainingError
from millstream.parallel.backup import Backup, Journal, Replica
from millstream.parallel.keyed_rows import Keyed
from millstream.parallel.shard import Sharding, named_arrays
from millstream.parallel.shard_messages import Clock, Message, Pull, Push, Pushed, Reply, Unchanged, Values
from millstream.parallel.shard_server import Apply, ShardServer, add
from millstream.parallel.traffic import Meter, Traffic

__all__ = ["ParameterServer"]

Array = np.ndarray[Any, Any]


class ParameterServer:
    """Shards of keys with `push`, `pull` and `clock`, under bounded staleness.

    params: named arrays, cut into ranges of their first axis; a `Keyed` takes any int64 keys.
    sources: how many push; bound: how many rounds a reader may be ahead of the slowest of them, None for any number.
    apply: the update function, from a shard and a delta to the shard; adds by default. A `Keyed` is always added to.
    shards: by default one for each megabyte of parameters.
    backup: what a lost shard is recovered from, "replica" or "journal"; None for nothing.
    deadline: how long a pull may wait.

    >>> server = ParameterServer({"w": np.zeros(4), "words": Keyed()}, sources=2, bound=1)
    >>> from millstream.parallel.shard import Sparse
    >>> server.push(0, 0, {"w": np.ones(4), "words": Sparse([-7, 12], [[1.0], [2.0]])})
    True
    >>> server.clock(0, 0)
    >>> server.pull(0, 1)["w"]
    array([1., 1., 1., 1.])
    >>> server.pull(0, 1, keys={"words": np.array([12, 99])})["words"]
    array([[2.], [0.]])
    """

    def __init__(
        self,
        params: Mapping[str, Any],
        *,
        sources: int,
        bound: int | None = 0,
        apply: Apply = add,
        shards: int | None = None,
        backup: Literal["replica", "journal"] | None = None,
        deadline: timedelta = timedelta(minutes=10),
    ) -> None:
        if sources < 1 or (bound is not None and bound < 0):
            raise InputError(
                f"sources={sources}, bound={bound}; expected at least one source and no bound below 0"
            )
        keyed = {name: kind for name, kind in params.items() if isinstance(kind, Keyed)}
        arrays = named_arrays({name: array for name, array in params.items() if name not in keyed})
        self.bound, self.sources, self._deadline = bound, sources, deadline
        self.sharding = Sharding.of(arrays, shards, keyed)
        backups: dict[str | None, Callable[[ShardServer], Backup | None]] = {
            None: lambda server: None,
            "replica": Replica,
            "journal": Journal,
        }
        servers = [ShardServer(shard, sources, bound, apply, keyed) for shard in self.sharding.cut(arrays)]
        self._held = [_HeldShard(server, backups[backup](server)) for server in servers]
        self._meter = Meter()

    @property
    def n_shards(self) -> int:
        return self.sharding.n_shards

    @property
    def slowest(self) -> int:
        """Rounds that every source has finished, on every shard."""
        return min(held.slowest for held in self._held)

    @property
    def traffic(self) -> Traffic:
        return self._meter.traffic

    def push(self, source: int, clock: int, delta: Mapping[str, Any], number: int = 0) -> bool:
        """Apply a delta once; False if all of it had been there before.

        number: counts the pushes of a source within a round, from 0. A source that is computed again after a death
        pushes under the same clock and number, and each shard keeps what it had first.
        """
        fresh = False
        for held, piece in zip(self._held, self.sharding.split(delta), strict=True):
            push = Push(source, clock, number, piece)
            (reply,) = held.send(push)
            assert isinstance(reply, Pushed)
            fresh |= reply.fresh
            self._meter.count(pushed_bytes=push.nbytes if reply.fresh else 0)
        self._meter.count(pushes=fresh, duplicates=not fresh)
        return fresh

    def clock(self, source: int, clock: int) -> None:
        """The source has pushed everything of round `clock`. Saying it twice changes nothing."""
        for held in self._held:
            held.send(Clock(source, clock))

    def pull(self, source: int, clock: int, keys: Mapping[str, Array] | None = None) -> dict[str, Any]:
        """Read at the source's clock: at least every update of the rounds below ``clock - bound``.

        keys: only these rows of these parameters; otherwise whole arrays, a `Keyed` as `Sparse`. The arrays are
        read-only. Waits for slower sources; raises `DeadlineExceeded` if that takes too long.
        """
        arrays, _ = self.pull_newer(source, clock, keys, {})
        return arrays

    def pull_newer(
        self,
        source: int,
        clock: int,
        keys: Mapping[str, Array] | None,
        had: Mapping[int, Values],
    ) -> tuple[dict[str, Any], dict[int, Values]]:
        """As `pull`, by one who may still have the answers of an earlier pull of the same keys, by shard. Returns the
        arrays and what to have next time."""
        routed = None if keys is None else {name: self.sharding.route(name, k) for name, k in keys.items()}
        answers: dict[int, Values] = {}
        for index, held in enumerate(self._held):
            mine = None if keys is None or routed is None else self._keys_of(index, keys, routed)
            if mine is not None and not mine:
                continue
            before = had.get(index)
            pull = Pull(source, clock, mine, -1 if before is None else before.version)
            reply, waited = held.ask(pull, self._deadline)
            answers[index] = answer = _answer(reply, before)
            got = reply.nbytes if isinstance(reply, Values) else 0
            self._meter.count(pulled_bytes=got + pull.nbytes, unchanged=not got, waited=waited)
            self._meter.count(stale=max(0, clock - answer.slowest) if index == min(answers) else None)
        self._meter.count(pulls=1)
        if keys is None or routed is None:
            return self.sharding.join([answers[index].arrays for index in range(self.n_shards)]), answers
        return {name: _in_order(len(k), routed[name], name, answers) for name, k in keys.items()}, answers

    def lose(self, index: int) -> None:
        """Drop a shard as if its memory were gone, and recover it from its backup to the same bits.

        Raises `TrainingError` if there is none: then the parameters are gone.
        """
        self._held[index].recover()
        self._meter.count(recovered=1)

    def _keys_of(
        self, index: int, keys: Mapping[str, Array], routed: Mapping[str, list[Array | slice]]
    ) -> dict[str, Array]:
        mine = {
            name: np.asarray(k)[routed[name][index]] - self.sharding.start(name, index)
            for name, k in keys.items()
        }
        return {name: k for name, k in mine.items() if len(k)}


class _HeldShard:
    """A shard server, its lock, and those who wait for its answers."""

    def __init__(self, server: ShardServer, backup: Backup | None) -> None:
        self._server, self._backup = server, backup
        self._changed = threading.Condition()
        self._answers: dict[tuple[int, int], Reply] = {}

    @property
    def slowest(self) -> int:
        with self._changed:
            return self._server.slowest

    def send(self, message: Message) -> list[Reply]:
        """Hand over a message; answers to others than its sender go to those who wait."""
        with self._changed:
            replies = self._server.handle(message)
            if self._backup is not None:
                self._backup.record(message, self._server)
            waiting = [reply for reply in replies if not isinstance(reply, Pushed)]
            for reply in waiting:
                self._answers[reply.source, reply.clock] = reply
            if waiting:
                self._changed.notify_all()
            return [reply for reply in replies if isinstance(reply, Pushed)]

    def ask(self, pull: Pull, deadline: timedelta) -> tuple[Reply, float]:
        """The answer to a pull, and the seconds waited for it."""
        started = monotonic()
        with self._changed:
            replies = self._server.handle(pull)
            if replies:
                return replies[0], 0.0
            who = (pull.source, pull.clock)
            if not self._changed.wait_for(lambda: who in self._answers, deadline.total_seconds()):
                raise DeadlineExceeded(
                    f"source {pull.source} at clock {pull.clock} waited {deadline} for the slowest, which has finished "
                    f"{self._server.slowest} rounds; see that every source calls clock()"
                )
            return self._answers.pop(who), monotonic() - started

    def recover(self) -> None:
        with self._changed:
            if self._backup is None:
                raise TrainingError(
                    'a shard was lost and has no backup; make the server with backup="replica" or "journal"'
                )
            self._server = self._backup.recover()


def _answer(reply: Reply, before: Values | None) -> Values:
    if isinstance(reply, Unchanged) and before is not None:
        return Values(before.source, reply.clock, reply.version, reply.slowest, before.arrays)
    assert isinstance(reply, Values)
    return reply


def _in_order(n: int, routed: list[Array | slice], name: str, answers: Mapping[int, Values]) -> Array:
    """Rows from several shards, in the order in which their keys were asked for."""
    found = {index: answers[index].arrays[name] for index in answers if name in answers[index].arrays}
    if len(routed) == 1:
        return np.asarray(found[0])
    first = np.asarray(next(iter(found.values())))
    rows = np.empty((n, *first.shape[1:]), first.dtype)
    for index, values in found.items():
        rows[routed[index]] = values
    return rows
