"""One step's `local` as a task that any worker can do, in this process or another.

A fit has a `Setting` that lasts, and a `Local` for each step. Both can be pickled; to another process the setting is
sent once, and then a step ships its parameters and a few numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from millstream.data import Part
from millstream.errors import TrainingError
from millstream.parallel.algorithm import Algorithm, Context
from millstream.parallel.keep import Keep
from millstream.parallel.minibatch import Minibatch
from millstream.parallel.tree import Statistic, combined

__all__ = ["Contribution", "Local", "Prepared", "Setting", "read_only", "rng_of"]


class Setting:
    """What the steps of one fit have in common: algorithm, seed, the parts of every view.

    Not pickled: what was kept with the parts. It stays in the process where it came to be.
    """

    def __init__(self, algorithm: Algorithm, seed: int, views: Mapping[str, Sequence[Part]]) -> None:
        self.algorithm, self.seed, self.views = algorithm, seed, dict(views)
        self.keeps: dict[str, Keep] = defaultdict(Keep)

    def __reduce__(self) -> tuple[Any, ...]:
        return Setting, (self.algorithm, self.seed, self.views)


@dataclass(frozen=True)
class Contribution:
    """The statistic of one part or several neighbours; nbytes: of all their statistics together."""

    statistic: Statistic
    nbytes: int


@dataclass(frozen=True)
class Local:
    """A step's task: ``local`` of the algorithm on part `index` of a view.

    since: the last step before this one that ran over the view, or None. batch: which rows, or None for all.
    """

    setting: Setting
    params: Any
    view: str
    step: int
    since: int | None
    batch: Minibatch | None = None

    def __call__(self, index: int, attempt: int) -> Contribution:
        keep = self.setting.keeps[self.view].of(index, self.step, attempt, self.since)
        return self.compute("local", read_only(self.params), index, keep)

    def compute(
        self, name: str, params: Any, index: int, keep: dict[str, Any], scores: Statistic | None = None
    ) -> Contribution:
        """What the method of that name makes of part `index`."""
        setting = self.setting
        ctx = Context(self.step, rng_of(setting.seed, (self.step << 32) + index), keep, scores)
        part = setting.views[self.view][index]
        part = part if self.batch is None else self.batch.within(part)
        try:
            arrays = _arrays(name, getattr(setting.algorithm, name)(params, part, ctx))
        except Exception as error:
            kind = type(setting.algorithm).__name__
            error.add_note(f"in {name} of {kind}, part {index} of view {self.view!r}, step {self.step}")
            raise
        return Contribution(arrays, sum(array.nbytes for array in arrays.values()))

    def combine(self, left: Contribution, right: Contribution) -> Contribution:
        """Of two neighbours, the left one with the lower part indices."""
        operations = getattr(self.setting.algorithm, "combine", {})
        return Contribution(combined(left.statistic, right.statistic, operations), left.nbytes + right.nbytes)


@dataclass(frozen=True)
class Prepared:
    """A task that is made when its part is handed out, from what is known then.

    prepare: from the index to the task; called in this process. A crew whose workers are far away sends what it
    returns, and accepts a result before it hands out the next part.
    """

    setting: Setting
    prepare: Callable[[int], Callable[[int, int], Any]]

    def __call__(self, index: int, attempt: int) -> Any:
        return self.prepare(index)(index, attempt)


def rng_of(seed: int, stream: int) -> np.random.Generator:
    """Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), keyed by seed and stream."""
    return np.random.Generator(np.random.Philox(key=np.array([seed % 2**64, stream], dtype=np.uint64)))


def read_only(params: Any) -> Any:
    """The same parameters, behind views that can't be written through."""
    if isinstance(params, Mapping):
        return {name: read_only(value) for name, value in params.items()}
    if isinstance(params, np.ndarray):
        view = params.view()
        view.flags.writeable = False
        return view
    return params


def _arrays(method: str, statistic: object) -> Statistic:
    if not isinstance(statistic, Mapping):
        raise TrainingError(
            f"{method} returned {type(statistic).__name__}; expected a mapping of names to arrays"
        )
    return {name: np.asarray(value) for name, value in statistic.items()}
