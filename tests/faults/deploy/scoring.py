"""A process that scores and may be killed: ``python scoring.py KIND REGISTRY PLACE``.

KIND is batch, database or serve. It prints a line whenever it has made progress, so the test knows when to strike.
"""

import sys

import numpy as np
import pyarrow as pa

import millstream as ms


def rides(n):
    rng = np.random.default_rng(1)
    columns = {f"x{i}": rng.normal(0, 1, n) for i in range(3)}
    return pa.table({"id": np.arange(n), **columns})


def tell(done, rows):
    print(f"{done} of {rows}", flush=True)


def main(kind, registry, place):
    version = ms.Registry(registry).get("zones", 1)
    if kind == "batch":
        ms.BatchJob(
            version, ms.from_arrow(rides(40_000), part_rows=200), f"{place}/scored", progress=tell
        ).run()
    elif kind == "serve":
        server = ms.ModelServer(version)
        print("serving", flush=True)
        server.serve(int(place))
    else:
        url = f"sqlite:///{place}/x.db"
        ms.DatabaseScorer(version, url, table="rides", into="zones", progress=tell).run()
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
