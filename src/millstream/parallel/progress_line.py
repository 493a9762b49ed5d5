"""How far a long fit is, in one line of the terminal that is written over and over and erased at the end."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from datetime import timedelta
from typing import TextIO

from millstream.clock import Clock, SystemClock
from millstream.parallel.report import StepReport

__all__ = ["ProgressLine"]

_PATIENCE = timedelta(seconds=2)  # shorter fits show nothing
_PAUSE = timedelta(milliseconds=100)  # between two writings
_ERASED = "\r\x1b[K"


class ProgressLine:
    """Step, loss, rows a second and, where the number of steps is known, the time left.

    stream: written to only if it is a terminal; by default standard error. steps: the step at which the fit ends.

    >>> line = ProgressLine(steps=40, stream=sys.stderr)
    >>> report = StepReport(9, "train", 0.5, 0.9, 0.0, 0.1, 0.0, 0, rows=1_200_000, measures={"loss": 0.25})
    >>> line.text(report, done=10, rows=12_000_000, seconds=5.0)
    'step 10/40  loss 0.25  2.4 M rows/s  0:00:15 left'
    """

    def __init__(self, steps: int | None, stream: TextIO | None = None, clock: Clock | None = None) -> None:
        self._steps = steps
        self._stream = sys.stderr if stream is None else stream
        self._on = self._stream is not None and self._stream.isatty()
        self._clock = clock or SystemClock()
        self._started = self._clock.monotonic()
        self._next = self._started + _PATIENCE.total_seconds()
        self._done = self._rows = 0
        self._shown = False

    def show(self, report: StepReport) -> None:
        """A step is over."""
        self._done += 1
        self._rows += report.rows
        now = self._clock.monotonic()
        if self._on and now >= self._next:
            columns = shutil.get_terminal_size().columns
            text = self.text(report, self._done, self._rows, now - self._started)
            self._stream.write(_ERASED + text[: columns - 1])
            self._stream.flush()
            self._next = now + _PAUSE.total_seconds()
            self._shown = True

    def close(self) -> None:
        """Erase the line."""
        if self._shown:
            self._stream.write(_ERASED)
            self._stream.flush()

    def text(self, report: StepReport, done: int, rows: int, seconds: float) -> str:
        """The line after `done` steps over `rows` rows in `seconds`, of which `report` is the last."""
        pieces = [f"step {report.step + 1}" + ("" if self._steps is None else f"/{self._steps}")]
        pieces += [f"{name} {value:.4g}" for name, value in _loss(report.measures).items()]
        pieces.append(_rate(rows / seconds))
        if self._steps is not None:
            left = round((self._steps - report.step - 1) * seconds / done)
            pieces.append(f"{timedelta(seconds=left)} left")
        return "  ".join(pieces)


def _loss(measures: Mapping[str, float]) -> dict[str, float]:
    """The measure called loss, or else the first."""
    name = "loss" if "loss" in measures else next(iter(measures), None)
    return {} if name is None else {name: measures[name]}


def _rate(rows: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if rows >= size:
            return f"{rows / size:.1f} {unit} rows/s"
    return f"{rows:.0f} rows/s"
