"""Files: which are read, in which parts, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

import millstream.data as data
import millstream.data.parquet as parquet
from millstream.data import from_arrow, read_parquet
from millstream.data.part import PART_BYTES
from millstream.errors import InputError, SchemaError


@pytest.fixture
def rides(tmp_path: Path) -> Path:
    for month in range(1, 4):
        rows = pa.table({"month": [month] * 5, "fare": np.arange(5.0) * month})
        pq.write_table(rows, tmp_path / f"{month}.parquet", row_group_size=3)
    (tmp_path / "notes.txt").write_text("not data")
    return tmp_path


def months(source: object, **arguments: object) -> list[int]:
    return sorted(set(read_parquet(source, **arguments).to_table()["month"].to_pylist()))  # type: ignore[arg-type]


def test_a_file_a_directory_a_pattern_a_list_a_uri(rides: Path) -> None:
    assert months(rides / "2.parquet") == [2]
    assert months(rides) == [1, 2, 3]
    assert months(str(rides / "[12].parquet")) == [1, 2]
    assert months([rides / "3.parquet", str(rides / "1*.parquet")]) == [1, 3]
    assert months((rides / "1.parquet").as_uri()) == [1]
    assert months("1.parquet", filesystem=pa.fs.SubTreeFileSystem(str(rides), pa.fs.LocalFileSystem())) == [1]


def test_a_star_stays_within_a_directory(rides: Path) -> None:
    (rides / "old").mkdir()
    pq.write_table(pa.table({"month": [9], "fare": [1.0]}), rides / "old" / "9.parquet")
    assert months(str(rides / "*.parquet")) == [1, 2, 3]
    assert months(rides) == [1, 2, 3, 9]


def test_row_groups_are_parts_and_large_ones_are_split(rides: Path, tmp_path: Path) -> None:
    dataset = read_parquet(rides)
    assert [part.n_rows for part in dataset.parts] == [3, 2] * 3
    assert [part.first_row for part in dataset.parts] == [0, 3, 5, 8, 10, 13]
    X = np.random.default_rng(0).standard_normal((200_000, 10))
    table = pa.table({f"x{i}": X[:, i] for i in range(10)})
    pq.write_table(table, tmp_path / "large.parquet", row_group_size=200_000)
    large = read_parquet(tmp_path / "large.parquet")
    assert 3 <= len(large.parts) <= 6
    assert large.to_table().equals(table)


def test_only_the_columns_needed_are_read(rides: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    iter_batches = pq.ParquetFile.iter_batches

    def watched(self: pq.ParquetFile, *args: object, columns: list[str], **kwargs: object) -> object:
        asked.append(columns)
        return iter_batches(self, *args, columns=columns, **kwargs)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", watched)
    read_parquet(rides / "1.parquet").select(["fare"]).to_table()
    list(read_parquet(rides / "1.parquet", features=["fare"]).parts[0].blocks())
    assert asked == [["fare"]] * 3


def test_reading_in_order_decodes_a_row_group_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    forward = parquet._Forward

    def counted(key: parquet._Key) -> parquet._Forward:
        opened.append(key.group)
        return forward(key)

    monkeypatch.setattr(parquet, "_Forward", counted)
    table = pa.table({"x": np.random.default_rng(0).standard_normal(4_000_000)})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=2_000_000)
    dataset = read_parquet(tmp_path / "x.parquet")
    assert len(dataset.parts) >= 8
    for part in dataset.parts:
        list(part.blocks())
    assert opened == [0, 1]


@pytest.fixture
def one_large_row_group(tmp_path: Path) -> data.Dataset:
    rows = np.arange(24 * 524_288, dtype="f8")
    path = tmp_path / "x.parquet"
    pq.write_table(
        pa.table({"x": rows}), path, row_group_size=len(rows), use_dictionary=False, compression="none"
    )
    return read_parquet(path)


def test_a_part_that_lies_behind_is_read_again(one_large_row_group: data.Dataset) -> None:
    parts = one_large_row_group.parts
    assert len(parts) > parquet.AHEAD + 2
    for index in (0, 1, 0, len(parts) - 1, 2, 1):  # after the last but two, part 2 is no longer held
        assert parts[index].to_table()["x"][0].as_py() == parts[index].first_row


def test_what_nobody_asked_for_is_held_up_to_a_bound(one_large_row_group: data.Dataset) -> None:
    before = pa.total_allocated_bytes()
    last = one_large_row_group.parts[-1].to_table()
    assert last.num_rows
    assert pa.total_allocated_bytes() - before < (parquet.AHEAD + 3) * PART_BYTES


def test_nothing_found_is_an_error(rides: Path) -> None:
    with pytest.raises(InputError, match=r"no Parquet file matches.*nowhere"):
        read_parquet(rides / "nowhere" / "*.parquet")


def test_a_torn_file_is_named(rides: Path) -> None:
    torn = rides / "3.parquet"
    torn.write_bytes(torn.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"3\.parquet is not a complete Parquet file"):
        read_parquet(rides)


def test_files_must_agree(rides: Path) -> None:
    pq.write_table(pa.table({"month": [4], "fare": ["seven"]}), rides / "4.parquet")
    with pytest.raises(SchemaError, match=r"'fare' is double in .*1\.parquet and string in .*4\.parquet"):
        read_parquet(rides)


def test_a_file_without_rows_is_a_part_without_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": pa.array([], pa.float64())}), tmp_path / "none.parquet")
    dataset = read_parquet(tmp_path / "none.parquet")
    assert (len(dataset), len(dataset.parts), dataset.to_table().num_rows) == (0, 1, 0)


def test_written_parquet_has_the_rows_and_parts(tmp_path: Path) -> None:
    table = pa.table({"x": [1.0, None, 3.0], "s": ["a", "b", None]})
    path = from_arrow(table, part_rows=[1, 0, 2]).write_parquet(tmp_path / "deep" / "out")
    assert sorted(file.name for file in path.iterdir()) == [f"part-0000{i}.parquet" for i in range(3)]
    again = read_parquet(path)
    assert again.to_table().equals(table)
    assert [part.n_rows for part in again.parts] == [1, 0, 2]


def test_parquet_is_there_when_complete_or_not_at_all(tmp_path: Path) -> None:
    def breaks(batch: pa.RecordBatch) -> pa.RecordBatch:
        if batch["x"][0].as_py() == 3.0:
            raise ZeroDivisionError
        return batch

    dataset = from_arrow(pa.table({"x": [1.0, 2.0, 3.0]}), part_rows=1)
    with pytest.raises(ZeroDivisionError):
        dataset.map_batches(breaks, dataset.schema).write_parquet(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    dataset = from_arrow(pa.table({"x": [1.0]}))
    dataset.write_parquet(tmp_path / "out")
    with pytest.raises(InputError, match="exists already"):
        dataset.write_parquet(tmp_path / "out")
