"""Workers as the ranks of an MPI job: the same script, started N times by ``mpiexec -n N``.

Every rank runs the whole script. `init`, `plan` and `update` see the same values everywhere; of the parts each rank
computes a contiguous share, the same in every step, so rows and what `keep` holds stay with it. Within its share a
rank combines the nodes of the fixed tree that lie there, then ranks climb the tree together::

    rank 0                rank 1                         16 parts on 2 ranks
    parts 0-7             parts 8-15
    compute, combine      compute, combine
    outcome           <─  outcome                        who failed, how far everyone is
    verdict           ─>  verdict
    node 0-7          <─  node 8-15
    root              ─>  root                           both update

Statistics travel as raw buffers beside a small pickle of their names (PEP 574); rows don't travel. A wait polls, so it
ends at the deadline; MPI then ends the job, as it does when a rank dies.
"""

from __future__ import annotations

import functools
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic, perf_counter, sleep
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

import numpy as np

from millstream.errors import InputError, MillstreamError, Refused, TrainingError
from millstream.parallel.engine import Crew, Engine, Work
from millstream.parallel.inline import Inline
from millstream.parallel.local import Contribution, Local
from millstream.parallel.operation import SUM
from millstream.parallel.part_queue import Dynamic, MakeQueue
from millstream.parallel.tree import pairwise

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm

__all__ = ["MPI", "refuse_ranks"]

T = TypeVar("T")
Packet = Sequence[Any]  # a head, and buffers
Node = tuple[int, int]  # of the tree: level and place

LARGE = 16 << 10  # bytes from which a buffer is a message of its own
SPIN, PAUSE = 50e-6, 1e-3  # seconds: a wait polls without a pause at first, later with one of up to PAUSE
NATIVE = "bhilqBHILQfd"  # types of numbers that MPI adds

_in_task = False  # True while this rank computes a part


class MPI(Engine):
    """The ranks of ``mpiexec -n N python script.py``; outside mpiexec there is one.

    reduce: "tree" for the fixed tree and its bits, or "native" for MPI's own Allreduce, in place. The latter is for
    statistics whose fields are all sums of plain numbers, where every rank has a part; others take the tree. It adds in
    an order that MPI picks, so promise 2 does not hold: bits depend on the number of ranks. A sum s of the statistics
    s_1 ... s_n of n parts is off the exact one by at most ``g * (|s_1| + ... + |s_n|)``, with
    ``g = (n-1)u / (1 - (n-1)u)`` and u = 2**-53 for float64, 2**-24 for float32 (Higham, *Accuracy and Stability of
    Numerical Algorithms*, 2nd edition, section 4.2: any order of summation).
    deadline: how long a rank is waited for; it covers its share of a step's parts. Then the job ends.

    Every rank calls `fit` or `map` in the same order with the same arguments, and gets the same result; `monitor` is
    called on each. A part that raises on one rank ends the fit with its error on all. A rank that dies ends the job,
    because MPI can't go on without it; the checkpoint, which rank 0 alone reads and writes, is as of the last step.

    Raises `Refused` if mpi4py or an MPI library is missing.

    >>> import math
    >>> MPI().map(math.factorial, [3, 4, 5])
    [6, 24, 120]
    """

    def __init__(
        self, reduce: Literal["tree", "native"] = "tree", deadline: timedelta = timedelta(minutes=10)
    ) -> None:
        if reduce not in ("tree", "native"):
            raise InputError(f"MPI(reduce={reduce!r}); expected 'tree' or 'native'")
        if deadline <= timedelta(0):
            raise InputError(f"MPI(deadline={deadline!r}); a deadline is positive")
        world = _world()
        self.n_workers, self.rank = world.Get_size(), world.Get_rank()
        self.reduce, self.deadline = reduce, deadline

    @property
    def keeps_checkpoints(self) -> bool:
        """On rank 0."""
        return self.rank == 0 or _in_task

    def shared(self, read: Callable[[], T]) -> T:
        """What `read` returns on rank 0."""
        if self.n_workers == 1 or _in_task:
            return read()
        ranks = _Ranks(self.deadline)
        value, error = None, None
        if self.rank == 0:
            try:
                value = read()
            except Exception as raised:  # noqa: BLE001 - carried to every rank, which raises it
                error = raised
        found: T = ranks.meet("the checkpoint", value, error)[0]
        return found

    @contextmanager
    def crew(self) -> Iterator[Crew]:
        if _in_task:
            with Inline(workers=1).crew() as nested:
                yield nested
            return
        ranks = _Ranks(self.deadline)
        try:
            yield _RankCrew(ranks, self.reduce)
        except KeyboardInterrupt:
            ranks.post.abort(f"rank {self.rank} was interrupted")
            raise
        except BaseException as error:
            if not ranks.failed:
                ranks.tell("the end", error)
            raise
        ranks.meet("the end")

    def __repr__(self) -> str:
        return f"MPI({'' if self.reduce == 'tree' else repr(self.reduce)})"


