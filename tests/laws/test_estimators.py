"""Every estimator, discovered: the same bits at any width (promise 2), and ONNX gives its own answers (promise 3)."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
import pytest
from onnx import TensorProto
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from millstream import learn
from millstream.data import from_arrow
from millstream.parallel import Fault, Inline, Processes, Threads

ROWS = 1_500
NUMBERS = ["a", "b", "c", "d"]
PLACES = ["JFK", "LGA", "EWR", "", "Zürich"]


def uneven(rng):
    """37 part sizes that sum to ROWS, one of them zero."""
    cuts = np.sort(rng.choice(np.arange(1, ROWS), 35, replace=False))
    return np.diff(np.concatenate([[0], cuts[:20], cuts[19:], [ROWS]])).tolist()


@functools.cache
def flights():
    """Values over eight decades, some missing; strings with an empty one; a target of strings."""
    rng = np.random.default_rng(3)
    columns = {name: rng.standard_normal(ROWS) * 10.0 ** (3 * i - 4) for i, name in enumerate(NUMBERS)}
    place, hour = rng.choice(PLACES, ROWS), rng.integers(0, 5, ROWS)
    score = columns["a"] * 1e4 + columns["d"] * 1e-5 + (place == "JFK") + rng.standard_normal(ROWS)
    missing = {f"{name}_gaps": np.where(rng.random(ROWS) < 0.1, np.nan, v) for name, v in columns.items()}
    label = np.select([score > 1, score > -0.5], ["very", "late"], "on time")
    return pa.table(
        {**columns, **missing, "place": place, "hour": hour, "step": hour / 2, "label": label}
    ), uneven(rng)


def dataset(features):
    table, sizes = flights()
    return from_arrow(table.select([*features, "label"]), target="label", part_rows=sizes)


GAPS = [f"{name}_gaps" for name in NUMBERS]
HOT = ["place", "hour"]


def composed(model):
    hot = learn.OneHotEncoder(handle_unknown="ignore")
    fill = learn.SimpleImputer(strategy="constant", fill_value="nowhere")
    numbers = Pipeline([("fill", learn.SimpleImputer()), ("scale", learn.StandardScaler())])
    columns = [
        ("place", Pipeline([("fill", fill), ("hot", hot)]), ["place"]),
        ("hour", hot, ["hour"]),
        ("numbers", numbers, GAPS),
        ("raw", "passthrough", ["c"]),
    ]
    features = learn.ColumnTransformer(columns)
    return Pipeline([("features", features), ("model", model)]) if model else features


# One or more (estimator, feature columns) for each class; a class without an entry fails its tests.
CASES = {
    learn.LogisticRegression: [
        (learn.LogisticRegression(), NUMBERS),
        (composed(learn.LogisticRegression(C=10.0)), [*HOT, *GAPS, "c"]),
    ],
    learn.KMeans: [
        (learn.KMeans(n_clusters=5, random_state=1), NUMBERS),
        (composed(learn.KMeans(n_clusters=7, random_state=2)), [*HOT, *GAPS, "c"]),
    ],
    learn.StandardScaler: [(learn.StandardScaler(), GAPS)],
    learn.SimpleImputer: [
        (learn.SimpleImputer(), GAPS),
        (learn.SimpleImputer(strategy="constant", fill_value=-1.0), GAPS),
        (learn.SimpleImputer(strategy="constant", fill_value="nowhere"), ["place"]),
    ],
    learn.OneHotEncoder: [
        (learn.OneHotEncoder(), HOT),
        (learn.OneHotEncoder(handle_unknown="ignore"), ["step"]),
    ],
    learn.ColumnTransformer: [(composed(None), [*HOT, *GAPS, "c"])],
}

ENGINES = [
    Inline(seed=1, workers=1),
    Inline(seed=2, workers=2),
    Inline(seed=3, workers=3),
    Threads(1),
    Threads(2),
    Threads(3),
    Threads(3, faults=[Fault(step=0, worker=1)]),
    Processes(2),
    Processes(3, faults=[Fault(step=0, worker=1)]),
]


EACH = [
    pytest.param(estimator, features, id=f"{kind.__name__}-{number}")
    for kind in learn.estimators()
    for number, (estimator, features) in enumerate(CASES.get(kind, [(None, None)]))
]
every_estimator = pytest.mark.parametrize(("estimator", "features"), EACH)


def on(engine, estimator):
    """A clone with every ``engine`` parameter, of steps and transformers too, set."""
    fresh = clone(estimator)
    if isinstance(fresh, Pipeline):
        fresh.steps = [(name, on(engine, step)) for name, step in fresh.steps]
    elif isinstance(fresh, learn.ColumnTransformer):
        fresh.transformers = [
            (name, step if step == "passthrough" else on(engine, step), columns)
            for name, step, columns in fresh.transformers
        ]
    else:
        fresh.set_params(engine=engine)
    return fresh


def fitted_bits(estimator):
    """Every fitted attribute, but the report of times, as bytes."""
    if isinstance(estimator, Pipeline):
        return [fitted_bits(step) for _, step in estimator.steps]
    if isinstance(estimator, learn.ColumnTransformer):
        return [
            step if step == "passthrough" else fitted_bits(step) for _, step, _ in estimator.transformers_
        ]
    fitted = {name: value for name, value in vars(estimator).items() if name.endswith("_")}
    fitted.pop("fit_report_", None)
    assert fitted
    return {name: bits(value) for name, value in fitted.items()}


def bits(value):
    if isinstance(value, list):
        return [bits(item) for item in value]
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value.dtype.str, value.shape, value.tobytes()
    return value.tolist() if isinstance(value, np.ndarray) else value


@every_estimator
def test_the_same_bits_at_any_width(estimator, features):
    assert estimator is not None, "add an example of this class to CASES"
    data = dataset(features)
    assert len(data.parts) == 37
    assert min(part.n_rows for part in data.parts) == 0
    expected = fitted_bits(on(ENGINES[0], estimator).fit(data))
    for engine in ENGINES[1:]:
        assert fitted_bits(on(engine, estimator).fit(data)) == expected, engine


@pytest.mark.parametrize(
    "estimator", [learn.KMeans(n_clusters=6, random_state=4), learn.LogisticRegression()], ids=repr
)
def test_one_two_three_and_five_workers_on_every_engine(estimator):
    data = dataset(NUMBERS)
    engines = [make(n) for make in (lambda n: Inline(n, workers=n), Threads, Processes) for n in (1, 2, 3, 5)]
    fitted = [fitted_bits(on(engine, estimator).fit(data)) for engine in engines]
    assert [engine for engine, bits in zip(engines, fitted, strict=True) if bits != fitted[0]] == []


def test_the_law_of_bits_rejects_another_order_of_summation():
    """Planted: the same rows in other parts are summed in another order, and the bits tell."""
    table, sizes = flights()
    one, other = (
        learn.LogisticRegression().fit(
            from_arrow(table.select([*NUMBERS, "label"]), target="label", part_rows=rows)
        )
        for rows in (sizes, sizes[::-1])
    )
    np.testing.assert_allclose(one.coef_, other.coef_, rtol=1e-9)
    assert fitted_bits(one) != fitted_bits(other)


def feed(table):
    """Columns as the exported model takes them: a null number is NaN, a null string is empty."""
    inputs = {}
    for name in table.column_names:
        if table[name].type == pa.string():
            inputs[name] = np.array([value or "" for value in table[name].to_pylist()], dtype=object)
        else:
            inputs[name] = table[name].to_numpy()
    return inputs


def answers(model, inputs):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def assert_same_answers(got, expected):
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name].shape == value.shape
        assert got[name].dtype == value.dtype
        if value.dtype.kind == "f":
            np.testing.assert_allclose(got[name], value, rtol=1e-6, atol=1e-300, err_msg=name)
        else:
            np.testing.assert_array_equal(got[name], value, err_msg=name)


@every_estimator
def test_onnx_gives_the_estimators_own_answers(estimator, features):
    fitted = clone(estimator).fit(dataset(features))
    rows = flights()[0].select(features)
    model = learn.to_onnx(fitted, rows.schema)
    expected = learn.outputs(fitted, rows)
    assert_same_answers(answers(model, feed(rows)), expected)
    for table in (rows.slice(7, 1), rows.slice(0, 0)):  # one row, and none
        assert_same_answers(answers(model, feed(table)), learn.outputs(fitted, table))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("kind", learn.estimators(), ids=lambda kind: kind.__name__)
def test_fitted_on_an_array_the_model_takes_x(kind, dtype):
    if kind is learn.ColumnTransformer:
        pytest.skip("takes columns by name, never an array")
    rng = np.random.default_rng(5)
    X = rng.standard_normal((300, 4)).astype(dtype)
    X = np.round(X).astype(int) if kind is learn.OneHotEncoder else X
    fitted = clone(CASES[kind][0][0]).fit(X, rng.integers(0, 2, 300))
    assert_same_answers(answers(learn.to_onnx(fitted), {"X": X}), learn.outputs(fitted, X))


@every_estimator
def test_a_dataset_a_table_and_a_batch_get_one_answer(estimator, features):
    fitted = clone(estimator).fit(dataset(features))
    rows = flights()[0].select(features[::-1])  # another order of columns does no harm
    expected = learn.outputs(fitted, dataset(features))
    for other in (rows, rows.combine_chunks().to_batches()[0]):
        assert_same_answers(learn.outputs(fitted, other), expected)


@every_estimator
def test_the_law_of_answers_rejects_another_model(estimator, features):
    """Planted: one constant of the graph is off, and the comparison says so."""
    fitted = clone(estimator).fit(dataset(features))
    rows = flights()[0].select(features)
    model = learn.to_onnx(fitted, rows.schema)
    spoil(model.graph)
    expected = learn.outputs(fitted, rows)
    with pytest.raises(AssertionError):
        assert_same_answers(answers(model, feed(rows)), expected)


def spoil(graph):
    """Flips what the graph computes with: its numbers, its strings, or the categories of its encoders."""
    for tensor in graph.initializer:
        if tensor.data_type in (TensorProto.DOUBLE, TensorProto.FLOAT):
            values = onnx.numpy_helper.to_array(tensor)
            tensor.raw_data = (values.ravel()[::-1] * 1.01 + 0.5).astype(values.dtype).tobytes()
        elif tensor.string_data:
            tensor.string_data[:] = [value + b"!" for value in tensor.string_data]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name.startswith("cats_"):
                attribute.strings[:] = attribute.strings[::-1]
                attribute.ints[:] = attribute.ints[::-1]
