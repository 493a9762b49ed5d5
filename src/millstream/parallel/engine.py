"""Where workers run.

An engine is a value that says how many workers there are and of what kind; it owns no thread and no process. A crew
is what does the work: opened for a fit, closed after it, whatever happens in between.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from millstream.parallel.blas import one_blas_thread
from millstream.parallel.operation import Op
from millstream.parallel.part_queue import Dynamic, MakeQueue
from millstream.parallel.tree import PairwiseTree, Reduction

__all__ = ["Crew", "Engine", "Work"]

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Work:
    """What a crew did in one run; seconds summed over workers.

    compute: in the task; combine: in handing over the result, which includes combining; wait: neither, while the run
    lasted. lost: workers lost during it.
    """

    compute: float
    combine: float
    wait: float
    lost: tuple[int, ...]


class Crew(Protocol):
    """Workers that live."""

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
        """Compute ``task(index, attempt)`` for every index and hand each result to ``accept(index, result)``.

        combine: given where neighbouring results may be combined before they are handed over. A crew whose workers
        are far away combines 2**level of them, the first at a multiple of that, by `pairwise`, and calls
        ``accept(first, result, level)``; it pickles `task` and `combine`. Others leave all combining to `accept`.

        queue: which of the waiting parts a worker gets next.

        Laws: every index is accepted at least once before `run` returns, in any order, on any worker; an index may be
        accepted twice, the second time even after `run` has returned, if its first worker was slow. An exception of
        the task ends the run and is raised as it is. No wait is without a deadline: a worker that dies, or holds a
        part for longer than the engine's deadline, is lost and its part computed by another.

        Raises `WorkerLost` when every worker died, `DeadlineExceeded` when the last of them was overdue.
        """
        ...


@dataclass(frozen=True)
class _Call:
    """What `Engine.map` does, as a task."""

    function: Callable[[Any], Any]
    tasks: Sequence[Any]

    def __call__(self, index: int, attempt: int) -> Any:
        return self.function(self.tasks[index])


class Engine(ABC):
    """Base of every engine; tests find engines as its subclasses."""

    n_workers: int
    # True if the crew takes a task that is `Prepared`, which training through a parameter server needs.
    prepares: bool = False

    @abstractmethod
    def crew(self) -> AbstractContextManager[Crew]:
        """A crew for one fit."""

    def reduction(self, n_parts: int, operations: Mapping[str, Op]) -> Reduction:
        """Where the statistics of one step meet."""
        return PairwiseTree(n_parts, operations)

    @property
    def keeps_checkpoints(self) -> bool:
        """False where the same fit runs in several processes and another of them keeps its checkpoint."""
        return True

    def shared(self, read: Callable[[], T]) -> T:
        """What `read` returns; where the same fit runs in several processes, one reads for all."""
        return read()

    def map(self, function: Callable[[T], R], tasks: Sequence[T]) -> list[R]:
        """``[function(task) for task in tasks]``, in that order, on the workers; a lost worker's tasks again.

        >>> from millstream.parallel import Threads
        >>> Threads(2).map(abs, [-3, 1, -2])
        [3, 1, 2]
        """
        results: dict[int, R] = {}
        with one_blas_thread(), self.crew() as crew:
            crew.run(_Call(function, tasks), results.__setitem__, len(tasks), step=0)
        return [results[index] for index in range(len(tasks))]
