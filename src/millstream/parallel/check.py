"""Does an algorithm of one's own keep the laws that make it run anywhere to the same bits?

Each law is tried on real runs over a small dataset. What is compared is the state after a few steps: by bytes where the
law says so, within a tolerance where rows are cut into other parts and floating-point sums round elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from millstream.data import Dataset
from millstream.errors import InputError, TrainingError
from millstream.parallel.algorithm import Algorithm
from millstream.parallel.algorithm_laws import LAWS, Case, NotAsked, Raised
from millstream.parallel.blas import one_blas_thread
from millstream.parallel.difference import Difference
from millstream.parallel.engine import Engine

__all__ = ["LawBroken", "Violation", "check_algorithm"]

_MOST = 3  # violations of one law that are told


@dataclass(frozen=True)
class Violation:
    """law: which. where: in which run or part it showed. difference: in which field and by how much."""

    law: str
    where: str
    difference: Difference

    def __str__(self) -> str:
        return f"{self.law}: {self.where}, {self.difference}"


class LawBroken(TrainingError):
    """An algorithm breaks the laws of `Algorithm`; `violations` holds what was seen."""

    def __init__(self, message: str, violations: Sequence[Violation] = ()) -> None:
        super().__init__(message)
        self.violations = tuple(violations)


def check_algorithm(
    algorithm: Algorithm,
    dataset: Dataset | Mapping[str, Dataset],
    *,
    steps: int = 4,
    seed: int = 0,
    rtol: float | None = None,
    engines: Sequence[Engine] = (),
) -> dict[str, str]:
    """Try every law of `Algorithm` on copies of `algorithm`.

    dataset: rows, or views by name as for `fit`. They are read into memory and trained on some thirty times: hundreds
    of rows are enough.
    steps: how many steps a run takes at most.
    rtol: how much floats may differ where rounding may, relative to the largest of their array. By default the square
    root of the machine epsilon, of the field's dtype or, if that is coarser, of the features'.
    engines: to be tried beside `Inline` and `Threads`.

    Returns what became of each law: "held", or why there was nothing to ask.

    Raises `LawBroken`, which lists the violations seen, at most three of a law: the law, the run, the field, and by how
    much. Where `local` is no function of its arguments, that is all there is to tell. What the algorithm itself raises
    on one worker, undisturbed, is raised as it is.

    >>> import numpy as np
    >>> from millstream.data import from_numpy
    >>> from millstream.parallel import Done
    >>> class MeanOfMeans:
    ...     def init(self, meta, rng):
    ...         return {"mean": np.zeros(meta.n_features), "parts": meta.n_parts}
    ...
    ...     def local(self, params, part, ctx):
    ...         rows = [block.X for block in part.blocks()]
    ...         return {"mean": np.concatenate(rows).mean(axis=0) if rows else 0 * params["mean"]}
    ...
    ...     def update(self, state, statistic):
    ...         return Done({"mean": statistic["mean"] / state["parts"]})
    >>> check_algorithm(MeanOfMeans(), from_numpy(np.arange(100.0)[:, None]))
    Traceback (most recent call last):
    ...
    millstream.parallel.check.LawBroken: MeanOfMeans breaks 1 law:
    - any partitioning: on parts of [0, 14, 0, 33, ...] rows against one of 100 (as does statistic['mean'] of step 0),
    ...
    """
    if steps < 1:
        raise InputError(f"check_algorithm(steps={steps}); try at least one step")
    views = {"train": dataset} if isinstance(dataset, Dataset) else dict(dataset)
    with one_blas_thread():
        case = Case(algorithm, views, steps, seed, rtol, engines)
        verdicts: dict[str, str] = {}
        violations: list[Violation] = []
        for law in LAWS:
            if "broken" in list(verdicts.values())[:1]:
                break  # the first law is that local is a function; the others are about such
            try:
                seen = [Violation(law, where, difference) for where, difference in LAWS[law](case)]
            except NotAsked as reason:
                verdicts[law] = str(reason)
                continue
            except Raised as raised:
                seen = [Violation(law, raised.where, Difference("state", None, None, raised.told))]
            verdicts[law] = "broken" if seen else "held"
            violations += seen[:_MOST]
    if violations:
        broken = list(verdicts.values()).count("broken")
        title = f"{type(algorithm).__name__} breaks {broken} law{'s' * (broken > 1)}:"
        raise LawBroken("\n- ".join([title, *map(str, violations)]), violations)
    return verdicts
