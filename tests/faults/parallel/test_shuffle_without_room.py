"""A shuffle that does not fit on the disk: an error that says where, and nothing left there.

A limit on the size of a file (RLIMIT_FSIZE) stands for the full disk; the process that has it is a child.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import resource, sys
import numpy as np
import millstream.data as data
from millstream.parallel import Threads, regroup
import pyarrow as pa

if __name__ == "__main__":
    rows = data.from_arrow(pa.table({"key": np.arange(100_000)}), part_rows=10_000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
    print(regroup(rows, "key", engine=Threads(2), directory=sys.argv[1]).dataset.n_rows)
"""


def test_an_error_and_nothing_left(tmp_path: Path) -> None:
    def run(size: int) -> subprocess.CompletedProcess[str]:
        (tmp_path / "script.py").write_text(SCRIPT)
        place = tmp_path / "place"
        place.mkdir(exist_ok=True)
        command = [sys.executable, str(tmp_path / "script.py"), str(place), str(size)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    failed = run(20_000)
    assert failed.returncode == 1
    assert f"TrainingError: rows can't be written to {tmp_path / 'place'}" in failed.stderr
    assert list((tmp_path / "place").iterdir()) == []
    assert run(100_000_000).stdout == "100000\n"
