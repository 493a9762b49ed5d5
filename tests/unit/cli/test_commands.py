"""The commands as a user types them, each in a process of its own or through typer's runner."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import millstream as ms
from millstream.cli.app import app

RUN = CliRunner()
COMMANDS = [
    [],
    ["quickstart"],
    ["log"],
    ["log", "serve"],
    ["log", "topics"],
    ["train"],
    ["score"],
    ["models"],
    ["models", "list"],
    ["models", "show"],
    ["models", "promote"],
    ["models", "history"],
    ["serve"],
    ["deploy"],
    ["deploy", "batch"],
    ["deploy", "database"],
    ["deploy", "stream"],
    ["deploy", "edge"],
]


def millstream(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """The console script, in `folder`."""
    return subprocess.run(
        [sys.executable, "-c", "from millstream.cli.app import main; main()", *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with ``rides.parquet`` and a registry that holds version 1 of ``rides``, in production."""
    folder = tmp_path_factory.mktemp("cli")
    rng = np.random.default_rng(5)
    n = 2000
    zone = rng.choice(["north", "south"], n)
    fare = rng.gamma(2.0, 8.0, n)
    tip = (rng.random(n) < 1 / (1 + np.exp(3 - 0.15 * fare - (zone == "north")))).astype(np.int64)
    pq.write_table(pa.table({"zone": zone, "fare": fare, "tip": tip}), folder / "rides.parquet")
    done = millstream("train", "rides.parquet", "--target", "tip", "--name", "rides", folder=folder)
    assert done.returncode == 0, done.stderr
    assert "registered rides version 1" in done.stdout
    done = millstream("models", "promote", "rides", 1, "production", "--expect", 0, folder=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command):
    result = RUN.invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_help_needs_no_heavy_import():
    code = (
        "import sys; from millstream.cli.app import app; "
        "print({'numba', 'pyarrow', 'sklearn', 'onnxruntime', 'matplotlib'} & set(sys.modules))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert found.stdout.strip() == "set()"


def test_models_are_listed_with_their_aliases(trained):
    listed = millstream("models", "list", folder=trained).stdout
    assert "rides" in listed
    assert "production" in listed


def test_show_tells_signature_and_parity(trained):
    shown = millstream("models", "show", "rides@production", folder=trained).stdout
    assert "zone" in shown
    assert "probability" in shown


def test_a_promotion_that_lost_the_race_is_refused(trained):
    done = millstream("models", "promote", "rides", 1, "production", "--expect", 7, folder=trained)
    assert done.returncode == 1
    assert "PromotionConflict" in done.stderr


def test_batch_database_and_edge_agree(trained):
    done = millstream("score", "rides@production", "rides.parquet", "--to", "scored", folder=trained)
    assert done.returncode == 0, done.stderr
    scored = ms.read_parquet(trained / "scored").to_table()

    import sqlite3

    with sqlite3.connect(trained / "rides.db") as rides:
        rides.execute("CREATE TABLE rides (id INTEGER PRIMARY KEY, zone TEXT, fare REAL)")
        rides.executemany(
            "INSERT INTO rides (zone, fare) VALUES (?, ?)",
            zip(scored["zone"].to_pylist(), scored["fare"].to_pylist(), strict=True),
        )
    rides.close()
    url = ("sqlite:///rides.db", "--table", "rides", "--into", "tips")
    done = millstream("deploy", "database", "rides@production", *url, "--as-sql", folder=trained)
    assert done.returncode == 0, done.stderr
    with sqlite3.connect(trained / "rides.db") as rides:
        found = [p for (p,) in rides.execute("SELECT probability FROM tips ORDER BY id")]
    rides.close()
    np.testing.assert_allclose(found, scored["probability"].to_numpy(), rtol=1e-9)

    shown = millstream("deploy", "database", "rides@production", *url, "--show", folder=trained).stdout
    assert "CASE" in shown
    done = millstream("deploy", "edge", "rides@production", "--to", "edge", folder=trained)
    assert done.returncode == 0, done.stderr
    assert (trained / "edge" / "predict.py").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["models", "show", "nothing@production"], 1, "UnknownModel"),
        (["models", "show", "nothing"], 1, "names no version"),
        (["models", "list", "--registry", "elsewhere"], 1, "no registry in elsewhere"),
        (["train", "missing.parquet", "--target", "y"], 1, "missing.parquet"),
        (["train", "rides.parquet"], 2, "--target"),
        (["train", "rides.parquet", "--target", "tips"], 1, "tips"),
        (["score", "rides@9", "rides.parquet"], 1, "version 9"),
        (["deploy", "database", "rides@1", "nonsense", "--table", "a", "--into", "b"], 1, "nonsense"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_failures_name_the_value_and_end_without_a_traceback(trained, arguments, code, says):
    done = millstream(*arguments, folder=trained)
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_topics_of_a_folder_that_is_no_log(tmp_path):
    """Looking makes nothing."""
    done = millstream("log", "topics", tmp_path / "nodir", folder=tmp_path)
    assert done.returncode != 0
    assert "is no log" in done.stdout + done.stderr
    assert not (tmp_path / "nodir").exists()
