"""Rows computed once, by the workers, and then read from where they lie."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import millstream.data as data
from millstream.parallel import (
    Engine,
    Fault,
    Inline,
    Processes,
    Threads,
    combine_by_key,
    materialize,
    regroup,
)
from millstream.parallel.mapped_rows import MOST_FILES, runs_of

TABLE = pa.table(
    {
        "x": np.arange(100.0),
        "word": pa.array([f"w{i % 7}" for i in range(100)]).dictionary_encode(),
        "y": pa.array([None if i % 9 == 0 else i for i in range(100)]),
    }
)
SIZES = [30, 0, 50, 20]


def squared(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.append_column("square", pa.array(np.asarray(batch["x"]) ** 2))


def large(batch: pa.RecordBatch) -> np.ndarray:
    return np.asarray(batch["square"]) >= 100


@pytest.mark.parametrize(
    "engine", [Inline(3, [Fault(0, 1)]), Threads(2), Threads(2, faults=[Fault(0, 0)]), Processes(2)], ids=repr
)
def test_the_same_rows_in_the_same_parts(engine: Engine) -> None:
    lazy = data.from_arrow(TABLE, target="y", part_rows=SIZES).map_batches(squared).filter(large)
    stored = materialize(lazy, engine=engine)
    assert stored.schema == lazy.schema
    assert [part.n_rows for part in stored.parts] == [20, 0, 50, 20]
    assert [part.first_row for part in stored.parts] == [0, 20, 20, 70]
    assert stored.to_table().to_pydict() == lazy.to_table().to_pydict()


def test_the_function_is_not_called_again() -> None:
    calls: list[int] = []

    def count(batch: pa.RecordBatch) -> pa.RecordBatch:
        calls.append(batch.num_rows)
        return batch

    stored = materialize(
        data.from_arrow(TABLE, part_rows=50).map_batches(count, TABLE.schema), engine=Threads(2)
    )
    assert sorted(calls) == [50, 50]
    for _ in range(2):
        stored.to_table()
    assert len(calls) == 2
    assert all(part.resident for part in stored.parts)


def test_nothing_is_left_on_the_disk_or_open(tmp_path: Path) -> None:
    open_before = len(os.listdir("/proc/self/fd"))
    stored = materialize(data.from_arrow(TABLE, part_rows=1), directory=tmp_path, engine=Inline())
    assert list(tmp_path.iterdir()) == []
    assert stored.to_table().to_pydict() == TABLE.to_pydict()
    del stored
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_many_parts_share_files() -> None:
    for n in (0, 1, MOST_FILES, MOST_FILES + 1, 5 * MOST_FILES - 3):
        runs = runs_of(n)
        assert [i for run in runs for i in run] == list(range(n))
        assert len(runs) <= MOST_FILES
    parts = materialize(data.from_arrow(pa.table({"x": range(1000)}), part_rows=1), engine=Inline()).parts
    assert [part.to_table()["x"].to_pylist() for part in parts] == [[i] for i in range(1000)]


def fails(batch: pa.RecordBatch) -> pa.RecordBatch:
    raise ZeroDivisionError("no")


def test_an_error_comes_out_as_it_is_and_leaves_nothing(tmp_path: Path) -> None:
    broken = data.from_arrow(TABLE).map_batches(fails, TABLE.schema)
    with pytest.raises(ZeroDivisionError):
        materialize(broken, engine=Threads(2), directory=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_without_parts() -> None:
    none = data.Dataset(data.from_arrow(TABLE).schema, [])
    assert materialize(none, engine=Inline()).n_rows == 0
    assert regroup(none, "word", engine=Inline()).dataset.to_table().num_rows == 0
    counted = combine_by_key(none, "word", {"n": (None, "count")}, engine=Inline())
    assert counted.dataset.to_table().to_pydict() == {"word": [], "n": []}
