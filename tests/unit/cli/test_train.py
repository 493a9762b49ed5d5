"""What `millstream train` takes as features, and what it says of the quality."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from typer.testing import CliRunner

from millstream.cli.app import app

RUN = CliRunner()


def test_times_are_no_features_and_quality_is_printed(tmp_path):
    rng = np.random.default_rng(3)
    n = 500
    dwell = rng.normal(size=n)
    visits = {
        "at": pa.array(np.arange(n), pa.timestamp("us", "UTC")),
        "page": rng.choice(["home", "cart"], n),
        "dwell": dwell,
        "bought": np.where(dwell + rng.normal(size=n) > 0, "yes", "no"),
    }
    pq.write_table(pa.table(visits), tmp_path / "visits.parquet")
    done = RUN.invoke(app, ["train", str(tmp_path / "visits.parquet"), "--target", "bought"])
    assert done.exit_code == 0, done.output
    assert "not used: at (timestamp[us, tz=UTC])" in done.output
    assert "auc, training rows" in done.output
    assert "accuracy, training rows" in done.output


def test_features_may_be_typed_with_spaces(tmp_path):
    pq.write_table(
        pa.table({"a": [0.0, 1.0, 2.0], "b": [1.0, 0.0, 1.0], "c": [5.0, 5.0, 1.0]}), tmp_path / "x.parquet"
    )
    arguments = [
        "train",
        str(tmp_path / "x.parquet"),
        "--model",
        "kmeans",
        "--clusters",
        "2",
        "--features",
        "a, b",
    ]
    done = RUN.invoke(app, arguments)
    assert done.exit_code == 0, done.output


def test_the_version_is_printed():
    assert RUN.invoke(app, ["--version"]).output.startswith("millstream 0.")
