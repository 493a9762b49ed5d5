"""The contract of every algorithm that is trained in parallel.

A step ships parameters to the parts, computes a statistic on each, combines the statistics, and updates the
state::

    state = init(meta, rng)                             on the driver
    repeat   params, view, rows = plan(state)           on the driver
             local(params, part, ctx)                   on a worker, once for each part of the view
             combine the statistics, field by field     in a fixed tree over the part indices
             state = update(state, statistic)           on the driver, until it returns Done

MapReduce (Dean and Ghemawat, OSDI 2004) for machine learning as in Chu et al., "Map-Reduce for Machine
Learning on Multicore" (NIPS 2006): whatever is a sum over rows fits.

Laws for whoever implements it:

- `local` is a function of (params, part, ctx.step, ctx.rng) alone. It may be called again for the same part in the
  same step, on another worker, and must give the same bits.
- `local` changes neither `params` nor the part; the arrays it is handed are read-only.
- ``ctx.keep`` is a cache. Dropping it between steps changes the time and not a bit.
- The usual mistake: a mean in place of a sum. Statistics of parts of different sizes are combined by addition, so
  return sums and counts, and divide in `update`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from millstream.data import Part, Schema

__all__ = ["Algorithm", "Context", "Done", "Meta", "Step"]


@dataclass(frozen=True)
class Meta:
    """What `init` knows of the data.

    n_features and dtype (of ``Block.X``) are None while a feature is not a number.
    """

    n_features: int | None
    n_rows: int
    n_parts: int
    dtype: np.dtype[Any] | None
    schema: Schema


@dataclass(frozen=True)
class Done:
    """Returned by `update` when there is nothing left to do: the fitted parameters."""

    params: Any


@dataclass(frozen=True)
class Step:
    """What a step ships, over which view of the data, and over which of its rows.

    rows: None for all of them, or the size of a mini-batch: a number of rows, or a fraction from 0.0 to 1.0. Which rows
    depends on the seed of the fit and the step; `local` is called for every part, also for one that has none of them.
    """

    params: Any
    view: str = "train"
    rows: float | None = None


@dataclass(frozen=True)
class Context:
    """What `local` knows beside the parameters and the part.

    step: the number of the step, from 0.
    rng: random numbers that depend on the seed of the fit, the step and the part index alone.
    keep: stays with the part between steps, until a worker is lost; a cache and nothing more.
    scores: what `score` said of the rows of the part, combined over the shards; None without it, and within it.
    """

    step: int
    rng: np.random.Generator
    keep: dict[str, Any] = field(default_factory=dict)
    scores: Mapping[str, np.ndarray[Any, Any]] | None = None


class Algorithm(Protocol):
    """`init`, `local` and `update` are enough. These are read too where they are there:

    - ``combine: Mapping[str, Op]``: how a field of the statistic is combined; SUM for those not named.
    - ``plan(state) -> Step``: what to ship; by default the state, over all of "train".
    - ``measure(state, statistic) -> Mapping[str, float]``: what the history remembers of a step, such as the loss;
      after `update`, with the new state, or with the parameters if that was Done.
    - ``flops(params, n_rows) -> float``: floating-point operations of `local` over so many rows; the report then tells
      the share of the machine's sgemm.
    - ``delta(params, statistic, clock) -> Delta``: what one part adds to the parameters in step `clock`, by name an
      array or `Sparse`; allows `Stale` and `Async`. ``apply(shard, delta) -> shard``: how a shard of them takes
      it; by default it adds. The parameters are named arrays.
    - ``score(shard, part, ctx) -> rows``: the parameters are named arrays and come in shards. Per-row arrays from one
      shard, combined over the shards as `combine` says, are seen by `local` as ``ctx.scores``; `local` is then called
      for every part and shard. Its fields are put together in the order of the shards for `update`, or combined where
      they have no axes: a sum over rows that every shard knows belongs to shard 0 alone.
    - ``shards``: how many shards, both here and on a parameter server; by default one for each megabyte.
    - ``single_pass = True``: the data are read once or twice, so no row-major copy is made of them.
    """

    def init(self, meta: Meta, rng: np.random.Generator, /) -> Any:
        """The first state; on the driver."""
        ...

    def local(self, params: Any, part: Part, ctx: Context, /) -> Mapping[str, Any]:
        """Named arrays computed from one part; on a worker."""
        ...

    def update(self, state: Any, statistic: Mapping[str, np.ndarray[Any, Any]], /) -> Any:
        """The next state, or `Done`; on the driver."""
        ...
