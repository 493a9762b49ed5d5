"""What stays with a part between steps.

Every attempt at a part has a mapping of its own. The first attempt of a step has what the step before left; a later
one begins with nothing, since the worker that was lost may still be writing. The last attempt's mapping goes on to
the next step, so whatever a stuck worker writes afterwards is seen by no one.

Where workers are processes each has a `Keep` of its own. What it holds of a part that another worker computed
in the last step is out of date, and is dropped.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Keep"]


@dataclass(frozen=True)
class _Held:
    step: int
    attempt: int
    mapping: dict[str, Any] = field(default_factory=dict)


class Keep:
    """The mappings of the parts of one view.

    >>> keep = Keep()
    >>> keep.of(0, step=0, attempt=0, since=None)["times"] = 1
    >>> keep.of(0, step=3, attempt=0, since=0), keep.of(0, step=3, attempt=1, since=0)
    ({'times': 1}, {})
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parts: dict[int, _Held] = {}

    def of(self, index: int, step: int, attempt: int, since: int | None) -> dict[str, Any]:
        """The mapping of one attempt at a part in `step`; `since` is the last step that ran over the view before."""
        with self._lock:
            held = self._parts.get(index)
            if held is not None and (held.step, held.attempt) > (step, attempt):
                return {}  # a lost worker that comes late
            if held is None or (held.step, held.attempt) < (step, attempt):
                lasting = held is not None and attempt == 0 and held.step == since
                held = _Held(step, attempt, held.mapping) if held and lasting else _Held(step, attempt)
                self._parts[index] = held
            return held.mapping
