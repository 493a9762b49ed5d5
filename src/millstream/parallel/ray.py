"""Workers as Ray actors: on a cluster, or on a local one that is started when it is first needed.

Actors are sent a description of the parts once, parameters each step, and answer with statistics, all through Ray's
object store (`ray_worker`). Neighbouring parts that one actor computes are combined there, and the rest on the
driver, in the order of the fixed tree. A part goes to the actor that keeps something of it, if that one has time.

An actor that dies, with its machine or alone, is noticed by Ray, one that is stuck by its deadline; others compute its
parts in the same step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta

from millstream.errors import InputError
from millstream.parallel.engine import Crew, Engine
from millstream.parallel.fault import Fault
from millstream.parallel.inline import Inline
from millstream.parallel.ray_cluster import connect, disconnect, import_ray
from millstream.parallel.ray_crew import RayCrew
from millstream.parallel.worker_process import nested

__all__ = ["Ray"]


class Ray(Engine):
    """`n` actors of a Ray cluster.

    address: of the cluster, as `ray.init` takes it. None: the one that this process is connected to, or else a local
    one, started for the first fit, which takes 5 to 20 seconds, and ended at the exit of the process or of a ``with``
    block of the engine.
    resources: what each actor asks of a cluster, by Ray's names; by default ``{"CPU": 1}``. Of a cluster that was
    started here nothing is asked by default, so any number of workers fits.
    deadline: how long one call of `local` may take before its actor counts as stuck and is killed.
    object_store_memory: bytes of the object store of a cluster that is started here; by default Ray's own choice.
    faults: injected deaths (SIGKILL) and hangs (SIGSTOP), for tests.

    What lies in memory is put into the object store once for each fit. Parquet files are read where they are, under
    the same path on every machine. On the driver's machine the row-major copy is mapped; actors elsewhere are sent
    its bytes. Millstream is installed on every machine of the cluster. Algorithm and function are pickled, as for
    `Processes`.

        with Ray(2) as engine:
            fit(algorithm, dataset, engine=engine)

    Raises `Refused` where the package ray is not installed.
    """

    def __init__(
        self,
        n: int,
        address: str | None = None,
        resources: Mapping[str, float] | None = None,
        deadline: timedelta = timedelta(minutes=10),
        object_store_memory: int | None = None,
        faults: Sequence[Fault] = (),
    ) -> None:
        import_ray()
        if n < 1:
            raise InputError(f"Ray({n}); there is at least one worker")
        if deadline <= timedelta(0):
            raise InputError(f"Ray(deadline={deadline!r}); a deadline is positive")
        self.n_workers, self.address, self.deadline = n, address, deadline
        self.resources = None if resources is None else dict(resources)
        self.object_store_memory = object_store_memory
        self.faults = tuple(faults)

    @contextmanager
    def crew(self) -> Iterator[Crew]:
        if nested():
            with Inline(workers=1).crew() as here:
                yield here
            return
        started_here = self._connect()
        resources = self.resources or {"CPU": 0.0 if started_here else 1.0}
        crew = RayCrew(self.n_workers, resources, self.deadline, self.faults)
        try:
            yield crew
        finally:
            crew.close()

    def __enter__(self) -> Ray:
        self._connect()
        return self

    def __exit__(self, *error: object) -> None:
        disconnect()

    def _connect(self) -> bool:
        return connect(self.address, self.n_workers, self.object_store_memory)

    def __repr__(self) -> str:
        return (
            f"Ray({self.n_workers})" if self.address is None else f"Ray({self.n_workers}, {self.address!r})"
        )
