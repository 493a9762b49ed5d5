"""Data larger than the memory a process may have: read, copied row-major, trained on, written.

The limit is RLIMIT_DATA: private writable memory, heap and anonymous maps, but not the mapped file of the row-major
copy, whose pages belong to the page cache. The last test shows that the limit bites: the whole table doesn't fit.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

MB = 1 << 20
N_FEATURES, ROW_GROUPS, GROUP_ROWS = 16, 3, 1_000_000  # 384 MB of float64
ALLOWED = 192 * MB

PROLOGUE = f"""
import pathlib, re, resource, shutil, sys, tempfile
import numpy as np
import pyarrow as pa
import millstream.data as data
from millstream.parallel import Done, Threads, combine_by_key, fit, regroup

pa.set_memory_pool(pa.system_memory_pool())

class Moments:
    def __init__(self, single_pass):
        self.single_pass = single_pass

    def init(self, meta, rng):
        return {{"sum": np.zeros(meta.n_features), "step": 0}}

    def local(self, params, part, ctx):
        return {{"sum": sum((block.X.sum(axis=0) for block in part.blocks()), np.zeros(16)), "rows": part.n_rows}}

    def update(self, state, statistic):
        again = not self.single_pass and state["step"] < 1
        return {{**state, "step": state["step"] + 1}} if again else Done(statistic)

# Once through everything on a small file: now every library is loaded and every pool has its threads.
small = pathlib.Path(tempfile.mkdtemp())
data.from_arrow(pa.table({{f"x{{i}}": np.ones(64) for i in range(16)}}), part_rows=8).write_parquet(small / "rows")
for single_pass in (True, False):
    fit(Moments(single_pass), data.read_parquet(small / "rows"), engine=Threads(2))
data.read_parquet(small / "rows").filter(lambda b: np.asarray(b['x0']) > 0).to_table()

def keyed(dataset):
    return dataset.map_batches(lambda b: b.append_column("key", b["x0"].cast(pa.int32())))

rows = regroup(keyed(data.read_parquet(small / "rows")), "key", engine=Threads(2)).dataset
combine_by_key(rows, "key", {{"total": ("x1", "sum")}}, engine=Threads(2))
shutil.rmtree(small)
held = int(re.search(r"VmData:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (held + {ALLOWED}, held + {ALLOWED}))
rides = data.read_parquet(sys.argv[1])
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "rides.parquet"
    rng = np.random.default_rng(0)
    schema = pa.schema([(f"x{i}", pa.float64()) for i in range(N_FEATURES)])
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for _ in range(ROW_GROUPS):
            columns = [pa.array(rng.integers(0, 100, GROUP_ROWS).astype("f8")) for _ in range(N_FEATURES)]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=GROUP_ROWS)
    return path


def run(script: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROLOGUE + script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("single_pass", [True, False], ids=["single pass", "row-major copy"])
def test_trains_on_twice_the_memory_it_may_have(single_pass: bool, path: Path) -> None:
    result = run(f"print(fit(Moments({single_pass}), rides, engine=Threads(2)).params['sum'].tolist())", path)
    assert result.returncode == 0, result.stderr[-2000:]
    columns = pq.read_table(path)
    assert result.stdout.strip() == str([float(column.to_numpy().sum()) for column in columns.columns])


def test_writes_what_it_can_not_hold(path: Path, tmp_path: Path) -> None:
    result = run(
        "rides.filter(lambda b: np.asarray(b['x0']) < 50).write_parquet(sys.argv[2])", path, tmp_path / "out"
    )
    assert result.returncode == 0, result.stderr[-2000:]
    written = sum(pq.read_metadata(file).num_rows for file in (tmp_path / "out").iterdir())
    assert written == int((pq.read_table(path, columns=["x0"])["x0"].to_numpy() < 50).sum())


def test_regroups_what_it_can_not_hold(path: Path) -> None:
    script = """
shuffled = regroup(keyed(rides), "key", engine=Threads(2))
homes = [set(part.to_table(["key"])["key"].to_pylist()) for part in shuffled.dataset.parts]
print(shuffled.report.rows_out, shuffled.report.bytes_shuffled, sum(map(len, homes)), len(set.union(*homes)))
totals = combine_by_key(keyed(rides), "key", {"total": ("x1", "sum")}, engine=Threads(2)).dataset.to_table()
print(totals.sort_by("key")["total"].to_pylist())
"""
    result = run(script, path)
    assert result.returncode == 0, result.stderr[-2000:]
    first, second = result.stdout.splitlines()
    rows, nbytes, homes, keys = map(int, first.split())
    assert (rows, homes, keys) == (ROW_GROUPS * GROUP_ROWS, 100, 100)
    assert nbytes >= rows * (8 * N_FEATURES + 4)
    table = pq.read_table(path, columns=["x0", "x1"])
    keyed = np.bincount(table["x0"].to_numpy().astype(int), table["x1"].to_numpy())
    assert second == str(keyed.tolist())  # sums of integers, exact


def test_the_limit_bites(path: Path) -> None:
    result = run("rides.to_table()", path)
    assert result.returncode != 0
    assert "MemoryError" in result.stderr
