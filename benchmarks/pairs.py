"""Time several ways of doing the same thing in turn, so that the machine's drift meets all of them."""

import time
from collections.abc import Callable, Mapping
from statistics import median


def in_turn(ways: Mapping[str, Callable[[], object]], repeat: int = 5) -> dict[str, float]:
    """Median wall seconds of each way over `repeat` rounds, after one round that doesn't count."""
    seen: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeat + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn:
                seen[name].append(time.perf_counter() - start)
    return {name: median(seconds) for name, seconds in seen.items()}
