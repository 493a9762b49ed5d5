"""When the statistics of a step meet, and who works on which part."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from millstream.errors import InputError
from millstream.parallel.part_queue import Dynamic, MakeQueue, Pinned
from millstream.parallel.round_queue import RoundQueue

__all__ = ["Assign", "Async", "Bulk", "Stale", "Sync"]

Assign = Literal["dynamic", "pinned"]


@dataclass(frozen=True)
class Bulk:
    """Bulk-synchronous: a step ends when every part is in it (Valiant, "A bridging model for parallel computation",
    CACM 1990). Exact, and the same bits at any width.

    assign: "dynamic" gives the next part to whoever is free; "pinned" gives each worker the same parts every step.
    """

    assign: Assign = "dynamic"

    def __post_init__(self) -> None:
        _check_assign(self, self.assign)

    @property
    def queue(self) -> MakeQueue:
        """How parts are handed out."""
        return Dynamic if self.assign == "dynamic" else Pinned


@dataclass(frozen=True)
class Stale:
    """Stale synchronous parallel (Ho et al., NIPS 2013): a part may begin a step while others are up to `bound` steps
    behind; each part's delta is applied when it is there, and seen by whoever reads next.

    A part in step c sees every delta of the steps below c - bound, and maybe later ones. Which ones depends on who was
    faster, so the result has other bits from run to run, except on `Inline`. Needs an algorithm with ``delta``.

    assign: "pinned" gives each worker the same parts every step, "dynamic" the part that is furthest behind.
    insignificant: entries of a delta smaller than this are held back, summed up, and pushed once they are not, at the
    latest at the end; 0.0 pushes everything.
    """

    bound: int = 1
    assign: Assign = "dynamic"
    insignificant: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.bound, bool) or not isinstance(self.bound, int) or self.bound < 0:
            raise InputError(
                f"Stale(bound={self.bound!r}); expected a number of steps, 0 or more (Async() has no bound)"
            )
        _check_assign(self, self.assign)
        _check_insignificant(self, self.insignificant)


@dataclass(frozen=True)
class Async:
    """Asynchronous: as `Stale`, with no bound (Recht et al., "Hogwild!", NIPS 2011; Dean et al., "Large scale
    distributed deep networks", NIPS 2012). A worker never waits, and may read parameters of any age."""

    assign: Assign = "dynamic"
    insignificant: float = 0.0

    def __post_init__(self) -> None:
        _check_assign(self, self.assign)
        _check_insignificant(self, self.insignificant)

    @property
    def bound(self) -> None:
        return None


Sync = Bulk | Stale | Async


def round_queue(sync: Stale | Async, n_parts: int) -> MakeQueue:
    """How the parts of all rounds are handed out."""
    return partial(RoundQueue, n_parts=n_parts, bound=sync.bound, pinned=sync.assign == "pinned")


def _check_assign(sync: Sync, assign: object) -> None:
    if assign not in ("dynamic", "pinned"):
        raise InputError(f"{type(sync).__name__}(assign={assign!r}); expected 'dynamic' or 'pinned'")


def _check_insignificant(sync: Sync, insignificant: float) -> None:
    if not 0 <= insignificant < float("inf"):
        raise InputError(
            f"{type(sync).__name__}(insignificant={insignificant!r}); expected a finite number, 0.0 or more"
        )
