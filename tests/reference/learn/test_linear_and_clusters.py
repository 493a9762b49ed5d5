"""Fitted attributes against scikit-learn's, from the same data and the same start."""

import numpy as np
import pytest
from sklearn import cluster, impute, linear_model, preprocessing

from millstream import learn
from millstream.data import from_numpy

ROWS, FEATURES = 3_000, 12
LABELS = {
    2: np.array(["on time", "late"]),
    4: np.array([3, 1, 4, 15]),
}


def sample(n_classes, seed=0):
    rng = np.random.default_rng(seed)
    X = (rng.standard_normal((ROWS, FEATURES)) + rng.standard_normal(FEATURES)) * np.logspace(-2, 2, FEATURES)
    B = rng.standard_normal((FEATURES, n_classes)) / np.logspace(-2, 2, FEATURES)[:, None]
    y = LABELS[n_classes][(X @ B + 2 * rng.gumbel(size=(ROWS, n_classes))).argmax(axis=1)]
    return X, y, rng.random(ROWS)


@pytest.mark.parametrize("n_classes", LABELS)
@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_logistic_regression_has_scikit_learns_coefficients(n_classes, C, fit_intercept, weighted):
    X, y, weight = sample(n_classes)
    weight = weight if weighted else None
    oracle = linear_model.LogisticRegression(
        C=C, fit_intercept=fit_intercept, solver="newton-cholesky", tol=1e-14, max_iter=200
    ).fit(X, y, weight)
    model = learn.LogisticRegression(C=C, fit_intercept=fit_intercept).fit(X, y, weight)
    assert model.classes_.tolist() == oracle.classes_.tolist()
    np.testing.assert_allclose(model.coef_, oracle.coef_, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(model.intercept_, oracle.intercept_, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(X), oracle.predict_proba(X), atol=1e-7)
    np.testing.assert_array_equal(model.predict(X), oracle.predict(X))
    assert model.n_iter_[0] <= 10


def test_float32_rows_reach_the_float64_optimum():
    X, y, _ = sample(2)
    narrow = X.astype("f4")
    exact = learn.LogisticRegression().fit(narrow.astype("f8"), y)
    model = learn.LogisticRegression().fit(narrow, y)
    assert model.coef_.dtype == np.float32
    np.testing.assert_allclose(model.coef_, exact.coef_, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("weighted", [True, False])
def test_kmeans_walks_scikit_learns_way(empty, weighted):
    """Far from the origin, too; with starts so bad that clusters stay empty, whose rule is then the same."""
    rng = np.random.default_rng(1)
    X = rng.standard_normal((5_000, 7)) + 1e4
    weight = rng.random(5_000) if weighted else None
    init = X[:40].copy()
    if empty:
        init[-3:] += [[100.0], [200.0], [300.0]]
    oracle = cluster.KMeans(40, init=init, tol=0, n_init=1, algorithm="lloyd").fit(X, sample_weight=weight)
    model = learn.KMeans(40, init=init, tol=0).fit(from_numpy(X, weight=weight, part_rows=617))
    assert model.n_iter_ == oracle.n_iter_
    np.testing.assert_array_equal(model.labels_, oracle.labels_)
    np.testing.assert_allclose(model.cluster_centers_, oracle.cluster_centers_, rtol=1e-12)
    assert model.inertia_ == pytest.approx(oracle.inertia_, rel=1e-9)


def test_kmeans_seeds_are_as_good_as_scikit_learns():
    """Thirty blobs: one run of k-means++ each; the mean minimum over seeds within a tenth of the oracle's."""
    rng = np.random.default_rng(2)
    centers = rng.uniform(-100, 100, (30, 2))
    X = centers[rng.integers(0, 30, 4_000)] + rng.standard_normal((4_000, 2))
    ours = [learn.KMeans(30, random_state=seed).fit(X).inertia_ for seed in range(10)]
    theirs = [cluster.KMeans(30, random_state=seed, n_init=1).fit(X).inertia_ for seed in range(10)]
    assert np.median(ours) <= 1.5 * np.median(theirs)
    assert np.min(ours) <= 1.1 * np.min(theirs)


def test_standard_scaler_has_scikit_learns_moments():
    rng = np.random.default_rng(3)
    X = rng.standard_normal((2_000, 5)) * 10.0 ** np.arange(-4, 5, 2) + 10.0 ** np.arange(8, -1, -2)
    X[:, 1] = 7.25  # constant
    X[rng.random(X.shape) < 0.1] = np.nan
    weight = rng.random(2_000)
    oracle = preprocessing.StandardScaler().fit(X, sample_weight=weight)
    model = learn.StandardScaler().fit(from_numpy(X, weight=weight, part_rows=313))
    np.testing.assert_allclose(model.mean_, oracle.mean_, rtol=1e-12)
    np.testing.assert_allclose(model.scale_, oracle.scale_, rtol=1e-7)
    # Column 0 spreads over 1e-4 around 1e8, where the oracle's mean is 1e-7 off and ours within the last bit.
    np.testing.assert_allclose(model.transform(X)[:, 1:], oracle.transform(X)[:, 1:], rtol=1e-9, atol=1e-9)
    exact = np.nansum(weight * X[:, 0].astype(np.longdouble)) / weight[~np.isnan(X[:, 0])].sum()
    assert abs(model.mean_[0] - exact) <= np.spacing(1e8)


def test_simple_imputer_has_scikit_learns_means():
    rng = np.random.default_rng(4)
    X = np.where(rng.random((500, 4)) < 0.3, np.nan, rng.standard_normal((500, 4)))
    oracle = impute.SimpleImputer().fit(X)
    np.testing.assert_allclose(learn.SimpleImputer().fit(X).transform(X), oracle.transform(X), rtol=1e-12)


@pytest.mark.parametrize(
    "values", [np.array(["LGA", "JFK", "", "Zürich"], dtype=object), np.array([7, -3, 0])]
)
def test_one_hot_encoder_has_scikit_learns_columns(values):
    rng = np.random.default_rng(5)
    X, new = values[rng.integers(0, len(values) - 1, (300, 2))], values[rng.integers(0, len(values), (50, 2))]
    oracle = preprocessing.OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(X)
    model = learn.OneHotEncoder(handle_unknown="ignore").fit(X)
    assert [c.tolist() for c in model.categories_] == [c.tolist() for c in oracle.categories_]
    assert model.get_feature_names_out().tolist() == oracle.get_feature_names_out().tolist()
    np.testing.assert_array_equal(model.transform(new), oracle.transform(new))
