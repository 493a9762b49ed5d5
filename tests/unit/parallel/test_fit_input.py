"""What `fit` is handed in place of a dataset is named."""

import numpy as np
import pytest

import millstream as ms
from millstream.errors import InputError


@pytest.mark.parametrize(
    "dataset", [np.ones((2, 1)), [[1.0]], "rides.parquet", None], ids=lambda v: type(v).__name__
)
def test_what_is_no_dataset_is_named(dataset):
    with pytest.raises(
        InputError, match=rf"a {type(dataset).__name__}; expected a Dataset or a mapping.*from_numpy\(X, y\)"
    ):
        ms.fit(object(), dataset, engine=ms.Inline())
