"""One shard of a parameter server: messages in, replies out, no I/O, no lock, no clock on the wall.

::

    Push   a delta of a round the source hasn't finished     applied once; again: nothing changes
    Clock  the source has finished a round                   may release pulls that wait
    Pull   at clock c                                        answered once every source has finished the
                                                             rounds below c - bound; waits until then

The state is a function of the messages and their order, so a second server that is handed the same messages is a
replica, and a snapshot with the messages since is a recovery. Ho et al., NIPS 2013; Li et al., "Scaling distributed
machine learning with the parameter server", OSDI 2014, sections 3.4 and 4.3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from millstream.errors import TrainingError
from millstream.kernels.sparse_update import add_rows, first_outside
from millstream.parallel.keyed_rows import Keyed, KeyedRows
from millstream.parallel.shard import Shard, Sparse
from millstream.parallel.shard_messages import Clock, Message, Pull, Push, Pushed, Reply, Unchanged, Values
from millstream.parallel.vector_clock import VectorClock

__all__ = ["Apply", "ShardServer", "add"]

Array = np.ndarray[Any, Any]
Delta = Mapping[str, Array | Sparse]
Apply = Callable[[Shard, Delta], Mapping[str, Array]]


def add(shard: Shard, delta: Delta) -> Shard:
    """The update function unless another is given: adds in place.

    >>> add(Shard(0, {"w": np.zeros(3)}, {"w": 0}), {"w": Sparse([0, 2, 2], [1.0, 2.0, 3.0])})["w"]
    array([1., 0., 5.])
    """
    for name, change in delta.items():
        array = shard[name]
        if isinstance(change, Sparse):
            width = int(np.prod(array.shape[1:]))
            values = np.ascontiguousarray(change.values, array.dtype).reshape(-1, width)
            add_rows(array.reshape(-1, width), change.keys, values)
        else:
            np.add(array, change, out=array, casting="same_kind")
    return shard


@dataclass
class _Round:
    """How far a source is within its present round: the number of its next push."""

    next_number: int = 0


class ShardServer:
    """A shard and those who read and update it.

    shard: the first values; copied. sources: how many push. bound: of staleness; None for none.
    apply: from the shard and a delta to the shard; may work in place.

    >>> server = ShardServer(Shard(0, {"w": np.zeros(2)}, {"w": 0}), sources=2, bound=0)
    >>> server.handle(Push(source=0, clock=0, number=0, delta={"w": np.ones(2)}))
    [Pushed(source=0, clock=0, number=0, fresh=True)]
    >>> server.handle(Clock(source=0, clock=0)), server.handle(Pull(source=0, clock=1))
    ([], [])
    >>> [(reply.source, reply.arrays["w"]) for reply in server.handle(Clock(source=1, clock=0))]
    [(0, array([1., 1.]))]
    """

    def __init__(
        self,
        shard: Shard,
        sources: int,
        bound: int | None,
        apply: Apply = add,
        keyed: Mapping[str, Keyed] | None = None,
    ) -> None:
        # configuration
        self._bound, self._apply = bound, apply
        # kept in a snapshot
        self._shard = shard.with_arrays({name: array.copy(order="C") for name, array in shard.items()})
        self._keyed = {name: KeyedRows(kind) for name, kind in (keyed or {}).items()}
        self._clocks = VectorClock(sources)
        self._rounds = [_Round() for _ in range(sources)]
        self._version = 0
        self._waiting: list[Pull] = []
        # made again when it is missing
        self._read: Values | None = None

    def handle(self, message: Message) -> list[Reply]:
        """Take one message; returns the answers that are due, also to pulls that waited for it.

        Raises `TrainingError`, with nothing changed, for a message that can't follow what came before or doesn't fit
        the parameters.
        """
        match message:
            case Push():
                return [self._push(message)]
            case Pull():
                return self._pull(message)
            case Clock():
                return self._clock(message)

    @property
    def slowest(self) -> int:
        """Rounds that every source has finished."""
        return self._clocks.slowest

    @property
    def nbytes(self) -> int:
        return self._shard.nbytes + sum(rows.nbytes for rows in self._keyed.values())

    def read(self) -> Values:
        """Everything, as it is now, bound or no bound: for who is no source."""
        return Values(-1, -1, self._version, self._clocks.slowest, self._everything())

    def copy(self) -> ShardServer:
        """A twin: handed the same messages it gives the same replies."""
        twin = ShardServer(self._shard, len(self._clocks), self._bound, self._apply)
        twin._keyed = {name: rows.copy() for name, rows in self._keyed.items()}
        twin._clocks = VectorClock(len(self._clocks), self._clocks.snapshot().tolist())
        twin._rounds = [_Round(one.next_number) for one in self._rounds]
        twin._version, twin._waiting = self._version, list(self._waiting)
        return twin

    def _push(self, push: Push) -> Pushed:
        own, expected = self._clocks[push.source], self._rounds[push.source].next_number
        fresh = (push.clock, push.number) == (own, expected)
        if fresh:
            self.check(push.delta)
            self._rounds[push.source].next_number += 1
            if push.delta:
                self._change(push.delta)
                self._version += 1
                self._read = None
        elif (push.clock, push.number) > (own, expected):
            raise TrainingError(
                f"source {push.source} pushes number {push.number} of clock {push.clock}; the next of it is number "
                f"{expected} of clock {own}: a push or a clock got lost, send again from there"
            )
        return Pushed(push.source, push.clock, push.number, fresh)

    def _clock(self, message: Clock) -> list[Reply]:
        own = self._clocks[message.source]
        if message.clock > own:
            raise TrainingError(f"source {message.source} ends round {message.clock}; it is in round {own}")
        if message.clock < own:
            return []
        self._clocks.advance(message.source)
        self._rounds[message.source] = _Round()
        due = [pull for pull in self._waiting if self._clocks.admits(pull.clock, self._bound)]
        self._waiting = [pull for pull in self._waiting if not self._clocks.admits(pull.clock, self._bound)]
        return [self._answer(pull) for pull in due]

    def _pull(self, pull: Pull) -> list[Reply]:
        if self._clocks.admits(pull.clock, self._bound):
            return [self._answer(pull)]
        self._waiting.append(pull)
        return []

    def _answer(self, pull: Pull) -> Reply:
        if pull.have == self._version:
            return Unchanged(pull.source, pull.clock, self._version, self._clocks.slowest)
        if pull.keys is None:
            arrays = self._everything()
        else:
            arrays = {
                name: self._keyed[name].read(keys) if name in self._keyed else self._shard[name][keys]
                for name, keys in pull.keys.items()
            }
        return Values(pull.source, pull.clock, self._version, self._clocks.slowest, arrays)

    def _everything(self) -> Mapping[str, Array | Sparse]:
        """A copy that no later push changes; made once a version and shared by all who read it."""
        if self._read is None:
            arrays: dict[str, Array | Sparse] = {}
            for name, array in self._shard.items():
                arrays[name] = kept = array.copy()
                kept.flags.writeable = False
            arrays |= {name: rows.all() for name, rows in self._keyed.items()}
            self._read = Values(-1, -1, self._version, -1, arrays)
        return self._read.arrays

    def check(self, delta: Delta) -> None:
        """Raise `TrainingError` if a delta doesn't fit the parameters. The answer never changes: it needs no lock."""
        for name, change in delta.items():
            rows = self._keyed.get(name)
            if rows is None:
                self._check_dense(name, change, self._shard[name])
            elif not isinstance(change, Sparse) or change.values.size != len(change.keys) * rows.kind.width:
                raise TrainingError(
                    f"a delta of {name!r} is no Sparse of width {rows.kind.width}, as its Keyed says"
                )

    def _check_dense(self, name: str, change: Array | Sparse, array: Array) -> None:
        if isinstance(change, Sparse):
            shape, expected = change.values.shape, (len(change.keys), *array.shape[1:])
            outside = first_outside(change.keys, 0, len(array))
            if outside >= 0:
                raise TrainingError(
                    f"a delta of {name!r} has key {change.keys[outside]} of a shard with {len(array)} rows"
                )
        else:
            shape, expected = change.shape, array.shape
        if shape != expected:
            raise TrainingError(f"a delta of {name!r} has shape {shape}; expected {expected}")

    def _change(self, delta: Delta) -> None:
        dense = {name: change for name, change in delta.items() if name not in self._keyed}
        if dense:
            changed = self._apply(self._shard, dense)
            if changed is not self._shard:
                self._shard = self._shard.with_arrays(
                    {name: np.asarray(changed[name]) for name in self._shard}
                )
        for name in delta.keys() - dense.keys():
            change = delta[name]
            assert isinstance(change, Sparse)
            self._keyed[name].add(change.keys, change.values.reshape(len(change.keys), -1))
