"""Workers as processes of this machine: for Python code that holds the interpreter lock.

Workers are forked from a small server process (`fork_server_process`), which takes milliseconds. They are sent a
description of the parts once, parameters each step, and answer with statistics; rows, parameters and statistics go
through shared memory that has no name (`shared_memory`), a row-major copy by its file descriptor. Neighbouring parts
that one worker computes are combined there, in the order of the fixed tree. A part goes to the worker that keeps
something of it, if that one has time.

A worker that dies is noticed by the end of its channel, one that is stuck by its deadline, and then killed; others
compute its parts in the same step.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from millstream.errors import InputError
from millstream.parallel.engine import Crew, Engine
from millstream.parallel.fault import Fault
from millstream.parallel.inline import Inline
from millstream.parallel.process_crew import ProcessCrew
from millstream.parallel.worker_process import nested

__all__ = ["Processes"]


class Processes(Engine):
    """`n` processes, by default one for each core this process may use.

    deadline: how long one call of `local` may take before its worker counts as stuck and is killed.
    faults: injected deaths (SIGKILL) and hangs (SIGSTOP), for tests.

    What lies in memory is copied once for each fit, into memory that the workers share; a Parquet file and the
    row-major copy are read where they are.

    Algorithm and function are pickled, so they are defined at the top of a module or script. Of a script the workers
    load what does not stand under ``if __name__ == "__main__":``. Inside `local` or `map` of another `Processes` there
    is no further process: everything runs on the worker that asks.

    >>> import math
    >>> Processes(2).map(math.factorial, [3, 4, 5])
    [6, 24, 120]
    """

    prepares = True

    def __init__(
        self, n: int | None = None, deadline: timedelta = timedelta(minutes=10), faults: Sequence[Fault] = ()
    ) -> None:
        self.n_workers = len(os.sched_getaffinity(0)) if n is None else n
        if self.n_workers < 1:
            raise InputError(f"Processes({n}); there is at least one worker")
        if deadline <= timedelta(0):
            raise InputError(f"Processes(deadline={deadline!r}); a deadline is positive")
        self.deadline = deadline
        self.faults = tuple(faults)

    @contextmanager
    def crew(self) -> Iterator[Crew]:
        if nested():
            with Inline(workers=1).crew() as here:
                yield here
            return
        crew = ProcessCrew(self.n_workers, self.deadline, self.faults)
        try:
            yield crew
        finally:
            crew.close()

    def __repr__(self) -> str:
        return f"Processes({self.n_workers})"
