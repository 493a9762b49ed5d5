"""Logistic regression through the door: every kind of rows, and rows it can't take."""

import warnings

import numpy as np
import pyarrow as pa
import pytest
from sklearn.exceptions import ConvergenceWarning

from millstream.data import from_arrow, from_numpy
from millstream.errors import InputError, SchemaError, SignatureError
from millstream.learn import LogisticRegression
from millstream.learn.logistic_loss import LogisticLoss
from millstream.parallel import Inline


def rows(n=400, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 2))
    late = X @ [2.0, -1.0] + rng.standard_normal(n) > 0
    return X, np.where(late, "late", "on time")


def table(n=400):
    X, y = rows(n)
    return pa.table({"hour": X[:, 0], "wind": X[:, 1], "late": y})


def test_arrays_tables_and_datasets_have_one_model():
    X, y = rows()
    arrays = LogisticRegression().fit(X, y)
    dataset = LogisticRegression().fit(from_arrow(table(), target="late"))
    beside = LogisticRegression().fit(table().select(["hour", "wind"]), y)
    for model in (dataset, beside):
        assert model.coef_.tobytes() == arrays.coef_.tobytes()
        assert model.classes_.tolist() == ["late", "on time"]
        assert model.feature_names_in_.tolist() == ["hour", "wind"]
    assert arrays.predict(X).tolist() == dataset.predict(table()).tolist()
    assert arrays.fit_report_.workers >= 1


def test_a_weight_column_counts_rows_as_often_as_it_says():
    X, y = rows(100)
    twice = np.where(np.arange(100) < 50, 2.0, 1.0)
    weighted = LogisticRegression().fit(from_numpy(X, y, weight=twice))
    repeated = LogisticRegression().fit(np.concatenate([X, X[:50]]), np.concatenate([y, y[:50]]))
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-9)


def test_the_gradient_and_hessian_are_those_of_the_loss():
    """Against central differences, for two classes and for four."""
    rng = np.random.default_rng(1)
    for n_classes in (2, 4):
        loss = LogisticLoss(n_classes, 3)
        X, y, weight = rng.standard_normal((50, 3)), rng.integers(0, n_classes, 50), rng.random(50)
        point = rng.standard_normal((loss.n_outputs, 4))
        found = loss.evaluate(X, y, weight, point)
        for i in range(loss.n_parameters):
            step = np.zeros(loss.n_parameters)
            step[i] = 1e-5
            up, down = (
                loss.evaluate(X, y, weight, point + sign * step.reshape(point.shape), hessian=False)
                for sign in (1, -1)
            )
            assert (up["loss"] - down["loss"]) / 2e-5 == pytest.approx(found["gradient"].ravel()[i], abs=1e-6)
            slope = (up["gradient"] - down["gradient"]).ravel() / 2e-5
            np.testing.assert_allclose(found["hessian"][i], slope, atol=1e-6)


def test_a_full_step_that_overshoots_is_shortened():
    """Features over many decades with far outliers, under a weak penalty."""
    rng = np.random.default_rng(94)
    X, y = rng.standard_cauchy((60, 3)) ** 3, (rng.random(60) < 0.5).astype(int)
    model = LogisticRegression(C=1e6, engine=Inline()).fit(X, y)
    searches = [step for step in model.fit_report_.steps if "loss" not in step.measures]
    losses = [step.measures["loss"] for step in model.fit_report_.steps if "loss" in step.measures]
    assert model.n_iter_[0] < 100
    assert losses[-1] == min(losses)
    assert searches, "no step was shortened: the example no longer tests the line search"


def test_separable_rows_without_a_penalty_end():
    X, y = np.array([[-2.0], [-1.0], [1.0], [2.0]]), [0, 0, 1, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=np.inf).fit(X, y)
    assert model.predict(X).tolist() == y
    assert np.isfinite(model.coef_).all()


