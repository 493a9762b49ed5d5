"""From columns to matrices: dtypes, nulls, no copies, fixed cuts."""

from __future__ import annotations

import decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from millstream.data import Block, Dataset, from_arrow, from_numpy
from millstream.data.block import BLOCK_BYTES
from millstream.errors import InputError, SchemaError


def blocks(dataset: Dataset) -> list[Block]:
    return [block for part in dataset.parts for block in part.blocks()]


def test_numbers_of_every_kind_become_float64_and_null_becomes_nan() -> None:
    table = pa.table(
        {
            "int": pa.array([1, None, 3]),
            "bool": [True, False, None],
            "float": pa.array([0.5, None, float("nan")], pa.float32()),
            "decimal": [decimal.Decimal("1.25"), None, decimal.Decimal("-2")],
            "list": pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, None]], pa.list_(pa.float32(), 2)),
        }
    )
    (block,) = blocks(from_arrow(table))
    nan = np.nan
    expected = [[1, 1, 0.5, 1.25, 1, 2], [nan, 0, nan, nan, 3, 4], [3, nan, nan, -2, 5, nan]]
    assert block.X.dtype == np.float64
    assert block.X.flags.c_contiguous
    np.testing.assert_array_equal(block.X, expected)
    assert block.feature_names == ("int", "bool", "float", "decimal", "list0", "list1")
    assert block.weight.tolist() == [1.0, 1.0, 1.0]
    assert block.y is None


def test_blocks_can_not_be_written() -> None:
    table = pa.table({"a": [1.0, 2.0], "b": [3, 4], "y": ["u", "v"], "w": [1, 2]})
    for dataset in (from_arrow(table, target="y", weight="w"), from_numpy(np.zeros((2, 2)), [1, 2])):
        (block,) = blocks(dataset)
        assert block.y is not None
        assert [array.flags.writeable for array in (block.X, block.y, block.weight)] == [False] * 3


def test_float32_stays_float32_where_every_feature_is() -> None:
    narrow = pa.table({"a": pa.array([1.5], pa.float32()), "b": pa.array([2.5], pa.float32())})
    assert blocks(from_arrow(narrow))[0].X.dtype == np.float32
    assert blocks(from_arrow(narrow.append_column("c", [[1]])))[0].X.dtype == np.float64


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_from_numpy_is_not_copied(dtype: str) -> None:
    X = np.arange(1000, dtype=dtype).reshape(100, 10)
    dataset = from_numpy(X, part_rows=30)
    assert all(np.shares_memory(block.X, X) for block in blocks(dataset))
    np.testing.assert_array_equal(np.concatenate([block.X for block in blocks(dataset)]), X)
    assert X.flags.writeable
    assert not blocks(dataset)[0].X.flags.writeable


@pytest.mark.parametrize(
    ("y", "dtype"),
    [
        ([1, 2, 3], "i8"),
        ([0.5, 1, 2], "f8"),
        ([True, False, True], "?"),
        (["a", "b", "a"], "O"),
        (np.eye(3), "f8"),
    ],
)
def test_the_target_keeps_its_dtype(y: Any, dtype: str) -> None:
    (block,) = blocks(from_numpy(np.zeros((3, 1)), y=y))
    assert block.y is not None
    assert block.y.dtype == np.dtype(dtype)
    assert block.y.tolist() == np.asarray(y).tolist()


def test_blocks_are_cut_by_bytes_and_numbered_by_row() -> None:
    rows = BLOCK_BYTES // (8 * 512)
    dataset = from_numpy(np.zeros((2 * rows + 5, 512)), part_rows=2 * rows + 5)
    assert [(block.first_row, len(block)) for block in blocks(dataset)] == [
        (0, rows),
        (rows, rows),
        (2 * rows, 5),
    ]


def test_parts_come_from_the_data_and_may_be_empty() -> None:
    dataset = from_numpy(np.arange(5.0)[:, None], part_rows=[2, 0, 3])
    assert [(part.index, part.first_row, part.n_rows) for part in dataset.parts] == [
        (0, 0, 2),
        (1, 2, 0),
        (2, 2, 3),
    ]
    assert [block.first_row for block in blocks(dataset)] == [0, 2]
    assert len(from_numpy(np.zeros((1_000_000, 4))).parts) == 8  # 32 MB


def test_a_column_of_strings_is_sent_to_an_encoder() -> None:
    with pytest.raises(SchemaError, match=r"'carrier' is of type string.*encode it first"):
        blocks(from_arrow(pa.table({"carrier": ["UA"]})))


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf"), None])
def test_weights_are_finite_and_not_negative(bad: float | None) -> None:
    table = pa.table({"x": [1.0, 2.0], "w": pa.array([1.0, bad])})
    with pytest.raises(SchemaError, match="weight 'w' holds"):
        blocks(from_arrow(table, weight="w"))


def test_a_null_target_is_refused_unless_it_can_be_nan() -> None:
    with pytest.raises(SchemaError, match="target 'y' has 1 nulls in 2 rows"):
        blocks(from_arrow(pa.table({"x": [1.0, 2.0], "y": [1, None]}), target="y"))
    (block,) = blocks(from_arrow(pa.table({"x": [1.0, 2.0], "y": [1.0, None]}), target="y"))
    assert block.y is not None
    assert np.isnan(block.y[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"X": np.zeros(3)}, r"shape \(3,\).*\(rows, features\)"),
        ({"X": np.array([["a"]])}, "dtype <U1"),
        ({"X": np.zeros((3, 2)), "y": [1, 2]}, r"y has shape \(2,\) and X has 3 rows"),
        ({"X": np.zeros((3, 2)), "weight": [1]}, "one value a row"),
        ({"X": np.zeros((3, 2)), "part_rows": 0}, "part_rows=0"),
        ({"X": np.zeros((3, 2)), "part_rows": [1, 1]}, "sums to 2 for 3 rows"),
        ({"X": np.zeros((3, 2)), "part_rows": [4, -1]}, "none negative"),
    ],
)
def test_bad_arrays_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_numpy(**arguments)
