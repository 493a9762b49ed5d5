"""How much faster are two workers than one, on threads and on processes, against what the machine itself allows?"""

import threading
from collections.abc import Callable, Iterator
from statistics import median

import numpy as np
from threadpoolctl import threadpool_limits

import millstream as ms
from benchmarks.pairs import in_turn
from millstream.learn.lloyd import Lloyd

ROWS, COLUMNS, CLUSTERS = 400_000, 64, 128
STEPS = 8
ENGINES = {"threads": ms.Threads, "processes": ms.Processes}


class Read:
    """Every row is read once a step and next to nothing is computed: a dot product of each block with itself."""

    def init(self, meta, rng):
        return {"step": 0}

    def local(self, params, part, ctx):
        return {"squares": sum(float(np.dot(block.X.ravel(), block.X.ravel())) for block in part.blocks())}

    def update(self, state, statistic):
        return {"step": state["step"] + 1}


class Nothing:
    """Statistics of a few bytes from parts of one row: all that remains is the engine."""

    def init(self, meta, rng):
        return {"w": np.zeros(4)}

    def local(self, params, part, ctx):
        return {"w": params["w"]}

    def update(self, state, statistic):
        return state


class Statistic:
    """Two parts with a statistic of `size` float32 each: all that remains is the reduction."""

    def __init__(self, size: int) -> None:
        self.size = size

    def init(self, meta, rng):
        return {}

    def local(self, params, part, ctx):
        if "sum" not in ctx.keep:
            ctx.keep["sum"] = np.ones(self.size, np.float32)
        return {"sum": ctx.keep["sum"]}

    def update(self, state, statistic):
        return state


def measure() -> Iterator[str]:
    rng = np.random.default_rng(0)
    X = rng.random((ROWS, COLUMNS), dtype=np.float32)
    rows = ms.from_numpy(X)
    lloyd = Lloyd(CLUSTERS, X[:CLUSTERS].astype("f8"), 0.0, STEPS)
    yield from speedup("k-means", lambda: lloyd, rows, "bare sgemm", products(X))
    X = np.tile(X, (4, 1))  # more than any cache holds
    yield from speedup("bare read", Read, ms.from_numpy(X), "dot product of the rows", reads(X))
    yield from overhead()
    yield from reduction()


def speedup(
    what: str,
    algorithm: Callable[[], object],
    rows: ms.Dataset,
    bare: str,
    pieces: list[Callable[[], object]],
) -> Iterator[str]:
    """Seconds of a step on one and two workers of each engine, in turn with the bare work on one and two threads."""
    seen: dict[tuple[str, int], list[float]] = {}

    def step(kind: str, workers: int) -> None:
        report = ms.fit(algorithm(), rows, engine=ENGINES[kind](workers), steps=STEPS).report
        # the first step warms up: pages, workers, imports
        seen.setdefault((kind, workers), []).append(median(one.seconds for one in report.steps[1:]))

    ways: dict[str, Callable[[], object]] = {
        f"{kind} {n}": lambda kind=kind, n=n: step(kind, n) for kind in ENGINES for n in (1, 2)
    }
    ways |= {f"bare {n}": lambda n=n: on_threads(pieces, n) for n in (1, 2)}
    with threadpool_limits(1):
        alone = in_turn(ways, repeat=3)
    limit = alone["bare 1"] / alone["bare 2"] / 2
    shape = f"{rows.n_rows:,} x {COLUMNS} float32"
    yield f"{what}, {shape}; {bare}: 1 thread {alone['bare 1']:.3f} s, 2 threads {limit:.0%} efficient"
    for kind in ENGINES:
        one, two = (median(seen[kind, n][1:]) for n in (1, 2))
        efficiency = one / two / 2
        yield (
            f"  {kind:10} a step: 1 worker {one:.3f} s, 2 workers {two:.3f} s, {efficiency:.0%} efficient, "
            f"{efficiency / limit:.0%} of the bare; one worker at {alone['bare 1'] / one:.0%} of one bare thread"
        )


def products(X: np.ndarray) -> list[Callable[[], object]]:
    """The matrix products of one assignment, in blocks of the size that stays in the cache."""
    centers = np.ascontiguousarray(X[:CLUSTERS].T)
    out = threading.local()

    def product(first: int) -> None:
        if not hasattr(out, "distances"):
            out.distances = np.empty((1024, CLUSTERS), np.float32)
        block = X[first : first + 1024]
        np.matmul(block, centers, out=out.distances[: len(block)])

    return [lambda first=first: product(first) for first in range(0, len(X), 1024)]


def reads(X: np.ndarray) -> list[Callable[[], object]]:
    flat = X.ravel()
    size = 1 << 20
    return [
        lambda at=at: np.dot(flat[at : at + size], flat[at : at + size]) for at in range(0, len(flat), size)
    ]


def on_threads(pieces: list[Callable[[], object]], n: int) -> None:
    def work(mine: list[Callable[[], object]]) -> None:
        for piece in mine:
            piece()

    threads = [threading.Thread(target=work, args=(pieces[i::n],)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def overhead() -> Iterator[str]:
    rows = ms.from_numpy(np.ones((16, 4)), part_rows=1)
    for engine in (ms.Inline(workers=1), *(make(n) for make in ENGINES.values() for n in (1, 2))):
        seconds = [step.seconds for step in ms.fit(Nothing(), rows, engine=engine, steps=500).report.steps]
        yield f"overhead of a step at 16 parts, {engine}: {median(seconds) * 1e3:.2f} ms"


def reduction() -> Iterator[str]:
    rows = ms.from_numpy(np.ones((2, 4)), part_rows=1)
    for size, steps in ((256, 500), (1 << 18, 100), (25 << 20, 10)):
        left, right, out = np.ones((3, size), np.float32)
        add = in_turn({"add": lambda a=left, b=right, c=out: np.add(a, b, out=c)}, repeat=9)["add"]
        for engine in (ms.Threads(2), ms.Processes(2)):
            seconds = [
                step.seconds
                for step in ms.fit(Statistic(size), rows, engine=engine, steps=steps).report.steps
            ]
            yield (
                f"a step that reduces two statistics of {size * 4:,} bytes, {engine}: {median(seconds) * 1e3:.2f} ms; "
                f"np.add alone {add * 1e3:.3f} ms"
            )
