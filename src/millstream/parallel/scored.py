"""A step of model parallelism: parts of the data by shards of the parameters.

::

    score(shard, part)         every part, every shard                   per-row arrays
    combine                    over the shards of a part, fixed tree     ctx.scores
    local(shard, part, ctx)    every part, every shard                   statistics of one shard's keys
    combine                    over the parts of a shard, fixed tree
    join                       the shards, in order                      what `update` sees

The shards follow from the parameters alone, so the bits don't depend on the workers. They do depend on the number of
shards where a score is a sum of floats, as any other order of summation would have it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from millstream.errors import TrainingError
from millstream.parallel.engine import Crew, Engine, Work
from millstream.parallel.local import Contribution, Local, read_only
from millstream.parallel.operation import SUM, Op
from millstream.parallel.part_queue import MakeQueue
from millstream.parallel.shard import Sharding, named_arrays
from millstream.parallel.tree import PairwiseTree, Statistic

__all__ = ["ScoredLocal", "run_scored"]


@dataclass(frozen=True, kw_only=True)
class ScoredLocal(Local):
    """Task ``part * n_shards + shard``: `score`, or once there are scores of every part, `local`."""

    sharding: Sharding
    scores: tuple[Statistic, ...] | None = None

    def __call__(self, index: int, attempt: int) -> Contribution:
        part, number = divmod(index, self.sharding.n_shards)
        shard = self.sharding.cut(self.params)[number]
        shard = shard.with_arrays(read_only(shard))
        keep = self.setting.keeps[self.view].of(index, self.step, attempt, self.since)
        if self.scores is None:
            return self.compute("score", shard, part, keep)
        return self.compute("local", shard, part, keep, self.scores[part])


def run_scored(
    task: Local, n_parts: int, *, engine: Engine, crew: Crew, queue: MakeQueue
) -> tuple[Work, Statistic, int]:
    """The work of a step, its statistic, and the bytes of all statistics and scores."""
    algorithm = task.setting.algorithm
    operations: Mapping[str, Op] = getattr(algorithm, "combine", {})
    params = named_arrays(task.params)
    sharding = Sharding.of(params, getattr(algorithm, "shards", None))
    n_shards = sharding.n_shards
    scoring = ScoredLocal(
        task.setting, params, task.view, task.step, task.since, task.batch, sharding=sharding
    )
    sizes: dict[tuple[str, int], int] = {}

    rows = [PairwiseTree(n_shards, operations) for _ in range(n_parts)]

    def accept_scores(index: int, contribution: Contribution) -> None:
        sizes["score", index] = contribution.nbytes
        part, shard = divmod(index, n_shards)
        rows[part].insert(shard, contribution.statistic)

    first = crew.run(scoring, accept_scores, n_parts * n_shards, step=task.step, queue=queue)
    shards = [engine.reduction(n_parts, operations) for _ in range(n_shards)]

    def accept(index: int, contribution: Contribution) -> None:
        sizes["local", index] = contribution.nbytes
        part, shard = divmod(index, n_shards)
        shards[shard].insert(part, contribution.statistic)

    local = replace(scoring, scores=tuple(tree.result() for tree in rows))
    second = crew.run(local, accept, n_parts * n_shards, step=task.step, queue=queue)
    work = Work(
        first.compute + second.compute,
        first.combine + second.combine,
        first.wait + second.wait,
        (*first.lost, *second.lost),
    )
    return work, joined([shard.result() for shard in shards], operations), sum(sizes.values())


def joined(statistics: Sequence[Statistic], operations: Mapping[str, Op]) -> dict[str, np.ndarray[Any, Any]]:
    """The statistics of all shards as one: arrays one after the other, numbers combined.

    >>> joined([{"sum": np.array([1, 2]), "n": np.array(3)}, {"sum": np.array([5]), "n": np.array(0)}], {})
    {'sum': array([1, 2, 5]), 'n': array(3)}
    """
    names = statistics[0].keys()
    if any(one.keys() != names for one in statistics):
        raise TrainingError(
            f"local returned the fields {sorted(names)} for one shard and others for another; return the same fields "
            "for every shard, also for one without keys"
        )
    whole: dict[str, np.ndarray[Any, Any]] = {}
    for name in names:
        pieces = [one[name] for one in statistics]
        if pieces[0].ndim:
            whole[name] = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
            continue
        whole[name] = pieces[0]
        for piece in pieces[1:]:
            whole[name] = operations.get(name, SUM)(whole[name], piece)
    return whole
