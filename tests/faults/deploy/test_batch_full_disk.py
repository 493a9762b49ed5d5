"""A part that does not fit on the disk is not in the sink; those before it are, and a second run goes on from there.

A limit on the size of a file (RLIMIT_FSIZE) stands for the full disk; the process that has it is a child.
"""

import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

import millstream as ms
from millstream.learn import KMeans

PROGRAM = """
import resource, sys
import numpy as np
import pyarrow as pa
import millstream as ms

registry, sink, size = sys.argv[1:]
rng = np.random.default_rng(1)
rows = pa.table({f"x{i}": rng.normal(0, 1, 6_000) for i in range(3)})
version = ms.Registry(registry).get("zones", 1)

def limit(done, total):
    if done == 1_000:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), resource.RLIM_INFINITY))

print(ms.BatchJob(version, ms.from_arrow(rows, part_rows=[1_000, 5_000]), sink, progress=limit).run().scored)
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    registry = ms.Registry(tmp_path_factory.mktemp("models"))
    X = np.random.default_rng(0).normal(0, 1, (500, 3))
    registry.register("zones", KMeans(n_clusters=4, random_state=7).fit(X), data=X)
    return registry


def run(registry, sink, size):
    command = [sys.executable, "-c", PROGRAM, str(registry.path), str(sink), str(size)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_part_that_does_not_fit_is_not_there(registry, tmp_path):
    failed = run(registry, tmp_path / "scored", 60_000)
    assert failed.returncode == 1
    assert "File too large" in failed.stderr.splitlines()[-1]
    assert sorted(path.name for path in (tmp_path / "scored").iterdir()) == [
        "_manifest.jsonl",
        "part-00000.parquet",
    ]
    assert pq.read_metadata(tmp_path / "scored" / "part-00000.parquet").num_rows == 1_000
    assert run(registry, tmp_path / "scored", 1 << 30).stdout.strip() == "1"
    assert ms.read_parquet(tmp_path / "scored").n_rows == 6_000
