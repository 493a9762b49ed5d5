"""The edge bundle: one folder that answers where Millstream is not installed.

::

    zones-edge/
      model.onnx       as in the bundle of the version
      signature.json   as in the bundle of the version
      golden.jsonl     the golden rows, flat, a JSON object a line
      answers.jsonl    the recorded predictions for them
      bundle.json      model, version, digest, sha256 of the files
      predict.py       the program; needs onnxruntime and NumPy

Before the folder appears under its name, its program answers the golden rows in another process, in which importing
anything but onnxruntime, NumPy and the standard library fails, and the folder's size and the latency of one row are
measured there against the budget.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow as pa

from millstream.data import durable_folder
from millstream.deploy.target import Target
from millstream.errors import DeployError, InputError
from millstream.models import Version, flat, flat_schema
from millstream.models.feeds import flat_rows

__all__ = ["EdgeBundle", "EdgeReport"]

DEADLINE = timedelta(minutes=2)

# Runs a program while every package but those two, and what they need, is out of reach.
_ISOLATED = """
import runpy, sys
class OutOfReach:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} is out of reach at the edge")
sys.meta_path.insert(0, OutOfReach())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
BLOCKED = (
    "millstream",
    "pyarrow",
    "pandas",
    "scipy",
    "sklearn",
    "onnx",
    "msgspec",
    "sqlalchemy",
    "starlette",
    "numba",
)


@dataclass(frozen=True)
class EdgeReport:
    """What was written: size in bytes; seconds to load the model and to score one row."""

    path: Path
    size: int
    load: float
    row_median: float
    row_p99: float


class EdgeBundle(Target):
    """A version as a folder that needs onnxruntime and NumPy alone.

    max_bytes, max_latency: the budget for the folder's size and for the median time to score one row.

    >>> import tempfile, numpy as np
    >>> from millstream.learn import KMeans
    >>> from millstream.models import Registry
    >>> X = np.array([[0.0, 0.0], [0.0, 1.0], [9.0, 9.0], [9.0, 8.0]])
    >>> folder = tempfile.mkdtemp()
    >>> version = Registry(folder + "/models").register("zones", KMeans(2, random_state=7).fit(X), data=X)
    >>> report = EdgeBundle(version, max_bytes=1_000_000).write(folder + "/zones-edge")
    >>> sorted(path.name for path in report.path.iterdir())[-2:]
    ['predict.py', 'signature.json']
    """

    target = "edge"

    def __init__(
        self, version: Version, *, max_bytes: int | None = None, max_latency: timedelta | None = None
    ) -> None:
        super().__init__(version)
        self.max_bytes = max_bytes
        self.max_latency = max_latency

    def write(self, path: str | os.PathLike[str]) -> EdgeReport:
        """Write the folder `path`, which must not exist yet; it appears when all checks have passed.

        Raises ParityError; DeployError if the budget is exceeded, the program fails, or the disk is full.
        """
        place = Path(path)
        if place.exists():
            raise InputError(f"{place} exists already; choose another path, or remove it first")
        try:
            with durable_folder(place) as folder:
                _write_folder(self.version, folder)
                self.version.check(self.target, self._answers(folder))
                report = self._measured(folder, place)
        except OSError as error:
            raise DeployError(
                f"{place} can't be written: {error.strerror or error}; nothing of it is there: make room on its disk, "
                "or make its parent folder writable, and write it again, or choose another path"
            ) from error
        self._went_live(
            str(place),
            size=report.size,
            load=report.load,
            row_median=report.row_median,
            row_p99=report.row_p99,
        )
        return report

    def golden_answers(self) -> pa.Table:
        """Golden rows through the program of a folder, in a process without Millstream and Arrow."""
        with tempfile.TemporaryDirectory(prefix="millstream-edge-") as folder:
            _write_folder(self.version, Path(folder))
            return self._answers(Path(folder))

    def _answers(self, folder: Path) -> pa.Table:
        lines = _isolated(folder, stdin=(folder / "golden.jsonl").read_bytes()).splitlines()
        rows = [json.loads(line) for line in lines]
        return pa.Table.from_pylist(rows, schema=flat_schema(self.version.signature.output_schema))

    def _measured(self, folder: Path, place: Path) -> EdgeReport:
        size = sum(file.stat().st_size for file in folder.iterdir())
        if self.max_bytes is not None and size > self.max_bytes:
            raise DeployError(
                f"{self.version} takes {size} bytes at the edge; the budget is {self.max_bytes}"
            )
        report = EdgeReport(place, size, **json.loads(_isolated(folder, "--measure")))
        if self.max_latency is not None and report.row_median > self.max_latency.total_seconds():
            raise DeployError(
                f"{self.version} takes {report.row_median * 1e6:.0f} µs a row at the edge; "
                f"the budget is {self.max_latency / timedelta(microseconds=1):.0f} µs"
            )
        return report


def _write_folder(version: Version, folder: Path) -> None:
    contents = {
        "model.onnx": version.bundle.read("model.onnx"),
        "signature.json": version.bundle.read("signature.json"),
        "golden.jsonl": _json_lines(flat_rows(version.signature, version.golden.inputs)),
        "answers.jsonl": _json_lines(flat(version.golden.outputs)),
        "predict.py": files("millstream.deploy.edge").joinpath("predict.py").read_bytes(),
    }
    about = {
        "model": version.name,
        "version": version.number,
        "digest": version.digest,
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()},
    }
    contents["bundle.json"] = json.dumps(about, indent=1).encode()
    for name, data in contents.items():
        (folder / name).write_bytes(data)


def _json_lines(rows: pa.RecordBatch) -> bytes:
    plain = ({name: _plain(value) for name, value in row.items()} for row in rows.to_pylist())
    return b"".join(json.dumps(row).encode() + b"\n" for row in plain)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _isolated(folder: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    """What the folder's program prints; `-I` keeps this process's paths and variables out of it."""
    program = _ISOLATED.format(blocked=set(BLOCKED))
    command = [sys.executable, "-I", "-B", "-c", program, str(folder / "predict.py"), *arguments]
    try:
        ended = subprocess.run(
            command, input=stdin, capture_output=True, timeout=DEADLINE.total_seconds(), check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DeployError(
            f"the edge program did not end within {DEADLINE}; try it by hand in {folder}"
        ) from error
    if ended.returncode:
        raise DeployError(
            f"the edge program ended with status {ended.returncode}: {ended.stderr[-2000:].decode(errors='replace')}"
        )
    return ended.stdout
