"""How many keys a second does the parameter server update on one core, and how near is a dense push to a bare add?"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.pairs import in_turn
from millstream.parallel import Keyed, ParameterServer, Sparse

PARAMS, KEYS, DENSE = 1_000_000, 1_000_000, 10_000_000


def pusher(params: Any, delta: Any, shards: int | None = None) -> Callable[[], object]:
    """Each call pushes the delta and ends the round."""
    server = ParameterServer(params, sources=1, shards=shards)
    clock = iter(range(1_000_000))

    def push() -> None:
        now = next(clock)
        server.push(0, now, delta)
        server.clock(0, now)

    return push


def measure() -> Iterator[str]:
    rng = np.random.default_rng(0)
    drawn = {"Zipf": rng.zipf(1.3, KEYS) % PARAMS, "even": rng.integers(0, PARAMS, KEYS)}
    values = rng.standard_normal(KEYS)
    bare = np.zeros(PARAMS)
    for name, keys in drawn.items():
        delta = {"w": Sparse(keys, values)}
        rows = {"w": Sparse(keys, values[:, None])}
        ways = {
            "NumPy's add.at, no server": lambda keys=keys: np.add.at(bare, keys, values),
            "a range of keys, 1 shard": pusher({"w": bare}, delta, 1),
            "a range of keys, 8 shards": pusher({"w": bare}, delta, 8),
            "any int64 keys, 1 shard": pusher({"w": Keyed()}, rows, 1),
            "any int64 keys, 8 shards": pusher({"w": Keyed()}, rows, 8),
        }
        for way, seconds in in_turn(ways).items():
            yield f"{name} keys, {way:26} {KEYS / seconds / 1e6:6.1f} M updates/s"
    ones, sums = np.ones(DENSE), np.zeros(DENSE)
    push = pusher({"w": sums}, {"w": ones})
    seconds = in_turn({"push": push, "add": lambda: np.add(sums, ones, out=sums)}, repeat=9)
    moved = 3 * ones.nbytes / 1e9
    yield (
        f"dense push of {ones.nbytes / 1e6:.0f} MB to 77 shards: {moved / seconds['push']:.1f} GB/s, a bare add "
        f"{moved / seconds['add']:.1f} GB/s: {seconds['add'] / seconds['push']:.0%}"
    )
