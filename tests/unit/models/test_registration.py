"""Which columns a registered model declares, by the columns it was trained on."""

import numpy as np
import pyarrow as pa
import pytest

from millstream import learn
from millstream.models import compare
from millstream.models.outputs import to_batch

ROWS = 200
NUMBERS = learn.Pipeline([("impute", learn.SimpleImputer()), ("scale", learn.StandardScaler())])


def trained(table):
    """A model over the columns of a table: numbers imputed and scaled, `seats` and text one-hot."""
    texts = [field.name for field in table.schema if field.name in ("zone", "seats")]
    numbers = [field.name for field in table.schema if field.name not in texts]
    made = [("numbers", NUMBERS, numbers), ("texts", learn.OneHotEncoder(handle_unknown="ignore"), texts)]
    columns = learn.ColumnTransformer([step for step in made if step[2]])
    y = np.where(np.arange(len(table)) % 3 == 0, "big", "small")
    return learn.Pipeline([("columns", columns), ("model", learn.LogisticRegression())]).fit(table, y)


@pytest.fixture
def counts():
    rng = np.random.default_rng(4)
    missing = rng.random(ROWS) < 0.1
    return pa.table(
        {
            "pax": pa.array(rng.integers(1, 300, ROWS), mask=missing),
            "rows": rng.integers(1, 60, ROWS),
            "seats": rng.integers(1, 4, ROWS),
            "night": rng.random(ROWS) < 0.3,
            "rain": pa.array(rng.random(ROWS) < 0.3, mask=missing),
        }
    )


def test_integers_and_booleans_with_nulls_are_declared_as_double(registry, counts):
    version = registry.register("pax", trained(counts), data=counts)
    declared = {i.name: i.dtype for i in version.signature.inputs}
    assert declared == {
        "pax": "double",
        "rows": "int64",
        "seats": "int64",
        "night": "int64",
        "rain": "double",
    }
    answered = version.scorer().predict(counts)
    assert compare(to_batch(learn.outputs(trained(counts), counts)), answered).holds
