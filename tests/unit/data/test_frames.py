"""Data frames at the border, and what is none."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import millstream as ms
from millstream.errors import InputError


def test_a_data_frame_is_a_dataset_without_its_index():
    frame = pd.DataFrame({"zone": ["a", "b"], "fare": [1.0, None], "tip": [0, 1]}, index=["first", "second"])
    dataset = ms.from_arrow(frame, target="tip", part_rows=1)
    assert dataset.schema.features == ("zone", "fare")
    assert dataset.to_table().to_pylist() == [
        {"zone": "a", "fare": 1.0, "tip": 0},
        {"zone": "b", "fare": None, "tip": 1},
    ]


@pytest.mark.parametrize(
    "rows", ["rides.parquet", np.ones((2, 2)), {"a": [1]}, None], ids=lambda v: type(v).__name__
)
def test_what_has_no_columns_is_named(rows):
    with pytest.raises(
        InputError, match=r"is a (str|ndarray|dict|NoneType); expected a pyarrow.Table.*from_numpy"
    ):
        ms.from_arrow(rows)


def test_a_frame_with_a_mixed_column_is_named():
    with pytest.raises(InputError, match="DataFrame has a column that is not of one type"):
        ms.from_arrow(pd.DataFrame({"a": [1, "b", pa]}))