def refuse_ranks(what: str, engine: object) -> None:
    """Refuse what writes files on one rank that another would have to read."""
    if isinstance(engine, MPI) and engine.n_workers > 1:
        raise Refused(
            f"{what} moves rows through files that are one process's own, so it does not spread over the "
            f"{engine.n_workers} ranks of {engine!r}; give it engine=Threads() or Processes()"
        )


@functools.cache
def _world() -> Intracomm:
    try:
        from mpi4py import MPI as library  # starts MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: mpi4py finds no MPI library
        raise Refused(
            f"MPI() needs mpi4py and an MPI library ({error}); `pip install 'millstream[mpi]'` brings both"
        ) from error
    return library.COMM_WORLD


@dataclass(frozen=True)
class _Failed:
    """What stands in the tree where combining raised."""

    error: BaseException


class _RankCrew:
    def __init__(self, ranks: _Ranks, reduce: str) -> None:
        self._ranks, self._reduce = ranks, reduce

    def run(
        self,
        task: Callable[[int, int], Any],
        accept: Callable[..., None],
        n_tasks: int,
        *,
        step: int,
        combine: Callable[[Any, Any], Any] | None = None,
        queue: MakeQueue = Dynamic,
    ) -> Work:
        """As `Crew` says; `queue` has no say, because every rank has parts of its own."""
        ranks, started = self._ranks, perf_counter()
        # rounded up, so that the first part is rank 0's
        bounds = [-(-rank * n_tasks // ranks.size) for rank in range(ranks.size + 1)]
        share = _Share(task, combine, bounds[ranks.rank], bounds[ranks.rank + 1])
        error = share.work()
        layout = _layout(task, share.held) if self._reduce == "native" and error is None else None
        sent = share.results if combine is None else layout
        told = ranks.meet(f"step {step} of {n_tasks} parts", (share.compute, share.combining, sent), error)
        computing, combining = sum(one[0] for one in told), sum(one[1] for one in told)
        if combine is None:
            for first, (_, _, results) in zip(bounds, told, strict=False):
                for offset, result in enumerate(results):
                    accept(first + offset, result)
        elif n_tasks:
            level = (n_tasks - 1).bit_length()
            layouts = [one[2] for one in told]
            if layouts[0] is not None and layouts.count(layouts[0]) == ranks.size > 1:
                root, seconds = self._allreduce(share, n_tasks)
            else:
                root, seconds = self._climb(share, bounds)
            combining += seconds
            accept(0, root, level)
        wait = max(0.0, (perf_counter() - started) * ranks.size - computing - combining)
        return Work(computing, combining, wait, ())

    def _climb(self, share: _Share, bounds: Sequence[int]) -> tuple[Any, float]:
        """The root of the tree, and the seconds all ranks took to combine for it.

        A node belongs to the rank of its first part. Every rank goes through its nodes in one order, level by level and
        from left to right, and sends only to lower ranks: so no two wait for each other.
        """
        post, held, n_parts = self._ranks.post, share.held, bounds[-1]
        carried = {node: (value, 0.0) for node, value in held.items()}
        level, width = 0, n_parts
        while width > 1:
            for place in sorted(k for (at, k) in carried if at == level):
                if (level, place) not in carried:  # was a right neighbour
                    continue
                value = carried.pop((level, place))
                if place % 2:
                    post.send(packed(value), [_owner(bounds, (place - 1) << level)])
                    continue
                if place + 1 < width:
                    owner = _owner(bounds, (place + 1) << level)
                    own = owner == self._ranks.rank
                    right = carried.pop((level, place + 1)) if own else unpacked(post.receive(owner))
                    value = _met(value, right, share.combine)
                carried[level + 1, place // 2] = value
            level, width = level + 1, (width + 1) // 2
        root, seconds = unpacked(post.broadcast(packed(carried.get((level, 0)))), carried.get((level, 0)))
        if isinstance(root, _Failed):
            self._ranks.failed = True
            raise root.error
        return root, seconds

    def _allreduce(self, share: _Share, n_parts: int) -> tuple[Contribution, float]:
        """The sum as MPI adds, the same on every rank, and the seconds of one rank in it."""
        assert share.combine is not None
        started = perf_counter()
        own = pairwise(share.held.values(), share.combine)
        totals = {name: np.array(array, order="C") for name, array in own.statistic.items()}
        for array in totals.values():
            self._ranks.post.add(array)
        nbytes = own.nbytes * n_parts // (share.last - share.first)  # fields of one shape in every part
        return Contribution(totals, nbytes), perf_counter() - started


class _Share:
    """A rank's parts ``first`` to ``last``, computed and combined to the nodes of the tree that lie among them."""

    def __init__(self, task: Any, combine: Any, first: int, last: int) -> None:
        self.task, self.combine, self.first, self.last = task, combine, first, last
        self.held: dict[Node, Any] = {}
        self.results: list[Any] = []
        self.compute = self.combining = 0.0

    def work(self) -> BaseException | None:
        """Compute; returns what was raised."""
        global _in_task
        started = perf_counter()
        _in_task = True
        try:
            if self.combine is None:
                self.results = list(self._computed(self.first, self.last))
            else:
                for level, place in _nodes(self.first, self.last):
                    results = self._computed(place << level, (place + 1) << level)
                    self.held[level, place] = pairwise(results, self.combine)
        except Exception as error:  # noqa: BLE001 - carried to every rank, which raises it
            return error
        finally:
            _in_task = False
            self.combining = perf_counter() - started - self.compute
        return None

    def _computed(self, first: int, last: int) -> Iterator[Any]:
        for index in range(first, last):
            before = perf_counter()
            result = self.task(index, 0)
            self.compute += perf_counter() - before
            yield result


def _nodes(first: int, last: int) -> Iterator[Node]:
    """The largest nodes of the tree that cover the parts ``first`` to ``last``, from left to right.

    >>> list(_nodes(3, 9))
    [(0, 3), (2, 1), (0, 8)]
    """
    while first < last:
        level = (last - first).bit_length() - 1
        while first % (1 << level):
            level -= 1
        yield level, first >> level
        first += 1 << level


def _owner(bounds: Sequence[int], part: int) -> int:
    return next(rank for rank in range(len(bounds) - 1) if bounds[rank] <= part < bounds[rank + 1])


def _met(left: tuple[Any, float], right: tuple[Any, float], combine: Any) -> tuple[Any, float]:
    """Two neighbours combined, with the seconds that took on all ranks so far."""
    started = perf_counter()
    value, seconds = left[0], left[1] + right[1]
    if not isinstance(value, _Failed):
        try:
            value = right[0] if isinstance(right[0], _Failed) else combine(value, right[0])
        except Exception as error:  # noqa: BLE001 - carried to every rank, which raises it
            value = _Failed(_sendable(error))
    return value, seconds + perf_counter() - started


def _layout(task: Any, held: Mapping[Node, Any]) -> tuple[Any, ...] | None:
    """Names, types and shapes of what MPI can add by itself, else None."""
    if not isinstance(task, Local) or not held:
        return None
    operations = getattr(task.setting.algorithm, "combine", {})
    statistic = next(iter(held.values())).statistic
    plain = all(operations.get(name, SUM) is SUM and a.dtype.char in NATIVE for name, a in statistic.items())
    return tuple((name, a.dtype.str, a.shape) for name, a in statistic.items()) if plain else None


class _Ranks:
    """Everyone of the job. failed: the ranks know of an error of one of them, and will not meet again."""

    def __init__(self, deadline: timedelta) -> None:
        world = _world()
        self.rank, self.size = world.Get_rank(), world.Get_size()
        self.post = _Post(deadline)
        self.failed = False

    def meet(self, at: str, value: Any = None, error: BaseException | None = None) -> list[Any]:
        """What every rank brings, in their order; an error of the lowest rank that has one is raised on all."""
        told = self.tell(at, error, value)
        self.failed = True
        for rank, (_, _, raised) in enumerate(told):
            if raised is not None and rank == self.rank and error is not None:
                raise error
            if raised is not None:
                raised.add_note(f"on rank {rank} of {self.size}")
                raise raised
        if len({place for place, _, _ in told}) > 1:
            places = "; ".join(f"rank {rank} is at {place}" for rank, (place, _, _) in enumerate(told))
            raise TrainingError(
                f"{places}. Every rank must fit the same algorithm on the same data, with the same arguments, in the "
                "same order: look for an `if rank == 0` around fit or map, or for data that differ"
            )
        self.failed = False
        return [brought for _, brought, _ in told]

    def tell(
        self, at: str, error: BaseException | None, value: Any = None
    ) -> list[tuple[str, Any, BaseException | None]]:
        """Where every rank is, what it brings, and what was raised there."""
        if self.size == 1:
            return [(at, value, error)]
        try:
            parcel = packed((at, value, None if error is None else _sendable(error)))
        except (pickle.PicklingError, TypeError, AttributeError) as reason:
            unsent = Refused(
                f"a result can't be sent to the other ranks: {reason}; return arrays or plain values"
            )
            parcel = packed((at, None, unsent))
        if self.rank:
            self.post.send(parcel, [0])
            return list(unpacked(self.post.broadcast(())))
        told = [unpacked(parcel), *(unpacked(self.post.receive(rank, at)) for rank in range(1, self.size))]
        self.post.broadcast(packed(told))
        return told


class _Post:
    """Messages between ranks. Every wait has a deadline, at which the whole job ends."""

    def __init__(self, deadline: timedelta) -> None:
        self._world = _world()
        self.rank, self.size = self._world.Get_rank(), self._world.Get_size()
        # Rank 0 waits for all; the others for rank 0, which may have begun to wait one deadline later.
        self._patience = deadline.total_seconds() * (2 if self.rank else 1)
        self._comm = self._own() if self.size > 1 else self._world

    def _own(self) -> Intracomm:
        """A communicator that the script's own messages don't use; made once."""
        if not _own_communicator:
            comm, request = self._world.Idup()
            self._until(request.Test, "the other ranks", "the first fit or map")
            _own_communicator.append(comm)
        return _own_communicator[0]

    def send(self, packet: Packet, to: Sequence[int]) -> None:
        """Returns when the packet's memory may be used again."""
        requests = [self._comm.Isend([part, _bytes()], rank) for part in packet for rank in to]
        for request in requests:
            self._until(request.Test, f"ranks {list(to)} to take a result", "a step")

    def receive(self, source: int, at: str = "a step") -> Packet:
        head = self._take(source, at, None)
        count = int(np.frombuffer(head, np.int64, 1)[0])
        sizes = np.frombuffer(head, np.int64, count, offset=8).tolist()
        return [head, *(self._take(source, at, size) for size in sizes)]

    def broadcast(self, packet: Packet) -> Packet:
        """Rank 0's packet, on every rank, down a binomial tree."""
        low = self.rank & -self.rank if self.rank else 1 << self.size.bit_length()
        if self.rank:
            packet = self.receive(self.rank - low)
        below = [self.rank + (1 << bit) for bit in reversed(range(low.bit_length() - 1))]
        self.send(packet, [rank for rank in below if rank < self.size])
        return packet

    def add(self, array: np.ndarray[Any, Any]) -> None:
        """Make the array the sum of every rank's."""
        from mpi4py import MPI as library

        request = self._comm.Iallreduce(library.IN_PLACE, array, library.SUM)
        self._until(request.Test, "the other ranks", "a sum")

    def abort(self, why: str) -> None:
        """End every rank of the job; of one rank alone, nothing."""
        if self.size > 1:
            print(f"millstream: {why}; the job ends on all {self.size} ranks.", file=sys.stderr, flush=True)
            self._world.Abort(1)

    def _take(self, source: int, at: str, size: int | None) -> Any:
        from mpi4py import MPI as library

        status = library.Status()
        found = self._until(lambda: self._comm.Improbe(source, status=status), f"rank {source}", at)
        buffer = np.empty(status.Get_count(library.BYTE), np.uint8)
        assert size is None or size == len(buffer)
        self._until(found.Irecv([buffer, library.BYTE]).Test, f"rank {source}", at)
        return buffer

    def _until(self, poll: Callable[[], T | None], whom: str, at: str) -> T:
        """What `poll` returns once that is true. The first rank to lose patience ends the job."""
        started, pause = monotonic(), SPIN
        while not (got := poll()):
            waited = monotonic() - started
            if waited > self._patience:
                self._give_up(whom, at)
            if waited > SPIN:
                sleep(pause)
                pause = min(1.5 * pause, PAUSE)
        return got

    def _give_up(self, whom: str, at: str) -> NoReturn:
        self.abort(
            f"rank {self.rank} has waited {self._patience:g} seconds for {whom} at {at}. Look whether it still runs, "
            "raise MPI(deadline=), or make parts smaller; a checkpoint is as of the last step kept"
        )
        raise AssertionError("MPI_Abort returned")


_own_communicator: list[Intracomm] = []


@functools.cache
def _bytes() -> Any:
    from mpi4py import MPI as library

    return library.BYTE


def packed(value: Any) -> Packet:
    """::

        int64                number of large buffers, n
        int64 x n            their sizes in bytes
        bytes                pickle, protocol 5, without them

    and then the buffers, as they lie in memory.
    """
    large: list[memoryview] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes >= LARGE:
            large.append(raw)
        return raw.nbytes < LARGE

    stream = pickle.dumps(value, protocol=5, buffer_callback=keep)
    sizes = np.array([len(large), *(raw.nbytes for raw in large)], np.int64)
    return [sizes.tobytes() + stream, *large]


def unpacked(packet: Packet, own: Any = None) -> Any:
    """The value; own: the value itself, where it was packed here."""
    if own is not None:
        return own
    head, *large = packet
    count = int(np.frombuffer(head, np.int64, 1)[0])
    stream = memoryview(head)[8 * (count + 1) :]
    return pickle.loads(stream, buffers=large)  # noqa: S301 - of a rank of this job


def _sendable(error: BaseException) -> BaseException:
    """The error, or where it can't be pickled there and back, its text."""
    try:
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - pickled here
    except (pickle.PicklingError, MillstreamError, TypeError, ValueError, AttributeError, IndexError):
        copy = TrainingError(f"{type(error).__name__}: {error}")
        for note in getattr(error, "__notes__", ()):
            copy.add_note(note)
    assert isinstance(copy, BaseException)
    return copy
