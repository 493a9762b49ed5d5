"""Parameters that many workers read and update at once, in shards.

Each shard is a `ShardServer` behind a lock of its own. In process there is no wire: the arrays of a pull are the
shard's own read-only copies, shared by all who read that version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Literal

import numpy as np

from millstream.errors import InputError
from millstream.parallel.backup import Backup, Journal, Replica
from millstream.parallel.held_shard import HeldShard
from millstream.parallel.keyed_rows import Keyed
from millstream.parallel.shard import Sharding, named_arrays
from millstream.parallel.shard_messages import Clock, Pull, Push, Unchanged, Values
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
        if not isinstance(params, Mapping) or not params:
            raise InputError(f"params={params!r}; expected a mapping of names to arrays or Keyed")
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
        self._held = [HeldShard(server, backups[backup](server)) for server in servers]
        self._meter = Meter()

    @property
    def n_shards(self) -> int:
        return self.sharding.n_shards

    @property
    def slowest(self) -> int:
        """Rounds that every source has finished, on every shard."""
        return min([held.slowest for held in self._held])

    @property
    def traffic(self) -> Traffic:
        return self._meter.traffic

    def push(self, source: int, clock: int, delta: Mapping[str, Any], number: int = 0) -> bool:
        """Apply a delta once; False if all of it had been there before.

        number: counts the pushes of a source within a round, from 0. A source that is computed again after a death
        pushes under the same clock and number, and each shard keeps what it had first.

        Raises `TrainingError`, with nothing changed, for a delta that doesn't fit the parameters.
        """
        fresh = False
        pushes = [Push(source, clock, number, piece) for piece in self.sharding.split(delta)]
        if len(pushes) > 1:  # all shards or none
            for held, push in zip(self._held, pushes, strict=True):
                held.check(push)
        for held, push in zip(self._held, pushes, strict=True):
            new = held.push(push)
            fresh |= new
            self._meter.count(pushed_bytes=push.nbytes if new else 0)
        self._meter.count(pushes=fresh, duplicates=not fresh)
        return fresh

    def clock(self, source: int, clock: int) -> None:
        """The source has pushed everything of round `clock`. Saying it twice changes nothing."""
        for held in self._held:
            held.clock(Clock(source, clock))

    def pull(self, source: int, clock: int, keys: Mapping[str, Array] | None = None) -> dict[str, Any]:
        """Read at the source's clock: at least every update of the rounds below ``clock - bound``.

        keys: only these rows of these parameters; otherwise whole arrays, a `Keyed` as `Sparse`. The arrays are
        read-only. Waits for slower sources; raises `DeadlineExceeded` if that takes too long.
        """
        answers = self.answers(source, clock, keys, {})
        if keys is None:
            return self.sharding.join([answers[index].arrays for index in range(self.n_shards)])
        return {name: self._in_order(name, wanted, answers) for name, wanted in keys.items()}

    def answers(
        self, source: int, clock: int, keys: Mapping[str, Array] | None, had: Mapping[int, Values]
    ) -> dict[int, Values]:
        """As `pull`, the answer of each shard, by one who may still have its answer to an earlier pull."""
        wanted = self._wanted(keys)
        answers: dict[int, Values] = {}
        for index, mine in wanted.items():
            before = had.get(index)
            pull = Pull(source, clock, mine, -1 if before is None else before.version)
            reply, waited = self._held[index].pull(pull, self._deadline)
            answers[index] = _answer(reply, before)
            got = reply.nbytes if isinstance(reply, Values) else 0
            self._meter.count(
                pulled_bytes=got + pull.nbytes, unchanged=isinstance(reply, Unchanged), waited=waited
            )
        oldest = min((answer.slowest for answer in answers.values()), default=clock)
        self._meter.count(stale=max(0, clock - oldest), pulls=1)
        return answers

    def read(self) -> dict[str, Any]:
        """Whole arrays as they are now, read-only, whoever is how far; not counted."""
        everything = [held.read() for held in self._held]
        return self.sharding.join([values.arrays for values in everything])

    def lose(self, index: int) -> None:
        """Drop a shard as if its memory were gone, and recover it from its backup to the same bits.

        Raises `TrainingError` if there is none: then the parameters are gone.
        """
        self._held[index].recover()
        self._meter.count(recovered=1)

    def _wanted(self, keys: Mapping[str, Array] | None) -> dict[int, dict[str, Array] | None]:
        """What to ask of each shard; those that hold none of the keys are left out."""
        if keys is None:
            return dict.fromkeys(range(self.n_shards))
        wanted: dict[int, dict[str, Array] | None] = {}
        for name, array in keys.items():
            for index, places in enumerate(self.sharding.route(name, array)):
                chosen = array[places]
                if len(chosen):
                    mine = wanted.setdefault(index, {})
                    assert mine is not None
                    mine[name] = chosen - self.sharding.start(name, index)
        return wanted

    def _in_order(self, name: str, keys: Array, answers: Mapping[int, Values]) -> Array:
        """Rows from several shards, in the order in which their keys were asked for."""
        routed = self.sharding.route(name, keys)
        rows: Array | None = None
        for index, answer in answers.items():
            if name in answer.arrays:
                values = np.asarray(answer.arrays[name])
                rows = np.empty((len(keys), *values.shape[1:]), values.dtype) if rows is None else rows
                rows[routed[index]] = values
        return np.empty(0) if rows is None else rows


def _answer(reply: Values | Unchanged, before: Values | None) -> Values:
    if isinstance(reply, Values):
        return reply
    assert before is not None
    return Values(before.source, reply.clock, reply.version, reply.slowest, before.arrays)
