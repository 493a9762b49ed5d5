"""Every example runs as a reader would run it; the one with an algorithm of its own, on every engine."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import millstream as ms
from millstream.parallel import Engine, check_algorithm

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
RIDGE = next(path for path in EXAMPLES if path.name == "ridge.py")


def run(example: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(example), *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def local_engines() -> list[str]:
    """Engines of the package that one script can start by itself."""
    found = [engine for engine in Engine.__subclasses__() if engine.__module__.startswith("millstream.")]
    return sorted({engine.__name__ for engine in found} - {"Ray", "MPI"})


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs_and_says_something(example: Path) -> None:
    assert run(example).strip()


def test_ridge_gives_the_same_bytes_on_every_engine_at_every_width() -> None:
    digests = {
        variant: re.search(r"^sha256 (\w{64})$", run(RIDGE, *variant), re.M)[1]
        for variant in [("Inline", "1"), *((engine, "3") for engine in local_engines() if engine != "Inline")]
    }
    assert len(digests) >= 2
    assert len(set(digests.values())) == 1, digests


def test_the_algorithm_has_at_most_fifteen_lines() -> None:
    classes = [node for node in ast.parse(RIDGE.read_text()).body if isinstance(node, ast.ClassDef)]
    lines = ast.unparse(classes[0]).splitlines()
    assert len([line for line in lines if line.strip()]) <= 15


def test_the_algorithm_keeps_the_laws() -> None:
    names: dict = {"__name__": "ridge"}
    exec(compile(RIDGE.read_text(), str(RIDGE), "exec"), names)
    flats = ms.from_arrow(names["flats"]().to_table().slice(0, 2_000), target="y")
    assert set(check_algorithm(names["Ridge"](), flats).values()) == {"held"}
