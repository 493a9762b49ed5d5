"""The progress line: after two seconds, ten times a second at most, on a terminal only, and gone at the end."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from datetime import timedelta

import pytest

from millstream.clock import ManualClock
from millstream.parallel import StepReport
from millstream.parallel.progress_line import ProgressLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def report(step: int, **measures: float) -> StepReport:
    return StepReport(step, "train", 0.5, 0.4, 0.0, 0.1, 0.0, 0, rows=1000, measures=measures)


def written(stream: io.StringIO, steps: int | None, seconds: float, n: int = 8) -> list[str]:
    """What the stream gets, piece by piece, over `n` steps of `seconds`."""
    clock = ManualClock()
    line = ProgressLine(steps, stream, clock)
    for step in range(n):
        clock.advance(timedelta(seconds=seconds))
        line.show(report(step, rate=3.0, loss=1 / (step + 1)))
    line.close()
    return stream.getvalue().split("\r\x1b[K")[1:]


def test_nothing_before_two_seconds_then_every_step_and_erased_at_the_end() -> None:
    assert written(Terminal(), steps=8, seconds=0.5) == [
        "step 4/8  loss 0.25  2.0 k rows/s  0:00:02 left",
        "step 5/8  loss 0.2  2.0 k rows/s  0:00:02 left",
        "step 6/8  loss 0.1667  2.0 k rows/s  0:00:01 left",
        "step 7/8  loss 0.1429  2.0 k rows/s  0:00:00 left",
        "step 8/8  loss 0.125  2.0 k rows/s  0:00:00 left",
        "",
    ]


def test_short_fits_and_other_streams_show_nothing() -> None:
    assert written(Terminal(), steps=8, seconds=0.2) == []
    assert written(io.StringIO(), steps=8, seconds=60) == []


def test_no_more_than_ten_times_a_second() -> None:
    assert len(written(Terminal(), None, seconds=0.01, n=400)) == 1 + 20


def test_without_a_number_of_steps_no_time_left_and_never_wider_than_the_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert written(Terminal(), None, seconds=3, n=1)[0] == "step 1  loss 1  333 rows/s"
    monkeypatch.setenv("COLUMNS", "11")
    assert written(Terminal(), None, seconds=3, n=1)[0] == "step 1  lo"


SCRIPT = """
import time
import numpy as np
import millstream.data as data
from millstream.parallel import Inline, fit

class Slow:
    def init(self, meta, rng):
        return {}
    def local(self, params, part, ctx):
        time.sleep(1.1)
        return {"rows": np.array(part.n_rows)}
    def update(self, state, statistic):
        return {"loss": 0.125}
    def measure(self, state, statistic):
        return {"loss": state["loss"]}

fit(Slow(), data.from_numpy(np.zeros((10, 1))), engine=Inline(), steps=3)
"""


def test_a_fit_writes_it_to_a_real_terminal_and_not_to_a_pipe() -> None:
    ours, theirs = pty.openpty()
    on_terminal = subprocess.Popen([sys.executable, "-c", SCRIPT], stderr=theirs)
    on_pipe = subprocess.run([sys.executable, "-c", SCRIPT], stderr=subprocess.PIPE, timeout=60, check=True)
    assert on_terminal.wait(60) == 0
    os.close(theirs)
    text = os.read(ours, 4096).decode()
    os.close(ours)
    assert "step 2/3  loss 0.125  " in text
    assert text.endswith("\r\x1b[K")
    assert on_pipe.stderr == b""
