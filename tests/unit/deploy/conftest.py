import numpy as np
import pyarrow as pa
import pytest

import millstream as ms
from millstream import learn


def rides(n, seed=0):
    """n rides in New York: a text, a number with nulls, an integer; `long` is what the model tells."""
    rng = np.random.default_rng(seed)
    fare = rng.gamma(3, 5, n)
    return pa.table(
        {
            "id": np.arange(n),
            "borough": pa.array(rng.choice(["Bronx", "Queens", "Manhattan"], n).tolist()),
            "fare": pa.array(fare, mask=rng.random(n) < 0.1),
            "hour": pa.array(rng.integers(0, 24, n), pa.int16()),
            "long": pa.array((fare + rng.normal(0, 4, n) > 15).astype(int)),
        }
    )


FEATURES = ["borough", "fare", "hour"]


@pytest.fixture(scope="session")
def estimator():
    numbers = learn.Pipeline([("impute", learn.SimpleImputer()), ("scale", learn.StandardScaler())])
    features = learn.ColumnTransformer(
        [
            ("numbers", numbers, ["fare", "hour"]),
            ("borough", learn.OneHotEncoder(handle_unknown="ignore"), ["borough"]),
        ]
    )
    pipeline = learn.Pipeline([("features", features), ("model", learn.LogisticRegression())])
    table = rides(2_000)
    return pipeline.fit(table.select(FEATURES), table["long"].to_numpy())


@pytest.fixture(scope="session")
def registry(tmp_path_factory, estimator):
    registry = ms.Registry(tmp_path_factory.mktemp("models"))
    registry.register("long", estimator, data=rides(2_000).select(FEATURES))
    return registry


@pytest.fixture(scope="session")
def version(registry):
    return registry.get("long", 1)


@pytest.fixture(scope="session")
def table():
    """1000 rides the model has not seen, without what it tells."""
    return rides(1_000, seed=1).drop_columns(["long"])


@pytest.fixture(scope="session")
def expected(version, table):
    from millstream.models import flat

    return pa.Table.from_batches([flat(version.scorer().predict(table))])
