"""What can be written to ONNX, what is refused, and what a graph refuses in turn."""

import numpy as np
import onnxruntime
import pyarrow as pa
import pytest
from scipy.special import expit
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import Pipeline

from millstream import learn
from millstream.errors import InputError


def run(model, inputs):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def test_inputs_are_the_columns_of_the_signature():
    """Further columns of the signature are inputs too, and change nothing."""
    rows = pa.table({"b": pa.array([1.0, 2.0], pa.float32()), "a": [3, 4], "c": ["x", "y"]})
    scaler = learn.StandardScaler().fit(rows.select(["a", "b"]))
    model = learn.to_onnx(scaler, rows.schema)
    inputs = {i.name: i.type.tensor_type.elem_type for i in model.graph.input}
    assert inputs == {"b": 1, "a": 7, "c": 8}  # float, int64, string
    feed = {"a": np.array([3, 4]), "b": np.array([1, 2], "f4"), "c": np.array(["x", "y"], dtype=object)}
    assert run(model, feed).tolist() == [[-1.0, -1.0], [1.0, 1.0]]


def test_an_array_of_strings_is_one_input():
    encoder = learn.OneHotEncoder(handle_unknown="ignore").fit(np.array([["a", "x"], ["b", "y"]]))
    new = np.array([["b", "?"]], dtype=object)
    assert (
        run(learn.to_onnx(encoder), {"X": new}).tolist() == [[0, 1, 0, 0]] == encoder.transform(new).tolist()
    )


def test_a_graph_refuses_what_the_encoder_refuses():
    encoder = learn.OneHotEncoder(handle_unknown="error").fit(pa.table({"origin": ["JFK", "LGA"]}))
    model = learn.to_onnx(encoder, pa.schema([("origin", pa.string())]))
    assert run(model, {"origin": np.array(["LGA"], dtype=object)}).tolist() == [[0, 1]]
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.Fail, match="Unknown Category"):
        run(model, {"origin": np.array(["EWR"], dtype=object)})


def test_a_pipeline_of_transformers_has_features():
    X = np.array([[1.0, np.nan], [3.0, 4.0], [5.0, 8.0]])
    steps = Pipeline(
        [("fill", learn.SimpleImputer()), ("skip", "passthrough"), ("scale", learn.StandardScaler())]
    )
    fitted = steps.fit(X)
    np.testing.assert_allclose(
        run(learn.to_onnx(fitted), {"X": X}), learn.outputs(fitted, X)["features"], rtol=1e-12
    )


def test_small_probabilities_keep_their_digits():
    """1 - p would lose them, and so does ONNX Runtime's Sigmoid; past 1e308 a probability is 0."""
    model = learn.LogisticRegression(C=1e3).fit([[-1.0], [1.0]], [0, 1])
    scores = np.array([-700.0, -60.0, -20.0, 0.0, 30.0, 900.0])
    X = scores[:, None] / model.coef_[0, 0]
    expected = learn.outputs(model, X)["probability"]
    np.testing.assert_allclose(expected.min(axis=1), expit(-np.abs(scores)), rtol=1e-9, atol=1e-308)
    session = onnxruntime.InferenceSession(learn.to_onnx(model).SerializeToString())
    np.testing.assert_allclose(session.run(["probability"], {"X": X})[0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            lambda: learn.to_onnx(LinearRegression().fit([[1.0]], [1.0]), pa.schema([("x", pa.float64())])),
            "no ONNX form",
        ),
        (lambda: learn.to_onnx(scaler(), pa.schema([("b", pa.float64())])), "signature has no column 'a'"),
        (lambda: learn.to_onnx(scaler(), pa.schema([("a", pa.timestamp("us"))])), "of type timestamp"),
    ],
)
def test_what_cannot_be_written_is_named(write, message):
    with pytest.raises(InputError, match=message):
        write()


def scaler():
    return learn.StandardScaler().fit(pa.table({"a": [1.0, 2.0]}))
