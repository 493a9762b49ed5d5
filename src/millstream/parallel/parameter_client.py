"""What the workers of one process have of a parameter server.

Workers of a process share what any of them has read last: a shard that has not changed since is not sent again, and
the whole arrays are put together once a version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from millstream.parallel.parameter_server import ParameterServer
from millstream.parallel.shard_messages import Values

__all__ = ["ParameterClient"]

Array = np.ndarray[Any, Any]


class ParameterClient:
    """Reads and updates for the sources of one process; may be called from several threads.

    >>> server = ParameterServer({"w": np.zeros(2)}, sources=1)
    >>> client = ParameterClient(server)
    >>> client.pull(0, 0)["w"] is client.pull(0, 0)["w"]
    True
    >>> client.push(0, 0, {"w": np.ones(2)})
    True
    >>> client.pull(0, 1)["w"], server.traffic.unchanged
    (array([1., 1.]), 1)
    """

    def __init__(self, server: ParameterServer) -> None:
        self._server = server
        # replaced as a whole, so that a thread reads answers and arrays of one pull
        self._had: tuple[Mapping[int, Values], Mapping[str, Any]] = {}, {}

    def pull(self, source: int, clock: int) -> Mapping[str, Any]:
        """Whole arrays, read-only and shared; as fresh as `ParameterServer.pull` promises."""
        had, arrays = self._had
        answers = self._server.answers(source, clock, None, had)
        if any(before.arrays is not answers[index].arrays for index, before in had.items()) or not had:
            arrays = self._server.sharding.join([answers[index].arrays for index in sorted(answers)])
            self._had = answers, arrays
        return arrays

    def push(self, source: int, clock: int, delta: Mapping[str, Any]) -> bool:
        """The delta of a round, and the end of the round; False if the server had it before."""
        fresh = self._server.push(source, clock, delta)
        self._server.clock(source, clock)
        return fresh
