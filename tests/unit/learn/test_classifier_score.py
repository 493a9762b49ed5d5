"""How right a classifier is on a dataset, by itself and at the end of a pipeline."""

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import accuracy_score

import millstream as ms
from millstream import learn
from millstream.errors import InputError


@pytest.fixture
def rides():
    rng = np.random.default_rng(8)
    zone = rng.choice(["north", "south"], 300)
    fare = rng.normal(0, 1, 300)
    late = np.where(fare + (zone == "north") + rng.normal(0, 1, 300) > 0.5, "late", "early")
    return pa.table({"zone": zone, "fare": fare, "late": late, "weight": rng.random(300)})


def fitted(dataset):
    texts = ("texts", learn.OneHotEncoder(), ["zone"])
    columns = learn.ColumnTransformer([texts, ("numbers", learn.StandardScaler(), ["fare"])])
    return learn.Pipeline([("columns", columns), ("model", learn.LogisticRegression())]).fit(dataset)


@pytest.mark.parametrize("weight", [None, "weight"])
def test_a_pipeline_scores_a_dataset_against_its_own_target(rides, weight):
    dataset = ms.from_arrow(
        rides, target="late", weight=weight, features=["zone", "fare"], part_rows=[100, 0, 200]
    )
    model = fitted(dataset)
    weights = None if weight is None else rides["weight"].to_numpy()
    expected = accuracy_score(rides["late"].to_numpy(), model.predict(dataset), sample_weight=weights)
    assert 0.6 < expected < 1
    assert model.score(dataset) == pytest.approx(expected, rel=1e-12)


def test_what_has_no_target_is_named(rides):
    dataset = ms.from_arrow(rides, target="late", features=["zone", "fare"])
    model = fitted(dataset)
    nowhere = ms.from_arrow(rides.drop_columns(["late"]), features=["zone", "fare"])
    with pytest.raises(InputError, match=r"no column of .*'X'.* is the target"):
        model.score(nowhere)
    gaps = rides.set_column(2, "late", pa.array([None, *rides["late"].to_pylist()[1:]]))
    with pytest.raises(InputError, match="target 'late' has 1 nulls"):
        model.score(ms.from_arrow(gaps, target="late", features=["zone", "fare"]))
    with pytest.raises(InputError, match="beside a Dataset"):
        model.score(dataset, rides["late"].to_numpy())
    with pytest.raises(InputError, match="y is None beside X, a ndarray"):
        learn.LogisticRegression().fit([[0.0], [1.0]], [0, 1]).score(np.ones((2, 1)))
