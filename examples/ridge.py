"""Ridge regression written once, run on any engine to the same bits.

    python examples/ridge.py                 on two threads
    python examples/ridge.py Inline 3        on any engine of millstream.parallel, with so many workers

The algorithm says what a part contributes (`local`) and what the sums mean (`update`). Where the workers run is a
value, so nothing here changes when they become processes or machines. The last line is a digest of the fitted bytes:
it is the same for every engine and every number of workers.
"""

import hashlib
import sys

import numpy as np

import millstream as ms
from millstream import parallel


class Ridge:
    def init(self, meta, rng):
        return {"w": np.zeros(meta.n_features)}

    def local(self, params, part, ctx):
        d = len(params["w"])
        gram, moment = np.zeros((d, d)), np.zeros(d)
        for block in part.blocks():
            gram += block.X.T @ block.X
            moment += block.X.T @ block.y
        return {"gram": gram, "moment": moment}

    def update(self, state, total):
        return ms.Done({"w": np.linalg.solve(total["gram"] + np.eye(len(state["w"])), total["moment"])})


def flats() -> ms.Dataset:
    """100,000 made-up flats: area, rooms, floor and distance to the centre, and what the rent would be."""
    rng = np.random.default_rng(7)
    X = np.column_stack(
        [rng.gamma(6, 12, 100_000), *rng.integers(1, 8, (2, 100_000)), rng.exponential(5, 100_000)]
    )
    return ms.from_numpy(X, X @ [11.0, 40.0, 8.0, -22.0] + rng.normal(0, 90, 100_000), part_rows=8_000)


def engine_of(name: str = "Threads", workers: str = "2") -> parallel.Engine:
    return ms.Inline(workers=int(workers)) if name == "Inline" else getattr(parallel, name)(int(workers))


def main() -> None:
    engine = engine_of(*sys.argv[1:])
    fitted = ms.fit(Ridge(), flats(), engine=engine)
    print(fitted.report)
    terms = zip(fitted.params["w"], ("area", "rooms", "floor", "km"), strict=True)
    print("rent =", " + ".join(f"{w:.2f} {name}" for w, name in terms))
    print("sha256", hashlib.sha256(fitted.params["w"].tobytes()).hexdigest())


if __name__ == "__main__":
    main()
