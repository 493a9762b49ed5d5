"""The picture of a report: one bar a step, the workers' time in it by what they did."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from millstream.parallel.report import Report

__all__ = ["draw"]

_MOST_BARS = 200
_COLOURS = {"compute": "#2a6f97", "combine": "#61a5c2", "update": "#e9a03b", "wait": "#d9d9d9"}


def draw(report: Report, path: Path) -> None:
    """Write the figure; more than 200 steps are summed in runs of equal length."""
    steps = report.steps
    run = max(1, -(-len(steps) // _MOST_BARS))
    starts = range(0, len(steps), run)
    seconds = {
        "compute": [step.compute for step in steps],
        "combine": [step.combine for step in steps],
        "update": [step.update for step in steps],  # on the driver, one worker's time; the others wait
        "wait": [step.wait + (report.workers - 1) * step.update for step in steps],
    }
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    x = [steps[start].step for start in starts]
    bottom = np.zeros(len(x))
    for name, values in seconds.items():
        heights = np.array([sum(values[start : start + run]) for start in starts])
        axes.bar(x, heights, width=0.9 * run, bottom=bottom, label=name, color=_COLOURS[name])
        bottom += heights
    axes.set_xlabel("step" if run == 1 else f"step (runs of {run})")
    axes.set_ylabel("seconds, summed over workers")
    number = "1 step" if len(steps) == 1 else f"{len(steps)} steps"
    gain = f"speedup {report.speedup:.2f}, efficiency {report.efficiency:.0%}"
    axes.set_title(f"{number} on {report.engine}: {gain}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path)
