"""k-means through the door."""

import itertools

import numpy as np
import pyarrow as pa
import pytest

from millstream.data import from_arrow, from_numpy
from millstream.errors import InputError, SignatureError
from millstream.learn import KMeans


def blobs(n=300, seed=0):
    rng = np.random.default_rng(seed)
    return np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])[rng.integers(0, 3, n)] + rng.standard_normal(
        (n, 2)
    )


def test_blobs_are_found_again():
    X = blobs()
    model = KMeans(3, random_state=0).fit(X)
    found = model.cluster_centers_[np.lexsort(model.cluster_centers_.round().T)]
    np.testing.assert_allclose(found, [[0, 0], [10, 0], [0, 10]], atol=0.4)
    np.testing.assert_array_equal(model.predict(X), model.labels_)
    distance = ((X - model.cluster_centers_[model.labels_]) ** 2).sum()
    assert model.inertia_ == pytest.approx(distance, rel=1e-9)


def test_a_seed_is_a_result_however_the_rows_lie_in_parts():
    """Seeds are drawn by row number; sums of whole numbers are exact, so even the bits agree."""
    X = blobs().round()
    whole, parts = (KMeans(4, random_state=5).fit(from_numpy(X, part_rows=rows)) for rows in (300, 17))
    np.testing.assert_allclose(whole.cluster_centers_, parts.cluster_centers_, rtol=1e-12)
    np.testing.assert_array_equal(whole.labels_, parts.labels_)


def test_a_tie_goes_to_the_lowest_center():
    model = KMeans(4, init=[[0.0], [2.0], [2.0], [0.0]]).fit([[0.0], [2.0], [0.0], [2.0]])
    assert model.cluster_centers_.tolist() == [[0.0], [2.0], [2.0], [0.0]]
    assert model.predict([[1.0], [2.0], [0.0]]).tolist() == [0, 1, 0]


def test_fewer_distinct_rows_than_clusters_end():
    model = KMeans(3, random_state=0).fit([[1.0], [1.0], [2.0], [2.0]])
    assert model.inertia_ == 0
    assert np.isfinite(model.cluster_centers_).all()


def test_rows_that_weigh_nothing_move_no_center():
    X = np.concatenate([blobs(), [[1e6, 1e6]]])
    weight = np.append(np.ones(300), 0.0)
    init = [[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]
    weighted = KMeans(3, init=init).fit(X, sample_weight=weight)
    np.testing.assert_allclose(weighted.cluster_centers_, KMeans(3, init=init).fit(X[:-1]).cluster_centers_)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (KMeans(0), r"n_clusters=0\): expected a positive integer"),
        (KMeans(400), "n_samples=300 should be >= n_clusters=400"),
        (KMeans(3, init="best"), "init='best'"),
        (
            KMeans(3, init=[[0.0, 0.0]]),
            r"init is of shape \(1, 2\); expected finite centers of shape \(3, 2\)",
        ),
        (KMeans(1, init=[[0.0, np.nan]]), "expected finite centers"),
    ],
)
def test_parameters_it_cannot_use_are_named(model, message):
    with pytest.raises(InputError, match=message):
        model.fit(blobs())


def test_bad_rows_are_named():
    table = pa.table({"lat": [0.0, 1.0, None], "lon": [0.0, 1.0, 2.0]})
    with pytest.raises(InputError, match="column 'lat' holds nan in row 2"):
        KMeans(2).fit(from_arrow(table))
    model = KMeans(2, random_state=0).fit(table.drop_null())
    with pytest.raises(SignatureError, match="expects column 'lon'"):
        model.predict(table.select(["lat"]))


def test_no_iteration_raises_the_inertia():
    model = KMeans(12, random_state=3, tol=0).fit(blobs(2_000))
    inertia = [step.measures["inertia"] for step in model.fit_report_.steps if step.measures]
    assert len(inertia) == model.n_iter_ + 1
    assert all(after <= before * (1 + 1e-12) for before, after in itertools.pairwise(inertia))
    assert inertia[-1] == model.inertia_
