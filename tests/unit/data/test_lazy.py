"""Lazy columns and rows, and the row-major copy's life."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from millstream.data import Dataset, Role, from_arrow, from_numpy
from millstream.errors import SchemaError


@pytest.fixture
def flights() -> Dataset:
    table = pa.table({"distance": [100.0, 200.0, 300.0], "carrier": ["UA", "B6", "UA"], "late": [0, 1, 1]})
    return from_arrow(table, target="late", part_rows=2)


def test_map_batches_adds_features_and_keeps_roles(flights: Dataset) -> None:
    calls: list[int] = []

    def double(batch: pa.RecordBatch) -> pa.RecordBatch:
        calls.append(batch.num_rows)
        return batch.append_column("twice", pc.multiply(batch["distance"], 2))

    doubled = flights.map_batches(double)
    assert calls == [0]  # for the schema; the rows wait
    assert doubled.schema.features == ("distance", "carrier", "twice")
    assert doubled.schema.target == "late"
    assert doubled.to_table()["twice"].to_pylist() == [200.0, 400.0, 600.0]
    assert calls == [0, 2, 1]


def test_map_batches_keeps_the_number_of_rows(flights: Dataset) -> None:
    with pytest.raises(SchemaError, match=r"made 1 rows of 2.*use filter"):
        flights.map_batches(lambda batch: batch.slice(0, 1)).to_table()


def test_map_batches_returns_what_its_schema_says(flights: Dataset) -> None:
    wrong = flights.schema.arrow.set(0, pa.field("distance", pa.int64()))
    with pytest.raises(SchemaError, match="returned 'distance' as double; the schema says int64"):
        flights.map_batches(lambda batch: batch, wrong).to_table()
    more = flights.schema.arrow.append(pa.field("speed", pa.float64()))
    with pytest.raises(SchemaError, match="no column 'speed'"):
        flights.map_batches(lambda batch: batch, more).to_table()


def test_filter_keeps_parts_and_numbers_rows_anew(flights: Dataset) -> None:
    late = flights.filter(lambda batch: pc.equal(batch["carrier"], "UA"))
    assert repr(late) == "Dataset(rows not counted yet, features distance, carrier, target late)"
    assert [(part.first_row, part.n_rows) for part in late.parts] == [(0, 1), (1, 1)]
    assert late.to_table()["distance"].to_pylist() == [100.0, 300.0]
    with pytest.raises(SchemaError, match="one Boolean a row"):
        flights.filter(lambda batch: batch["distance"]).to_table()


def test_select_and_with_roles(flights: Dataset) -> None:
    narrow = flights.select(["late", "distance"]).with_roles(features=["late"], target="distance")
    assert narrow.to_table().column_names == ["late", "distance"]
    assert (narrow.schema.features, narrow.schema.target) == (("late",), "distance")
    assert narrow.n_features == 1
    assert flights.n_features is None


def test_persist_keeps_features_target_and_weight(tmp_path: Path) -> None:
    table = pa.table({"a": [1, None], "b": [2.5, 3.5], "id": ["x", "y"], "y": ["u", "v"], "w": [1, 2]})
    copy = from_arrow(table, features=["a", "b"], target="y", weight="w").persist(tmp_path)
    assert [(field.name, field.role) for field in copy.schema.fields] == [
        ("X", Role.FEATURE),
        ("y", Role.TARGET),
        ("w", Role.WEIGHT),
    ]
    (block,) = copy.parts[0].blocks()
    np.testing.assert_array_equal(block.X, [[1, 2.5], [np.nan, 3.5]])
    assert block.y is not None
    assert (block.y.tolist(), block.weight.tolist(), block.feature_names) == (
        ["u", "v"],
        [1.0, 2.0],
        ("a", "b"),
    )


def mapped_files(directory: Path) -> int:
    return Path("/proc/self/maps").read_text().count(f"{directory}/millstream-rows-")


def test_a_persisted_file_is_freed_when_nothing_reads_it_and_never_left_behind(tmp_path: Path) -> None:
    copy = from_numpy(np.arange(10.0).reshape(5, 2)).persist(tmp_path)
    assert list(tmp_path.iterdir()) == []
    part = copy.parts[0]
    del copy
    (block,) = part.blocks()
    del part
    gc.collect()
    assert mapped_files(tmp_path) == 1
    assert block.X.sum() == 45.0
    del block
    gc.collect()
    assert mapped_files(tmp_path) == 0


def test_a_persist_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def breaks(batch: pa.RecordBatch) -> pa.RecordBatch:
        raise ZeroDivisionError

    dataset = from_numpy(np.zeros((4, 2)), part_rows=2)
    with pytest.raises(ZeroDivisionError):
        dataset.map_batches(breaks, dataset.schema).persist(tmp_path)
    with pytest.raises(SchemaError, match=r"'carrier'.*OneHotEncoder"):
        from_arrow(pa.table({"carrier": ["UA"]})).persist(tmp_path)
    assert list(tmp_path.iterdir()) == []
