"""The five deployments of the quick start, each asked about the same flights."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

import millstream as ms
from millstream.models import Parity, Version, compare

__all__ = ["KEY", "Answers", "batch", "database", "database_sql", "edge", "pairwise", "server"]

KEY = "flight_id"
REQUEST_ROWS = 4_096
EDGE_SECONDS = 120
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Answers:
    """Predictions of one deployment, in the order of their key: ``label`` int64, ``probability`` float64."""

    rows: pa.Table

    @classmethod
    def of(cls, key: Any, label: Any, probability: Any) -> Answers:
        table = pa.table({KEY: key, "label": label, "probability": probability})
        schema = pa.schema([(KEY, pa.int64()), ("label", pa.int64()), ("probability", pa.float64())])
        return cls(table.cast(schema).sort_by(KEY))

    def compare(self, other: Answers) -> Parity:
        """How far `other` is from these answers; every flight must be answered exactly once."""
        if not self.rows[KEY].equals(other.rows[KEY]):
            mine, theirs = self.rows[KEY], other.rows[KEY]
            raise ms.MillstreamError(
                f"the deployments answered different flights: {len(mine)} and {len(theirs)}, "
                f"{len(np.intersect1d(mine, theirs))} of them in both; expected the same {len(mine)}"
            )
        predictions = ["label", "probability"]
        return compare(self.rows.select(predictions), other.rows.select(predictions))


def pairwise(answers: Mapping[str, Answers]) -> dict[str, Parity]:
    """Every pair of deployments compared, by ``"one, other"``."""
    return {
        f"{one}, {other}": answers[one].compare(answers[other]) for one, other in combinations(answers, 2)
    }


def batch(version: Version, rows: pa.Table, home: Path, tell: Progress) -> Answers:
    """Rows as Parquet in, predictions as Parquet out."""
    job = ms.BatchJob(
        version, source=rows, sink=home / "scored", keep=[KEY], progress=lambda n, of: tell("batch", n, of)
    )
    job.run()
    scored = ms.read_parquet(home / "scored").to_table()
    return Answers.of(scored[KEY], scored["label"], scored["probability"])


def database(version: Version, rows: pa.Table, home: Path, tell: Progress) -> Answers:
    """Flights in a SQLite table, predictions beside them in one transaction."""
    file = home / "flights.db"
    _load(rows, file)
    scorer = ms.DatabaseScorer(
        version,
        f"sqlite:///{file}",
        table="flights",
        into="delays",
        progress=lambda n, of: tell("database", n, of),
    )
    scorer.run()
    return _delays(file, "delays")


def database_sql(version: Version, home: Path) -> Answers:
    """The model as one plain SQL expression, computed by the database itself."""
    file = home / "flights.db"
    ms.DatabaseScorer(version, f"sqlite:///{file}", table="flights", into="delays_sql", as_sql=True).run()
    return _delays(file, "delays_sql")


def server(version: Version, rows: pa.Table, tell: Progress) -> Answers:
    """Flights by the Open Inference Protocol V2 over HTTP, a few thousand a request."""
    features = rows.drop_columns([KEY])
    found = []
    with ms.ModelServer(version) as running, running.client() as client:
        for start in range(0, features.num_rows, REQUEST_ROWS):
            found.append(client.predict(features.slice(start, REQUEST_ROWS)))
            tell("server", min(start + REQUEST_ROWS, features.num_rows), features.num_rows)
    answered = pa.concat_tables(found)
    return Answers.of(rows[KEY], answered["label"], answered["probability"])


def edge(version: Version, rows: pa.Table, home: Path, tell: Progress) -> Answers:
    """A folder that needs onnxruntime and NumPy alone, run by a Python of its own over CSV."""
    tell("edge", 0, rows.num_rows)
    folder = ms.EdgeBundle(version).write(home / "edge").path
    asked, answered = home / "edge-input.csv", home / "edge-output.csv"
    pa_csv.write_csv(rows.drop_columns([KEY]), asked)
    command = [sys.executable, "-I", str(folder / "predict.py"), "--format", "csv"]
    with asked.open("rb") as source, answered.open("wb") as sink:
        subprocess.run(command, stdin=source, stdout=sink, check=True, timeout=EDGE_SECONDS)
    found = pa_csv.read_csv(answered)
    tell("edge", rows.num_rows, rows.num_rows)
    return Answers.of(rows[KEY], found["label"], found["probability"])


def _load(rows: pa.Table, file: Path) -> None:
    names = rows.column_names
    quoted = ", ".join(f'"{name}"' for name in names)
    marks = ", ".join("?" for _ in names)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(f'CREATE TABLE flights ({quoted}, PRIMARY KEY ("{KEY}"))')
        for part in rows.to_batches(max_chunksize=10_000):
            values = zip(*(column.to_pylist() for column in part.columns), strict=True)
            connection.executemany(f"INSERT INTO flights VALUES ({marks})", values)  # noqa: S608


def _delays(file: Path, table: str) -> Answers:
    with closing(sqlite3.connect(file)) as connection:
        found = connection.execute(f"SELECT {KEY}, label, probability FROM {table}").fetchall()  # noqa: S608
    columns = list(zip(*found, strict=True)) or [(), (), ()]
    return Answers.of(*(pa.array(column) for column in columns))
