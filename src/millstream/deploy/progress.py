"""How a long job tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress"]

#: called with the rows done so far and the rows there are, after every part or batch
Progress = Callable[[int, int], None]
