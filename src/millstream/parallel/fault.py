"""Faults on purpose, so that what happens after them can be tested."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from millstream.errors import InputError

__all__ = ["Fault", "fault_at"]


@dataclass(frozen=True)
class Fault:
    """Worker `worker` dies or hangs in step `step`, holding a part, after it has finished `after` others in it.

    "die" ends the worker. "hang" keeps it busy until the step is over, then delivers its result, too late.
    """

    step: int
    worker: int
    kind: Literal["die", "hang"] = "die"
    after: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("die", "hang"):
            raise InputError(f"Fault(kind={self.kind!r}); expected 'die' or 'hang'")


def fault_at(faults: Iterable[Fault], step: int, worker: int, finished: int) -> Fault | None:
    """The fault that strikes a worker that takes a part now, if there is one."""
    return next((f for f in faults if (f.step, f.worker, f.after) == (step, worker, finished)), None)
