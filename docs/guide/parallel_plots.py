"""Draws the figures of parallel.md from runs made now: ``python -m docs.guide.parallel_plots`` from the repository."""

import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from benchmarks import stragglers

import millstream as ms
from millstream.parallel import Bulk, Stale

HERE = Path(__file__).parent
COLOURS = ["#4063d8", "#e6820f", "#389826", "#9558b2", "#c0392b", "#7f8c8d", "#111111"]
plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "millstream", "font.size": 9})


class Noted:
    """Takes its time over each part and notes who was at it when."""

    def __init__(self) -> None:
        self.bars: list[tuple[int, int, float, float]] = []  # worker, step, from, to

    def init(self, meta: Any, rng: Any) -> dict[str, Any]:
        self.started = time.perf_counter()
        return {"n": np.array(0.0)}

    def local(self, params: Any, part: Any, ctx: Any) -> dict[str, Any]:
        began = time.perf_counter()
        worker = int(threading.current_thread().name.rsplit("-", 1)[1])
        time.sleep(0.05 if worker == 0 else 0.02)
        self.bars.append((worker, ctx.step, began - self.started, time.perf_counter() - self.started))
        return {"n": np.array(1.0)}

    def update(self, state: Any, statistic: Any) -> dict[str, Any]:
        return {"n": state["n"] + statistic["n"]}

    def delta(self, params: Any, statistic: Any, clock: int) -> dict[str, Any]:
        return {"n": statistic["n"]}


def draw_timelines() -> None:
    """Who works at which step when, with one slow worker."""
    dataset = ms.from_numpy(np.zeros((12, 1)), part_rows=1)
    syncs = [Bulk("pinned"), Stale(2, "pinned"), Bulk("dynamic")]
    figure, axes = plt.subplots(3, 1, figsize=(7, 4.6), sharex=True, layout="constrained")
    for axis, sync in zip(axes, syncs, strict=True):
        noted = Noted()
        ms.fit(noted, dataset, engine=ms.Threads(3), sync=sync, steps=5)
        begin = min(bar[2] for bar in noted.bars)
        for worker, step, since, until in noted.bars:
            axis.barh(
                worker, until - since, left=since - begin, height=0.7, color=COLOURS[step], edgecolor="w"
            )
        axis.set_title(stragglers.name_of(sync), loc="left", fontsize=9)
        axis.set_yticks(range(3), ["slow worker", "worker 1", "worker 2"])
        axis.invert_yaxis()
    axes[-1].set_xlabel("seconds")
    handles = [plt.Rectangle((0, 0), 1, 1, color=COLOURS[step]) for step in range(5)]
    figure.legend(handles, [f"step {step}" for step in range(5)], loc="outside right upper", frameon=False)
    save(figure, "timelines.svg")


def draw_stragglers() -> None:
    """The loss over time, one of four workers five times slower."""
    figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
    marks = defaultdict(lambda: "-", {"dynamic": "--"})
    for number, (name, (curve, _, _)) in enumerate(stragglers.curves().items()):
        seconds, losses = np.array(curve).T
        thinned = slice(None, None, max(1, len(seconds) // 60))
        style = marks["dynamic" if "dynamic" in name else "pinned"]
        axis.plot(seconds[thinned], losses[thinned], style, label=name, color=COLOURS[number], lw=1.4)
    axis.set_xlim(0, 11)
    axis.set_xlabel("seconds")
    axis.set_ylabel("loss")
    axis.legend(frameon=False)
    save(figure, "stragglers.svg")


def save(figure: Any, name: str) -> None:
    figure.savefig(HERE / name, metadata={"Date": None})
    plt.close(figure)
    print(f"{name}: {(HERE / name).stat().st_size // 1024} KB")


if __name__ == "__main__":
    draw_timelines()
    draw_stragglers()
