"""Every algorithm of the package keeps the laws that `check_algorithm` tries.

Algorithms are discovered: classes of `millstream` with `init`, `local` and `update`.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import millstream as ms
from millstream.learn.distinct import Distinct
from millstream.learn.labels import Labels
from millstream.learn.lloyd import Lloyd
from millstream.learn.moments import Moments
from millstream.learn.newton import Newton
from millstream.parallel import Algorithm, check_algorithm

RNG = np.random.default_rng(12)
X = RNG.standard_normal((300, 4)) + np.repeat(np.eye(4) * 4, 75, axis=0)
ROWS = ms.from_numpy(X, np.repeat([0, 1, 0, 1], 75))
WORDS = ms.from_arrow(
    pa.table(
        {"word": [f"w{i % 11}" for i in range(300)], "n": np.arange(300) % 5, "late": np.arange(300) % 2}
    ),
    target="late",
)

MAKE: dict[type, Callable[[], tuple[Any, ms.Dataset]]] = {
    Distinct: lambda: (Distinct(("word", "n")), WORDS),
    Labels: lambda: (Labels(), WORDS),
    Lloyd: lambda: (Lloyd(n_clusters=4, seeds=None, tolerance=1e-4, max_iter=10), ROWS),
    Moments: lambda: (Moments(), ROWS),
    Newton: lambda: (Newton(np.array([0, 1]), C=1.0, fit_intercept=True, tolerance=1e-6, max_iter=20), ROWS),
}


def algorithms() -> list[type]:
    found: set[type] = set()
    for module in pkgutil.walk_packages(ms.__path__, "millstream."):
        if module.name.startswith(("millstream.learn", "millstream.parallel")):
            found.update(
                member
                for _, member in inspect.getmembers(importlib.import_module(module.name), inspect.isclass)
                if member.__module__ == module.name
                and all(hasattr(member, n) for n in ("init", "local", "update"))
            )
    public = {algorithm for algorithm in found if not algorithm.__name__.startswith("_")}
    return sorted(public - {Algorithm}, key=lambda algorithm: algorithm.__name__)


def test_there_are_algorithms_to_try() -> None:
    assert {Lloyd, Newton, Moments} <= set(algorithms())


@pytest.mark.parametrize("algorithm", algorithms(), ids=lambda algorithm: algorithm.__name__)
def test_the_laws(algorithm: type) -> None:
    made, dataset = MAKE[algorithm]()  # a KeyError here: say above how the new algorithm is made
    verdicts = check_algorithm(made, dataset, steps=6)
    assert {
        law: verdict for law, verdict in verdicts.items() if not verdict.startswith(("held", "not asked"))
    } == {}
    assert list(verdicts.values()).count("held") >= 5
