"""One of four workers is five times slower: how long until the same loss, in bulk and stale, with parts pinned or not?

A part takes 6 ms of its worker, 30 ms of the slow one, nearly all of it asleep: so two cores play four workers, and
what is timed is who waits for whom. The loss is that of the parameters workers read, on rows of their own.
"""

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

import millstream as ms
from millstream.parallel import Async, Bulk, Meta, Stale

WORKERS, PARTS, ROWS, COLUMNS = 4, 128, 64_000, 20
PART_SECONDS, SLOWER = 0.006, 5
STEPS = 10
SYNCS = [
    Bulk("pinned"),
    Stale(1, "pinned"),
    Stale(4, "pinned"),
    Stale(8, "pinned"),
    Async("pinned"),
    Bulk("dynamic"),
    Stale(1, "dynamic"),
]


class PacedDescent:
    """Gradient descent for logistic regression; a part's share of the step is its delta."""

    rate = 4.0

    def __init__(self, sample: ms.Block) -> None:
        self.sample = sample
        self.curve: list[tuple[float, float]] = []  # seconds, loss
        self.started = time.perf_counter()

    def init(self, meta: Meta, rng: np.random.Generator) -> dict[str, Any]:
        self.n_rows, self.started = meta.n_rows, time.perf_counter()
        return {"w": np.zeros(meta.n_features)}

    def local(self, params: Any, part: Any, ctx: Any) -> dict[str, Any]:
        started = time.perf_counter()
        slow = threading.current_thread().name.endswith("worker-0")
        gradient = np.zeros(len(params["w"]))
        for block in part.blocks():
            gradient += (1 / (1 + np.exp(-(block.X @ params["w"]))) - block.y) @ block.X
        if not slow and part.index % 8 == 1:
            self.curve.append((started - self.started, self.loss(params["w"])))
        until = started + PART_SECONDS * (SLOWER if slow else 1)
        time.sleep(max(0.0, until - time.perf_counter()))
        return {"gradient": gradient}

    def update(self, state: Any, statistic: Any) -> dict[str, Any]:
        return {"w": state["w"] - self.rate * statistic["gradient"] / self.n_rows}

    def delta(self, params: Any, statistic: Any, clock: int) -> dict[str, Any]:
        return {"w": -self.rate * statistic["gradient"] / self.n_rows}

    def loss(self, w: np.ndarray) -> float:
        margin = self.sample.X @ w
        return float(np.logaddexp(0, np.where(self.sample.y == 1, -margin, margin)).mean())


def rows(n: int, part_rows: int, seed: int) -> ms.Dataset:
    X = np.random.default_rng(seed).standard_normal((n, COLUMNS)) * np.geomspace(1, 0.1, COLUMNS)
    noise = 0.3 * np.random.default_rng(seed + 1).logistic(size=n)
    y = (X @ np.random.default_rng(0).standard_normal(COLUMNS) + noise > 0).astype(float)
    return ms.from_numpy(X, y, part_rows=part_rows)


def curves() -> dict[str, tuple[list[tuple[float, float]], float, float]]:
    """For each sync its (seconds, loss) as workers saw it, the seconds of all steps, and the share of waiting."""
    dataset = rows(ROWS, ROWS // PARTS, 1)
    (sample,) = rows(2000, 2000, 3).parts[0].blocks()
    seen = {}
    for sync in SYNCS:
        algorithm = PacedDescent(sample)
        steps = (
            STEPS if isinstance(sync, Bulk) else 2 * STEPS
        )  # a delta's parameters are older: it may take more
        fitted = ms.fit(algorithm, dataset, engine=ms.Threads(WORKERS), sync=sync, steps=steps)
        seconds = sum(step.seconds for step in fitted.report.steps)
        algorithm.curve.append((seconds, algorithm.loss(fitted.params["w"])))
        seen[name_of(sync)] = sorted(algorithm.curve), seconds, fitted.report.share_of_waiting
    return seen


def name_of(sync: Bulk | Stale | Async) -> str:
    bound = f"bound={sync.bound}, " if isinstance(sync, Stale) else ""
    return f"{type(sync).__name__}({bound}{sync.assign})"


def ideal() -> float:
    """Seconds of all steps if every worker were busy all the time."""
    return STEPS * PARTS * PART_SECONDS / (WORKERS - 1 + 1 / SLOWER)


def measure() -> Iterator[str]:
    seen = curves()
    target = seen["Bulk(pinned)"][0][-1][1]
    reached = {
        name: next((s for s, loss in curve if loss <= target * (1 + 1e-9)), float("nan"))
        for name, (curve, _, _) in seen.items()
    }
    for name, seconds in reached.items():
        yield (
            f"{name:24} {seconds:5.2f} s to loss {target:.4f}, {reached['Bulk(pinned)'] / seconds:4.1f} times as fast "
            f"as Bulk(pinned); {seen[name][2]:.0%} of the time waiting"
        )
    took = seen["Bulk(dynamic)"][1]
    yield (
        f"{STEPS} steps of Bulk(dynamic) {took:.2f} s, {took / ideal():.2f} times the {ideal():.2f} s of nobody waiting"
    )
