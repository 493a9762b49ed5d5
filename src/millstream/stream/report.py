"""What a job did: `JobReport`, counted since the job's first start, across restarts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Ending", "JobReport", "SourceCounts"]


class Ending(StrEnum):
    """Why a run returned."""

    END = "end of the sources"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class SourceCounts:
    """Rows of one source: rows_in = used + late + filtered.

    filtered counts rows on time that filters kept from every operator and output.

    >>> SourceCounts(rows_in=10, used=7, late=1).filtered
    2
    """

    rows_in: int = 0
    used: int = 0
    late: int = 0

    @property
    def filtered(self) -> int:
        return self.rows_in - self.used - self.late

    def plus(self, rows_in: int, used: int, late: int) -> SourceCounts:
        return SourceCounts(self.rows_in + rows_in, self.used + used, self.late + late)


@dataclass(frozen=True)
class JobReport:
    """sources and rows_out count since the job's first start; seconds, checkpoints and skipped speak of this run."""

    job: str
    ending: Ending
    sources: Mapping[str, SourceCounts]
    rows_out: Mapping[str, int]
    seconds: float
    checkpoints: int
    resumed_from: int | None = None
    skipped: tuple[str, ...] = ()
    """Checkpoints passed over on restart because they were damaged, with the reason."""

    @property
    def rows_in(self) -> int:
        return sum(counts.rows_in for counts in self.sources.values())

    @property
    def late(self) -> int:
        return sum(counts.late for counts in self.sources.values())
