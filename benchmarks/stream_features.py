"""How many events a second pass the feature plan of the quick start, from tables?"""

import time
from collections.abc import Iterator

import numpy as np

import millstream as ms
from millstream.cli.quickstart import events, plan


def measure() -> Iterator[str]:
    rng = np.random.default_rng(2013)
    tables = {name: events.arrival_order(rows, rng) for name, rows in events.flight_events().items()}
    tables.pop("arrivals")
    n = sum(table.num_rows for table in tables.values())
    for _ in range(3):
        streams = {
            name: ms.as_stream(table, event_time="at", delay=events.DELAY, name=name)
            for name, table in tables.items()
        }
        start = time.perf_counter()
        rows = plan.features(**streams).collect().num_rows
        seconds = time.perf_counter() - start
        yield f"{n:,} events, {rows:,} feature rows: {seconds:.2f} s, {n / seconds / 1e6:.2f} M events/s"
