"""Laws of every dataset, whatever it is made of: the same rows each time, by part, by column, by thread.

Sources are the functions below, one for each way to a dataset; `ReadColumns` implementations of the package are
discovered as classes and each must be reached by one of them.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import millstream.data as data

ROWS = 5000


def table() -> pa.Table:
    rng = np.random.default_rng(7)
    return pa.table(
        {
            "a": rng.standard_normal(ROWS),
            "b": pa.array(rng.integers(0, 9, ROWS), mask=rng.random(ROWS) < 0.1),
            "y": rng.integers(0, 2, ROWS),
            "w": rng.random(ROWS),
        }
    )


def arrow(path: Path) -> data.Dataset:
    return data.from_arrow(table(), target="y", weight="w", part_rows=[999, 0, 3001, 1000])


def parquet(path: Path) -> data.Dataset:
    arrow(path).write_parquet(path / "rows")
    return data.read_parquet(path / "rows", target="y", weight="w")


def large_row_group(path: Path) -> data.Dataset:
    wide = table().append_column("list", pa.array([[1.0] * 400] * ROWS, pa.list_(pa.float64(), 400)))
    pq.write_table(wide, path / "wide.parquet", row_group_size=ROWS, use_dictionary=False, compression="none")
    dataset = data.read_parquet(path / "wide.parquet", features=["a", "b", "list"], target="y", weight="w")
    assert len(dataset.parts) > 3
    return dataset


def filtered(path: Path) -> data.Dataset:
    return arrow(path).filter(lambda batch: np.asarray(batch["a"]) > 0)


def mapped(path: Path) -> data.Dataset:
    return arrow(path).map_batches(lambda batch: batch.append_column("c", batch["a"]))


def persisted(path: Path) -> data.Dataset:
    return arrow(path).persist(path)


SOURCES: list[Callable[[Path], data.Dataset]] = [arrow, parquet, large_row_group, filtered, mapped, persisted]


@pytest.fixture(params=SOURCES, ids=lambda source: source.__name__)
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> data.Dataset:
    return request.param(tmp_path)


def rows_of(part: data.Part, columns: Sequence[str] | None = None) -> bytes:
    """The rows as bytes of the Arrow stream format: NaN equals NaN, and the type counts."""
    chosen = part.schema.names if columns is None else columns
    table = pa.Table.from_batches(part.read(chosen), part.schema.select(chosen).arrow).combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue().to_pybytes()


def check_laws(dataset: data.Dataset) -> None:
    """Raise AssertionError if a law does not hold."""
    whole = [rows_of(part) for part in dataset.parts]
    first_row = 0
    for index, part in enumerate(dataset.parts):
        assert (part.index, part.first_row, part.n_rows) == (index, first_row, part.to_table().num_rows)
        first_row += part.n_rows
    assert dataset.n_rows == len(dataset) == first_row
    assert [rows_of(part) for part in dataset.parts] == whole, "a second reading gives the same rows"
    backwards = [rows_of(part) for part in reversed(dataset.parts)]
    assert backwards[::-1] == whole, "parts may be read in any order"
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(rows_of, dataset.parts)) == whole, "threads may read at once"
    for name in dataset.schema.names:
        alone = [value for part in dataset.parts for value in part.to_table([name])[name].to_pylist()]
        together = dataset.to_table()[name].to_pylist()
        assert repr(alone) == repr(together), "a column read alone is the column read with the others"
        for part in dataset.parts:
            assert all(batch.schema.names == [name] for batch in part.read([name])), (
                "exactly the columns asked for"
            )


def bits(dataset: data.Dataset) -> list[tuple[Any, ...]]:
    blocks = [block for part in dataset.parts for block in part.blocks()]
    return [
        (b.X.tobytes(), b.X.dtype, np.asarray(b.y).tobytes(), b.weight.tobytes(), b.first_row) for b in blocks
    ]


def test_laws(dataset: data.Dataset) -> None:
    check_laws(dataset)


def test_blocks_are_the_same_each_time_and_in_the_row_major_copy(
    dataset: data.Dataset, tmp_path: Path
) -> None:
    copy = dataset.persist(tmp_path)
    assert copy.row_major
    assert bits(dataset) == bits(dataset) == bits(copy)
    assert copy.schema.feature_names == dataset.schema.feature_names


def readers() -> set[type]:
    """Classes of the package that read the columns of a part: called with column names, they iterate over batches."""
    modules = [
        import_module(f"millstream.data.{module.name}") for module in pkgutil.iter_modules(data.__path__)
    ]
    classes = {c for module in modules for _, c in inspect.getmembers(module, inspect.isclass)}
    return {
        c
        for c in classes
        if c is not data.ReadColumns
        and c.__module__.startswith("millstream.")
        and "columns" in inspect.signature(vars(c).get("__call__", object)).parameters
    }


def test_every_reader_of_the_package_is_under_the_laws(tmp_path: Path) -> None:
    reached = set()
    for source in SOURCES:
        (tmp_path / source.__name__).mkdir()
        reached |= {type(part.read) for part in source(tmp_path / source.__name__).parts}
    assert len(readers()) >= 5
    assert readers() - reached == set()


class Forgetful:
    """A planted reader that gives its rows once."""

    def __init__(self, rows: pa.Table) -> None:
        self.batches = iter(rows.to_batches())

    def __call__(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return (batch.select(list(columns)) for batch in self.batches)


class IgnoresColumns:
    """A planted reader that gives every column, whatever was asked for."""

    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows

    def __call__(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return iter(self.rows.to_batches())


@pytest.mark.parametrize("planted", [Forgetful, IgnoresColumns])
def test_a_reader_that_breaks_a_law_is_found_out(planted: Callable[[pa.Table], Any]) -> None:
    whole = data.from_arrow(table(), part_rows=ROWS)
    (part,) = whole.parts
    with pytest.raises((AssertionError, ValueError)):
        check_laws(data.Dataset(whole.schema, [replace(part, read=planted(table()))]))


def test_a_wrong_number_of_rows_is_found_out() -> None:
    whole = data.from_arrow(table(), part_rows=ROWS)
    with pytest.raises(AssertionError):
        check_laws(data.Dataset(whole.schema, [replace(whole.parts[0], n_rows=ROWS - 1)]))
