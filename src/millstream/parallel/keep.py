"""What stays with a part between steps.

Every attempt at a part has a mapping of its own. The first attempt of a step has what the step before left; a later
one begins with nothing, since the worker that was lost may still be writing. The last attempt's mapping goes on to
the next step, so whatever a stuck worker writes afterwards is seen by no one.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Keep"]


class Keep:
    """The mappings of the parts of one view.

    >>> keep = Keep(n_parts=1)
    >>> keep.of(0, attempt=0)["times"] = 1
    >>> keep = keep.next_step()
    >>> keep.of(0, attempt=0), keep.of(0, attempt=1)
    ({'times': 1}, {})
    """

    def __init__(self, n_parts: int) -> None:
        self._attempts: dict[tuple[int, int], dict[str, Any]] = {(index, 0): {} for index in range(n_parts)}

    def of(self, index: int, attempt: int) -> dict[str, Any]:
        """The mapping of one attempt at a part; the same one each time."""
        return self._attempts.setdefault((index, attempt), {})

    def next_step(self) -> Keep:
        """What the next step begins with."""
        following = Keep(0)
        for index, attempt in sorted(self._attempts.copy()):
            following._attempts[index, 0] = self._attempts[index, attempt]
        return following
