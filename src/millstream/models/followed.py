"""An alias, followed: the version it points to, until `refresh` finds another.

Between two calls of `refresh` the version does not move, so whoever calls it decides where a swap may happen:
a stream job at its barriers, for one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.models.scorer import Scorer
from millstream.models.version import Version

if TYPE_CHECKING:
    from millstream.models.registry import Registry

__all__ = ["Followed"]


class Followed:
    """What `Registry.follow` hands out."""

    def __init__(self, registry: Registry, reference: str) -> None:
        self._registry = registry
        self.reference = reference
        self._version = registry.get(reference)
        self._scorer: Scorer | None = None

    @property
    def version(self) -> Version:
        """The version as of the last refresh."""
        return self._version

    def scorer(self) -> Scorer:
        """The Scorer of that version, loaded once."""
        if self._scorer is None:
            self._scorer = self._version.scorer()
        return self._scorer

    def refresh(self) -> bool:
        """Read the alias again; True if it points to another version than before."""
        found = self._registry.get(self.reference)
        if found.number == self._version.number:
            return False
        self._version, self._scorer = found, None
        return True

    def __repr__(self) -> str:
        return f"Followed({self.reference!r}, version={self._version.number})"
