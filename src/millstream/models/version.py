"""A version: a bundle in the registry, under a name and a number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millstream.models.bundle import Bundle, Golden
from millstream.models.parity import Parity, compare
from millstream.models.scorer import Scorer
from millstream.models.signature import Signature

if TYPE_CHECKING:
    import pyarrow as pa

    from millstream.models.registry import Registry

__all__ = ["Version"]


@dataclass(frozen=True)
class Version:
    """What `Registry.get` hands out. It never changes; `str(version)` is ``name@number``."""

    registry: Registry
    name: str
    number: int
    bundle: Bundle
    metrics: Mapping[str, float]
    at: datetime

    @property
    def digest(self) -> str:
        """The content address of the bundle, sha256 in hexadecimal."""
        return self.bundle.digest

    @property
    def path(self) -> Path:
        return self.bundle.path

    @property
    def signature(self) -> Signature:
        return self.bundle.signature

    @property
    def golden(self) -> Golden:
        return self.bundle.golden

    @property
    def lineage(self) -> Mapping[str, Any]:
        return self.bundle.lineage

    def scorer(self, *, threads: int = 1) -> Scorer:
        """A Scorer over the bundle."""
        return Scorer(self.bundle, threads=threads)

    def check(self, target: str, predictions: pa.RecordBatch | pa.Table) -> Parity:
        """Compare a target's answers for the golden rows with the recorded ones, and keep the outcome.

        Raises ParityError, after recording, if the bounds don't hold.
        """
        parity = compare(self.golden.outputs, predictions)
        self.registry.record_parity(self, target, parity)
        return parity.require(f"{self} on target {target!r}")

    def __str__(self) -> str:
        return f"{self.name}@{self.number}"

    def __repr__(self) -> str:
        return f"Version({self}, digest={self.digest[:12]})"
