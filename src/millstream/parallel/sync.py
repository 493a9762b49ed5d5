"""When the statistics of a step meet."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Bulk"]


@dataclass(frozen=True)
class Bulk:
    """Bulk-synchronous: a step ends when every part is in it (Valiant, "A bridging model for parallel computation",
    CACM 1990). Exact, and the same bits at any width."""
