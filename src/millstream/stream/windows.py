"""Window assigners: which window an event time falls into."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from millstream.errors import PlanError

__all__ = ["Tumbling"]


@dataclass(frozen=True)
class Tumbling:
    """Windows of one size, side by side: [k * size, (k + 1) * size) counted from 1970-01-01 UTC.

    >>> Tumbling(timedelta(minutes=1)).size
    datetime.timedelta(seconds=60)
    """

    size: timedelta

    def __post_init__(self) -> None:
        if not isinstance(self.size, timedelta) or self.size <= timedelta(0):
            raise PlanError(
                f"Tumbling({self.size!r}): expected a timedelta above zero, such as timedelta(minutes=1)"
            )
