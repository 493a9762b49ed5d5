import numpy as np
import pyarrow as pa
import pytest

from millstream.errors import SignatureError
from millstream.models import Scorer, compare


@pytest.fixture
def scorer(bundle):
    return Scorer(bundle.path)


def test_it_answers_as_the_estimator(scorer, rows, answers):
    assert compare(answers, scorer.predict(rows)).holds


def test_tables_batches_and_dicts_are_one(scorer, rows):
    batch = scorer.predict(rows)
    assert scorer.predict(pa.Table.from_batches([rows.slice(0, 20), rows.slice(20)])).equals(batch)
    assert scorer.predict(rows.to_pydict()).equals(batch)


def test_one_row_as_scalars(scorer):
    assert scorer.predict({"delay": 3.5, "distance": 700, "carrier": "DL"}).num_rows == 1


def test_no_rows_have_the_same_schema(scorer, rows):
    assert scorer.predict(rows.slice(0, 0)).schema == scorer.predict(rows).schema


def test_null_and_nan_and_empty_are_one(scorer):
    null = {"delay": [None], "distance": [700], "carrier": [None]}
    other = {"delay": [float("nan")], "distance": [700], "carrier": [""]}
    assert scorer.predict(null).equals(scorer.predict(other))


def test_dictionary_and_large_strings_are_strings(scorer, rows):
    expected = scorer.predict(rows)
    for kind in (pa.dictionary(pa.int32(), pa.string()), pa.large_string()):
        assert scorer.predict(rows.set_column(2, "carrier", rows.column(2).cast(kind))).equals(expected)


def test_integers_widen_to_double(scorer):
    whole = {"delay": np.array([3], dtype=np.int16), "distance": [700], "carrier": ["DL"]}
    assert scorer.predict(whole).equals(
        scorer.predict({"delay": [3.0], "distance": [700], "carrier": ["DL"]})
    )


@pytest.mark.parametrize(
    ("column", "value", "came"),
    [
        ("delay", ["late"], "string"),
        ("delay", [2**53 + 1], "int64"),
        ("distance", [700.5], "double"),
        ("distance", [None], "1 nulls"),
        ("distance", np.array([2**64 - 1], dtype=np.uint64), "uint64"),
        ("carrier", [3], "int64"),
        ("carrier", ["AA", 3], "not one kind"),
        ("carrier", ["AA", "DL"], "2 rows"),
        ("delay", np.ones((1, 2)), r"shape \(1, 2\)"),
    ],
)
def test_a_column_that_does_not_match_is_named(scorer, column, value, came):
    rows = {"delay": [3.0], "distance": [700], "carrier": ["DL"], column: value}
    with pytest.raises(SignatureError, match=f"column '{column}'.*{came}"):
        scorer.predict(rows)


def test_a_missing_column_is_named(scorer, rows):
    with pytest.raises(SignatureError, match=r"column 'distance' is missing: expected int64.*carrier"):
        scorer.predict(rows.drop_columns(["distance"]))


def test_a_column_given_twice_is_refused(scorer, rows):
    with pytest.raises(SignatureError, match="delay"):
        scorer.predict(rows.append_column("delay", rows.column("delay")))


def test_an_array_is_refused_where_columns_are_named(scorer):
    with pytest.raises(SignatureError, match="carrier"):
        scorer.predict(np.ones((3, 3)))


def test_categories_are_read_from_the_graph(scorer):
    assert scorer.signature.inputs[2].categories == ("AA", "DL", "UA")
