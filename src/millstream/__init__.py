"""Millstream: scalable machine learning in Python, from the first event to the edge.

The packages stand in the order in which data flows::

    log  ->  stream  ->  learn  ->  models  ->  deploy        what happens to the data
    kernels, data, parallel                                    what everything stands on

Every public name is loaded on first use, so that ``import millstream`` costs milliseconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names for type checkers; a test compares the two lists
    from .clock import (
        Clock as Clock,
        ManualClock as ManualClock,
        SystemClock as SystemClock,
    )
    from .data import (
        Block as Block,
        Dataset as Dataset,
        Role as Role,
        Schema as Schema,
        from_arrow as from_arrow,
        from_numpy as from_numpy,
        read_parquet as read_parquet,
    )
    from .deploy import (
        BatchJob as BatchJob,
        DatabaseScorer as DatabaseScorer,
        EdgeBundle as EdgeBundle,
        ModelServer as ModelServer,
        StreamJob as StreamJob,
    )
    from .errors import (
        MillstreamError as MillstreamError,
    )
    from .log import (
        Log as Log,
        Topic as Topic,
        read_topic as read_topic,
    )
    from .models import (
        Registry as Registry,
        Scorer as Scorer,
    )
    from .parallel import (
        MPI as MPI,
        Async as Async,
        Bulk as Bulk,
        Checkpoint as Checkpoint,
        Done as Done,
        Fit as Fit,
        Inline as Inline,
        ParameterServer as ParameterServer,
        Processes as Processes,
        Ray as Ray,
        Stale as Stale,
        Step as Step,
        Threads as Threads,
        check_algorithm as check_algorithm,
        fit as fit,
    )
    from .stream import (
        Stream as Stream,
        Tumbling as Tumbling,
        as_stream as as_stream,
        count as count,
        max as max,
        mean as mean,
        min as min,
        sum as sum,
    )
    from .stream.run import run as run

__version__ = "0.1.0"

_PACKAGE_OF = {
    name: package
    for package, names in {
        "clock": "Clock ManualClock SystemClock",
        "data": "Block Dataset Role Schema from_arrow from_numpy read_parquet",
        "deploy": "BatchJob DatabaseScorer EdgeBundle ModelServer StreamJob",
        "errors": "MillstreamError",
        "log": "Log Topic read_topic",
        "models": "Registry Scorer",
        "parallel": "Async Bulk Checkpoint Done Fit Inline MPI ParameterServer Processes Ray Stale Step Threads "
        "check_algorithm fit",
        "stream": "Stream Tumbling as_stream count max mean min sum",
        "stream.run": "run",
    }.items()
    for name in names.split()
}

__all__ = [
    *_PACKAGE_OF,
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _PACKAGE_OF:
        raise AttributeError(f"module 'millstream' has no attribute {name!r}")
    value = getattr(import_module(f".{_PACKAGE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
