"""Clocks, passed in wherever time matters, so that tests own the time.

Inside Millstream a moment is an ``int``: microseconds since 1970-01-01 UTC. A duration given by a user is a
:class:`datetime.timedelta`. `SystemClock` is the machine's; `ManualClock` moves only when told to.
"""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Protocol, runtime_checkable

__all__ = ["Clock", "ManualClock", "SystemClock", "microseconds"]


def microseconds(duration: timedelta) -> int:
    """A duration in whole microseconds.

    >>> microseconds(timedelta(milliseconds=1, microseconds=5))
    1005
    """
    return duration // timedelta(microseconds=1)


@runtime_checkable
class Clock(Protocol):
    """What code that waits or stamps is handed.

    Laws: `now` is wall time and may jump; `monotonic` never goes back and measures waits; `sleep` returns once
    `monotonic` has moved by the duration.
    """

    def now(self) -> int:
        """Microseconds since 1970-01-01 UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        ...

    def sleep(self, duration: timedelta) -> None:
        """Return after `duration` of monotonic time."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, duration: timedelta) -> None:
        time.sleep(duration.total_seconds())

    def __repr__(self) -> str:
        return "SystemClock()"


class ManualClock:
    """A clock that stands until `advance` moves it.

    `sleep` blocks until another thread has advanced the clock far enough, or, with ``auto=True``, advances it
    itself: the form for tests of one thread.

    >>> clock = ManualClock(start=1_000_000)
    >>> clock.advance(timedelta(seconds=2))
    >>> clock.now(), clock.monotonic()
    (3000000, 2.0)
    """

    def __init__(self, start: int = 0, *, auto: bool = False) -> None:
        self._start = start
        self._elapsed = 0
        self._auto = auto
        self._moved = threading.Condition()

    def now(self) -> int:
        with self._moved:
            return self._start + self._elapsed

    def monotonic(self) -> float:
        with self._moved:
            return self._elapsed / 1_000_000

    def advance(self, duration: timedelta) -> None:
        """Move the clock on and wake every sleeper whose time has come."""
        step = microseconds(duration)
        if step < 0:
            raise ValueError(f"a clock can't go back: advance({duration!r}); pass a duration >= 0")
        with self._moved:
            self._elapsed += step
            self._moved.notify_all()

    def sleep(self, duration: timedelta) -> None:
        if self._auto:
            self.advance(duration)
            return
        with self._moved:
            until = self._elapsed + microseconds(duration)
            self._moved.wait_for(lambda: self._elapsed >= until)

    def __repr__(self) -> str:
        return f"ManualClock(now={self.now()})"
