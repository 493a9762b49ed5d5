"""Logistic regression by stochastic gradient descent, under all three kinds of synchronisation.

    python examples/logistic_sgd.py              on two threads
    python examples/logistic_sgd.py Inline 3     on an engine of millstream.parallel, with so many workers

Each part runs SGD over its own rows, from the parameters it was handed, and says how far it got; a step moves the
parameters by the mean of that (Zinkevich et al., "Parallelized stochastic gradient descent", NIPS 2010). `update` does
so when all parts are there; `delta` says what one part adds on its own, which is all that `Stale` and `Async` need.
"""

import sys

import numpy as np

import millstream as ms
from millstream import parallel


class LogisticSGD:
    def init(self, meta, rng):
        return {"w": np.zeros(meta.n_features), "n_parts": np.array(meta.n_parts)}

    def local(self, params, part, ctx):
        w = params["w"].copy()
        for block in part.blocks():
            for rows in np.array_split(ctx.rng.permutation(len(block)), len(block) // 50 + 1):
                w += 0.5 * (block.y[rows] - 1 / (1 + np.exp(-block.X[rows] @ w))) @ block.X[rows] / 50
        return {"moved": w - params["w"]}

    def update(self, state, total):
        return {**state, "w": state["w"] + total["moved"] / state["n_parts"]}

    def delta(self, params, statistic, clock):
        return {"w": statistic["moved"] / params["n_parts"]}


def visits(w: np.ndarray) -> ms.Dataset:
    """20,000 made-up visits to a shop, of which those that end with a purchase are to be told."""
    rng = np.random.default_rng(11)
    X = rng.standard_normal((20_000, len(w)))
    return ms.from_numpy(X, (X @ w + rng.logistic(size=len(X)) > 0).astype(float), part_rows=1_000)


def engine_of(name: str = "Threads", workers: str = "2") -> parallel.Engine:
    return ms.Inline(workers=int(workers)) if name == "Inline" else getattr(parallel, name)(int(workers))


def main() -> None:
    w = np.array([1.0, -2.0, 0.5, 0.0, 3.0])
    dataset = visits(w)
    for sync in (parallel.Bulk(), parallel.Stale(bound=2), parallel.Async()):
        fitted = ms.fit(LogisticSGD(), dataset, engine=engine_of(*sys.argv[1:]), sync=sync, steps=30)
        error = np.abs(fitted.params["w"] - w).max()
        print(f"{sync!r}: w = {np.round(fitted.params['w'], 2).tolist()}, largest error {error:.2f}")
        if fitted.report.traffic is not None:
            print(f"    rounds behind, seen by readers: {dict(fitted.report.traffic.staleness)}")


if __name__ == "__main__":
    main()
