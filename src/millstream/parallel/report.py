"""Where the time of a fit went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Report", "StepReport"]


@dataclass(frozen=True)
class StepReport:
    """One step. `seconds` and `update` are wall time; `compute`, `combine` and `wait` are summed over workers.

    statistic_bytes: size of the statistics of all parts together. lost: workers lost during the step.
        measures: what the algorithm's `measure` said of it.
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


@dataclass(frozen=True)
class Report:
    """The whole fit, in seconds.

    seconds: wall time of the fit. persist: of it, writing the row-major copies. resumed_at: the step a
        checkpoint was taken up at, or None.
    """

    engine: str
    workers: int
    seconds: float
    persist: float
    steps: tuple[StepReport, ...]
    resumed_at: int | None = None

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

    def __str__(self) -> str:
        return (
            f"{len(self.steps)} steps on {self.engine} in {self.seconds:.3f} s: compute {self.compute:.3f}, "
            f"combine {self.combine:.3f}, wait {self.wait:.3f} (summed over {self.workers} workers), "
            f"update {self.update:.3f}, persist {self.persist:.3f}; {self.share_of_waiting:.0%} of the time waiting"
        )
