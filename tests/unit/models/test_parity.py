import numpy as np
import pyarrow as pa
import pytest

from millstream.errors import InputError, ParityError
from millstream.models import compare, flat, flat_schema
from millstream.models.outputs import to_batch


def predictions(labels, probabilities):
    return pa.table({"label": labels, "probability": pa.array(probabilities, pa.float64())})


def test_equal_predictions_hold():
    a = predictions([1, 0], [0.9, float("nan")])
    assert compare(a, a).holds


def test_a_flip_outside_the_tie_band_is_refused():
    parity = compare(predictions([1, 0], [0.9, 0.2]), predictions([1, 1], [0.9, 0.2]))
    assert parity.label_flips == 1
    with pytest.raises(ParityError, match="1 labels of 2 rows"):
        parity.require("the server")


def test_a_flip_inside_the_tie_band_is_a_tie():
    parity = compare(predictions([1], [0.5 + 4e-7]), predictions([0], [0.5 - 4e-7]))
    assert (parity.label_flips, parity.ties) == (0, 1)


def test_a_tie_of_many_classes_is_of_the_two_largest():
    three = to_batch({"label": np.array([0]), "probability": np.array([[0.4, 0.4, 0.2]])})
    other = to_batch({"label": np.array([2]), "probability": np.array([[0.4, 0.4, 0.2]])})
    assert compare(three, other).ties == 1


def test_differences_are_relative_to_the_largest_magnitude_of_the_column():
    a = pa.table({"prediction": [1e6, 1e-3]})
    assert compare(a, pa.table({"prediction": [1e6, 2e-3]})).holds
    assert not compare(a, pa.table({"prediction": [1e6 + 2, 1e-3]})).holds


@pytest.mark.parametrize("other", [float("nan"), float("inf"), None])
def test_a_number_that_is_lost_is_no_parity(other):
    assert not compare(predictions([1], [0.9]), predictions([1], [other])).holds


def test_zero_in_the_reference_bounds_at_zero():
    assert not compare(pa.table({"prediction": [0.0]}), pa.table({"prediction": [1e-9]})).holds


def test_labels_of_another_kind_are_flips():
    assert compare(pa.table({"label": [1]}), pa.table({"label": ["one"]})).label_flips == 1


def test_other_rows_or_columns_are_no_comparison():
    with pytest.raises(InputError, match="1 with 2 rows"):
        compare(predictions([1], [0.5]), predictions([1, 1], [0.5, 0.5]))
    with pytest.raises(InputError, match="lack \\['probability'\\]"):
        compare(predictions([1], [0.5]), pa.table({"label": [1]}))


@pytest.mark.parametrize(
    ("width", "names"),
    [(2, ["label", "probability"]), (3, ["label", "probability_0", "probability_1", "probability_2"])],
)
def test_the_flat_form(width, names):
    batch = to_batch({"label": np.array([0, 1]), "probability": np.arange(2.0 * width).reshape(2, width)})
    assert flat(batch).schema.names == names
    assert flat(batch).schema == flat_schema(batch.schema)
    assert flat(flat(batch)).equals(flat(batch))


def test_a_nan_is_null_in_the_flat_form():
    assert flat(to_batch({"prediction": np.array([np.nan, 1.0])})).to_pylist() == [
        {"prediction": None},
        {"prediction": 1.0},
    ]


def test_the_flat_form_keeps_a_slice():
    batch = to_batch({"features": np.arange(6.0).reshape(3, 2)})
    assert flat(batch.slice(1, 1)).to_pylist() == [{"features_0": 2.0, "features_1": 3.0}]
