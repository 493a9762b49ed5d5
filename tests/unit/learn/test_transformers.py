"""Transformers: what comes in goes out, columns are found by name, bad ones are named."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.pipeline import Pipeline

from millstream import learn
from millstream.data import Dataset, Role, from_arrow
from millstream.errors import InputError, SchemaError, SignatureError


def flights():
    return pa.table(
        {
            "origin": ["JFK", None, "LGA", "JFK"],
            "hour": [6, 7, 6, 23],
            "delay": [10.0, None, 30.0, 20.0],
            "number": ["a", "b", "c", "d"],
            "late": [False, False, True, True],
        }
    )


def features():
    place = Pipeline(
        [
            ("fill", learn.SimpleImputer(strategy="constant", fill_value="none")),
            ("hot", learn.OneHotEncoder()),
        ]
    )
    delay = Pipeline([("fill", learn.SimpleImputer()), ("scale", learn.StandardScaler())])
    return learn.ColumnTransformer(
        [("place", place, ["origin"]), ("delay", delay, ["delay"]), ("raw", "passthrough", ["hour"])]
    )


EXPECTED = [
    [1, 0, 0, -np.sqrt(2), 6],
    [0, 0, 1, 0, 7],
    [0, 1, 0, np.sqrt(2), 6],
    [1, 0, 0, 0, 23],
]


def test_a_dataset_stays_lazy_and_keeps_its_other_columns():
    rows = from_arrow(flights(), features=["origin", "hour", "delay"], target="late", part_rows=3)
    made = features().fit(rows).transform(rows)
    assert isinstance(made, Dataset)
    assert made.schema.names == ("X", "number", "late")
    assert made.schema.target == "late"
    assert made.schema["number"].role is Role.OTHER
    assert made.schema.feature_names[:3] == ("place__origin_JFK", "place__origin_LGA", "place__origin_none")
    blocks = [block.X for part in made.parts for block in part.blocks()]
    np.testing.assert_allclose(np.concatenate(blocks), EXPECTED)


def test_a_table_a_batch_and_a_frame_get_the_same_features():
    fitted = features().fit(flights())
    for made in (fitted.transform(flights()), fitted.transform(flights().to_batches()[0])):
        np.testing.assert_allclose(made["X"].to_pylist(), EXPECTED)
        assert "number" in made.schema.names
    frame = flights().to_pandas().sample(frac=1, random_state=0)  # an index that is no range
    np.testing.assert_allclose(fitted.transform(frame), np.array(EXPECTED)[frame.index])
    np.testing.assert_allclose(features().fit(frame).transform(flights().to_pandas()), EXPECTED)


def test_pipelines_predict_by_column():
    rows = from_arrow(flights(), features=["origin", "hour", "delay"], target="late", part_rows=[3, 0, 1])
    model = Pipeline([("features", features()), ("model", learn.LogisticRegression())]).fit(rows)
    assert model.predict(rows).tolist() == model.predict(flights()).tolist()
    assert model.predict_proba(flights()).shape == (4, 2)
    assert model[-1].feature_names_in_.tolist() == model[0].get_feature_names_out().tolist()


def test_an_unknown_category_is_refused_or_makes_zeros():
    known, new = pa.table({"origin": ["JFK", "LGA"]}), pa.table({"origin": ["EWR", "LGA"]})
    with pytest.raises(InputError, match="column 'origin' holds 'EWR', found unknown categories"):
        learn.OneHotEncoder().fit(known).transform(new)
    made = learn.OneHotEncoder(handle_unknown="ignore").fit(known).transform(new)
    assert made["X"].to_pylist() == [[0.0, 0.0], [0.0, 1.0]]


def test_categories_of_every_kind_of_column():
    table = pa.table(
        {
            "plain": ["b", "a"],
            "dictionary": pa.array(["b", "a"]).dictionary_encode(),
            "large": pa.array(["b", "a"], pa.large_string()),
            "small": pa.array([2, 1], pa.int8()),
            "real": [0.5, -1.5],
            "nothing": pa.nulls(2),
        }
    )
    found = learn.OneHotEncoder().fit(table).categories_
    assert [values.tolist() for values in found] == [["a", "b"]] * 3 + [[1, 2], [-1.5, 0.5], [""]]


def test_integers_and_floats_of_one_value_are_one_category():
    """A frame turns whole numbers into floats as soon as one is missing elsewhere."""
    encoder = learn.OneHotEncoder(handle_unknown="ignore").fit(pa.table({"hour": [6, 7]}))
    assert encoder.transform(pa.table({"hour": [7.0, 6.5]}))["X"].to_pylist() == [[0.0, 1.0], [0.0, 0.0]]


def test_float32_stays_float32():
    X = np.array([[1.0, np.nan], [3.0, 4.0]], dtype="f4")
    for transformer in (learn.StandardScaler(), learn.SimpleImputer()):
        assert transformer.fit_transform(X).dtype == np.float32
        table = pa.table({"a": X[:, 0], "b": X[:, 1]})
        assert transformer.fit_transform(table).schema.field("X").type == pa.list_(pa.float32(), 2)


BAD = {
    "timestamps as categories": (
        lambda: learn.OneHotEncoder().fit(pa.table({"at": pa.array([0], pa.timestamp("us"))})),
        InputError,
        "column 'at' is of type timestamp",
    ),
    "null among integers": (
        lambda: learn.OneHotEncoder().fit(pa.table({"hour": [1, None]})),
        InputError,
        "column 'hour' has 1 nulls among its integers",
    ),
    "NaN among floats": (
        lambda: learn.OneHotEncoder().fit(pa.table({"x": [1.5, None]})),
        InputError,
        "column 'x' holds NaN among its categories",
    ),
    "mixed objects": (
        lambda: learn.OneHotEncoder().fit(np.array([["a"], [1]], dtype=object)),
        InputError,
        "column 'x0' mixes types",
    ),
    "strings to scale": (lambda: learn.StandardScaler().fit(flights()), SchemaError, "'origin': 'string'"),
    "strings to average": (
        lambda: learn.SimpleImputer().fit(flights().select(["origin"])),
        InputError,
        "hold strings: use strategy='constant'",
    ),
    "strings beside numbers": (
        lambda: learn.SimpleImputer(strategy="constant", fill_value="x").fit(flights()),
        InputError,
        "column 'hour' is of type int64, beside columns of strings",
    ),
    "a word for a number": (
        lambda: learn.SimpleImputer(strategy="constant", fill_value="x").fit([[1.0]]),
        InputError,
        "fill_value='x' for numeric columns",
    ),
    "nothing to average": (
        lambda: learn.SimpleImputer().fit([[1.0, np.nan], [2.0, np.nan]]),
        InputError,
        "column 'x1' has no value",
    ),
    "strategy": (lambda: learn.SimpleImputer(strategy="mode").fit([[1.0]]), InputError, "strategy='mode'"),
    "handle_unknown": (
        lambda: learn.OneHotEncoder(handle_unknown="?").fit([["a"]]),
        InputError,
        "handle_unknown='?'",
    ),
    "no transformers": (lambda: learn.ColumnTransformer([]).fit(flights()), InputError, "at least one"),
    "no such column": (
        lambda: learn.ColumnTransformer([("x", "passthrough", ["dep"])]).fit(flights()),
        SchemaError,
        "no column 'dep'",
    ),
    "columns as one string": (
        lambda: learn.ColumnTransformer([("x", "passthrough", "hour")]).fit(flights()),
        InputError,
        "expected a list of column names",
    ),
    "an array": (
        lambda: learn.ColumnTransformer([("x", "passthrough", ["hour"])]).fit(np.ones((2, 2))),
        InputError,
        "takes columns by name",
    ),
    "a missing column": (
        lambda: features().fit(flights()).transform(flights().drop_columns(["delay"])),
        SignatureError,
        "expects column 'delay'",
    ),
    "a column of another kind": (
        lambda: (
            features().fit(flights()).transform(flights().set_column(0, "origin", pa.array([1, 2, 3, 4])))
        ),
        SignatureError,
        "column 'origin' as string, and int64 came",
    ),
    "a column that is in the way": (
        lambda: (
            features().fit(flights()).transform(from_arrow(flights().append_column("X", flights()["hour"])))
        ),
        SchemaError,
        "another of that name",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_it_cannot_take_is_named(name):
    make, kind, message = BAD[name]
    with pytest.raises(kind, match=message.replace("?", r"\?")):
        make()


def test_frames_of_numbers_keep_their_names():
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 5.0]})
    scaler = learn.StandardScaler().fit(frame)
    assert scaler.get_feature_names_out().tolist() == ["a", "b"]
    with pytest.raises(ValueError, match="feature names should match"):
        scaler.transform(frame.rename(columns={"b": "c"}))