def test_collinear_and_constant_features_have_a_solution():
    X, y = rows()
    wide = np.column_stack([X, X[:, 0], np.ones(len(X)), np.zeros(len(X))])
    model = LogisticRegression(C=np.inf).fit(wide, y)
    np.testing.assert_allclose(
        model.decision_function(wide),
        LogisticRegression(C=np.inf).fit(X, y).decision_function(X),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize(("dtype", "scale"), [("f4", 1e25), ("f8", 1e180)])
def test_features_whose_squares_overflow_are_refused(dtype, scale):
    X, y = rows()
    with np.errstate(all="ignore"), pytest.raises(InputError, match="squares overflow: scale them"):
        LogisticRegression().fit((X * scale).astype(dtype), y)


def test_too_few_steps_warn_with_advice():
    X, y = rows()
    with pytest.warns(ConvergenceWarning, match=r"stopped after 1 Newton steps .* raise max_iter"):
        LogisticRegression(max_iter=1).fit(X, y)


def test_labels_keep_their_type():
    X, y = rows()
    for labels in (
        y == "late",
        (y == "late").astype(np.int8),
        np.where(y == "late", 2.0, -1.0),
        y.astype(object),
    ):
        model = LogisticRegression().fit(X, labels)
        assert model.predict(X).dtype == labels.dtype
        assert model.predict(from_numpy(X)).tolist() == model.predict(X).tolist()
        assert model.predict(from_numpy(X[:0])).tolist() == []


def with_value(value, name="wind", row=7):
    values = table()[name].to_numpy().copy()
    values[row] = value
    at = table().schema.get_field_index(name)
    return table().set_column(at, name, pa.array(values))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_is_named(value):
    bad = from_arrow(with_value(value), target="late", part_rows=3)
    with pytest.raises(InputError, match=f"column 'wind' holds {value} in row 7; .*SimpleImputer"):
        LogisticRegression().fit(bad)
    model = LogisticRegression().fit(table().select(["hour", "wind"]), rows()[1])
    with pytest.raises(InputError, match="column 'wind' holds"):
        model.predict(with_value(value))


def one_class():
    return from_arrow(table().append_column("one", pa.array([1] * 400)), features=["hour"], target="one")


BAD_FITS = {
    "no target": (
        lambda: from_arrow(table().select(["hour"])),
        InputError,
        r"no column of \['hour'\] is the target",
    ),
    "one class": (one_class, InputError, "one class, 1; expected at least two"),
    "strings": (
        lambda: from_arrow(table().append_column("at", table()["late"]), target="late"),
        SchemaError,
        "'at': 'string'.*OneHotEncoder",
    ),
    "no features": (lambda: from_arrow(table(), features=[], target="late"), InputError, "is a feature"),
    "real target": (
        lambda: from_arrow(table().select(["hour", "wind"]), target="wind"),
        InputError,
        "learns classes",
    ),
    "no rows": (lambda: from_arrow(table().slice(0, 0), target="late"), InputError, "no rows"),
    "null target": (
        lambda: from_arrow(pa.table({"x": [1.0, 2.0, 3.0], "y": ["a", None, "b"]}), target="y"),
        InputError,
        "target 'y' has 1 nulls",
    ),
    "zero weights": (
        lambda: from_numpy([[0.0], [1.0]], [0, 1], weight=[0.0, 0.0]),
        InputError,
        "weights of the rows sum to 0",
    ),
}


@pytest.mark.parametrize("name", BAD_FITS)
def test_rows_it_cannot_learn_from_are_named(name):
    make, kind, message = BAD_FITS[name]
    with pytest.raises(kind, match=message):
        LogisticRegression().fit(make())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"C": 0}, r"C=0\): expected a positive number"),
        ({"C": "1"}, "C='1'"),
        ({"tol": -1.0}, "tol=-1.0"),
        ({"max_iter": 2.5}, r"max_iter=2.5\): expected a positive integer"),
        ({"engine": "threads"}, "engine='threads'"),
    ],
)
def test_parameters_it_cannot_use_are_named(parameters, message):
    with pytest.raises(InputError, match=message):
        LogisticRegression(**parameters).fit(*rows())


def test_too_many_coefficients_are_refused():
    with pytest.raises(InputError, match="5001 coefficients; Newton's method is limited to 4000"):
        LogisticRegression().fit(np.eye(3, 5000), [0, 1, 0])


def test_y_beside_a_dataset_is_refused():
    with pytest.raises(InputError, match="came beside a Dataset"):
        LogisticRegression().fit(from_numpy(*rows()), rows()[1])


def test_other_columns_than_fitted_on_are_named():
    model = LogisticRegression().fit(from_arrow(table(), target="late"))
    with pytest.raises(SignatureError, match=r"expects column 'wind' .* 1 features came: hour"):
        model.predict(table().select(["hour"]))
    with pytest.raises(SignatureError, match="column 'hour' as double, and string came"):
        model.predict(table().set_column(0, "hour", table()["late"]))
    with pytest.raises(SignatureError, match="expects 3 features; 2 features came"):
        LogisticRegression().fit(np.eye(3), [0, 1, 0]).predict(from_numpy(np.eye(2)))
    with pytest.raises(ValueError, match="X has 3 features"):
        model.predict(np.eye(3))
