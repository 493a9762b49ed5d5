"""Where the time of a fit went, and how near it came to what the machine can do.

**Speedup** is one-worker seconds over seconds, **efficiency** speedup over workers. What one worker would take is
measured where `fit` was told to (``baseline=True``); else it is taken to be the workers' own time in `local` and in
combining plus `update`. The latter is too kind where workers slow each other down, as over a shared memory bus.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from millstream.parallel.limits import Limits, measure_limits
from millstream.parallel.traffic import Traffic

__all__ = ["Report", "StepReport"]


@dataclass(frozen=True)
class StepReport:
    """One step. `seconds` and `update` are wall time; `compute`, `combine` and `wait` are summed over workers.

    statistic_bytes: size of the statistics of all parts together. lost: workers lost during the step. measures: what
    the algorithm's `measure` said of it. rows: rows that `local` saw. block_bytes: size of their features as blocks.
    flops: what the algorithm's `flops` said, or None.
    """

    step: int
    view: str
    seconds: float
    compute: float
    combine: float
    wait: float
    update: float
    statistic_bytes: int
    lost: tuple[int, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict)
    rows: int = 0
    block_bytes: int = 0
    flops: float | None = None


@dataclass(frozen=True)
class Report:
    """The whole fit, in seconds.

    seconds: wall time of the fit. persist: of it, writing the row-major copies. resumed_at: the step a checkpoint was
    taken up at, or None. one_worker: seconds that one worker took for `local` and combining of the first step, measured
    apart, or None. traffic: what went over the parameter server, or None without one.
    """

    engine: str
    workers: int
    seconds: float
    persist: float
    steps: tuple[StepReport, ...]
    resumed_at: int | None = None
    one_worker: float | None = None
    traffic: Traffic | None = None

    @property
    def compute(self) -> float:
        """Seconds in `local`, summed over workers."""
        return sum(step.compute for step in self.steps)

    @property
    def combine(self) -> float:
        """Seconds in combining statistics, summed over workers."""
        return sum(step.combine for step in self.steps)

    @property
    def wait(self) -> float:
        """Seconds workers had nothing to do during steps, summed over workers."""
        return sum(step.wait for step in self.steps)

    @property
    def update(self) -> float:
        """Seconds in `update`, on the driver, while workers wait."""
        return sum(step.update for step in self.steps)

    @property
    def statistic_bytes(self) -> int:
        """Bytes of the statistics of all parts and steps."""
        return sum(step.statistic_bytes for step in self.steps)

    @property
    def lost(self) -> tuple[int, ...]:
        """Workers lost, in order."""
        return tuple(worker for step in self.steps for worker in step.lost)

    @property
    def share_of_waiting(self) -> float:
        """Of the workers' time in steps, the share they had nothing to do, `update` included."""
        available = self.workers * sum(step.seconds for step in self.steps)
        return (self.wait + self.workers * self.update) / available if available else 0.0

    @property
    def speedup(self) -> float:
        """How many times faster than one worker, over all steps; 1.0 for a fit without any."""
        wall = sum(step.seconds for step in self.steps)
        alone = (self.compute + self.combine) * self._slowdown + self.update
        return alone / wall if wall else 1.0

    @property
    def efficiency(self) -> float:
        """Speedup divided by the number of workers."""
        return self.speedup / self.workers

    @property
    def _slowdown(self) -> float:
        """Time of one worker alone by that of workers beside each other, for the same work; 1.0 if not measured."""
        if self.one_worker is None or not self.steps:
            return 1.0
        beside = self.steps[0].compute + self.steps[0].combine
        return self.one_worker / beside if beside else 1.0

    def share_of_bandwidth(self, limits: Limits | None = None) -> float:
        """Bytes of blocks a second in `local` on one worker, by what one core reads from memory.

        limits: by default those of this machine, measured once. Rows that are read several times, or stay in the
        caches, count once a step.
        """
        bandwidth = (limits or measure_limits()).bandwidth
        return (
            sum(step.block_bytes for step in self.steps) / self.compute / bandwidth if self.compute else 0.0
        )

    def share_of_sgemm(self, limits: Limits | None = None) -> float | None:
        """Operations a second in `local` on one worker, by those of a float32 matrix product on one core.

        None where the algorithm has no ``flops``.
        """
        if not self.steps or any(step.flops is None for step in self.steps) or not self.compute:
            return None
        return (
            sum(step.flops or 0.0 for step in self.steps) / self.compute / (limits or measure_limits()).sgemm
        )

    def to_dict(self, limits: Limits | None = None) -> dict[str, Any]:
        """Everything as numbers, strings, lists and dicts, ready for JSON; limits as in `share_of_bandwidth`."""
        limits = limits or measure_limits()
        totals = (
            "compute",
            "combine",
            "wait",
            "update",
            "statistic_bytes",
            "share_of_waiting",
            "speedup",
            "efficiency",
        )
        return {
            "engine": self.engine,
            "workers": self.workers,
            "seconds": self.seconds,
            "persist": self.persist,
            "resumed_at": self.resumed_at,
            "one_worker": self.one_worker,
            "traffic": None if self.traffic is None else asdict(self.traffic),
            **{name: getattr(self, name) for name in totals},
            "limits": asdict(limits),
            "share_of_bandwidth": self.share_of_bandwidth(limits),
            "share_of_sgemm": self.share_of_sgemm(limits),
            "lost": list(self.lost),
            "steps": [{**asdict(step), "lost": list(step.lost)} for step in self.steps],
        }

    def text(self, limits: Limits | None = None) -> str:
        """Several lines: the whole, the limits, and a table of the steps; of more than 20, the first and last ten."""
        limits = limits or measure_limits()
        how = "from the time in local" if self.one_worker is None else "against one worker, measured"
        sgemm = self.share_of_sgemm(limits)
        shares = f"local at {self.share_of_bandwidth(limits):.0%} of the bandwidth"
        shares += "" if sgemm is None else f", {sgemm:.0%} of sgemm"
        lines = [
            str(self),
            f"speedup {self.speedup:.2f}, efficiency {self.efficiency:.0%} ({how})",
            f"{limits}; {shares}",
            *([] if self.traffic is None else [f"parameter server: {self.traffic}"]),
            f"{'step':>6} {'seconds':>9} {'compute':>9} {'combine':>9} {'wait':>9} {'update':>9} {'bytes':>12}",
        ]
        rows = [
            f"{s.step:>6} {s.seconds:>9.4f} {s.compute:>9.4f} {s.combine:>9.4f} {s.wait:>9.4f} {s.update:>9.4f} "
            f"{s.statistic_bytes:>12}" + (f"  lost {list(s.lost)}" if s.lost else "")
            for s in self.steps
        ]
        return "\n".join(lines + (rows if len(rows) <= 20 else [*rows[:10], "   ...", *rows[-10:]]))

    def plot(self, path: str | Path) -> None:
        """Draw the workers' time, step by step, into an ``.svg``, ``.png`` or ``.pdf`` file."""
        from millstream.parallel.report_plot import draw  # matplotlib takes half a second to import

        draw(self, Path(path))

    def __str__(self) -> str:
        return (
            f"{len(self.steps)} steps on {self.engine} in {self.seconds:.3f} s: compute {self.compute:.3f}, "
            f"combine {self.combine:.3f}, wait {self.wait:.3f} (summed over {self.workers} workers), "
            f"update {self.update:.3f}, persist {self.persist:.3f}; {self.share_of_waiting:.0%} of the time waiting"
        )
