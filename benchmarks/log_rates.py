"""How fast does the embedded log take, keep and give back records, against fsync itself?"""

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

import millstream as ms

RECORDS = 500_000


def measure() -> Iterator[str]:
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "at": pa.array(np.arange(RECORDS) * 1000, pa.timestamp("us", "UTC")),
            "sensor": rng.integers(0, 1000, RECORDS),
            "value": rng.normal(size=RECORDS),
        }
    )
    with tempfile.TemporaryDirectory() as folder, ms.Log(Path(folder) / "log") as log:
        topic = log.create_topic("readings", partitions=3, schema=table.schema)
        start = time.perf_counter()
        topic.append(table, key="sensor")
        yield rate("append, acks=all after fsync, JSON", start)
        start = time.perf_counter()
        rows = ms.read_topic(topic).to_table().num_rows
        yield rate(f"read_topic, {rows:,} rows from the segment files", start)
        size = sum(file.stat().st_size for file in Path(folder).rglob("*.log"))
        yield f"{size / RECORDS:.0f} bytes a record on disk"
        yield f"one write of 200 bytes with fdatasync: {fdatasync_seconds(Path(folder)) * 1e6:.0f} us"


def rate(what: str, start: float) -> str:
    seconds = time.perf_counter() - start
    return f"{what}: {seconds:.2f} s, {RECORDS / seconds / 1e6:.2f} M records/s"


def fdatasync_seconds(folder: Path, times: int = 200) -> float:
    handle = os.open(folder / "probe", os.O_CREAT | os.O_WRONLY)
    try:
        start = time.perf_counter()
        for _ in range(times):
            os.write(handle, b"x" * 200)
            os.fdatasync(handle)
        return (time.perf_counter() - start) / times
    finally:
        os.close(handle)
