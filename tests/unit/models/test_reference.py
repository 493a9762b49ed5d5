import numpy as np
import pyarrow as pa

from millstream.models.reference import SAMPLE_ROWS, training_distribution


def batches(table, rows):
    return table.to_batches(max_chunksize=rows)


def test_moments_equal_numpy_however_the_rows_are_cut():
    values = np.random.default_rng(5).normal(1e6, 3, 10_000)
    table = pa.table({"x": values, "n": pa.array([None if i % 10 == 0 else i for i in range(10_000)])})
    for rows in (10_000, 7, 999):
        found = training_distribution(batches(table, rows))
        np.testing.assert_allclose(
            [found["x"]["mean"], found["x"]["std"]], [values.mean(), values.std()], rtol=1e-9
        )
        assert (found["x"]["min"], found["x"]["max"]) == (values.min(), values.max())
        assert (found["n"]["count"], found["n"]["nulls"]) == (9_000, 1_000)
        np.testing.assert_allclose(found["x"]["quantiles"]["0.5"], np.median(values))


def test_quantiles_come_from_the_same_rows_however_cut():
    table = pa.table({"x": np.random.default_rng(5).normal(size=3 * SAMPLE_ROWS)})
    one, other = (training_distribution(batches(table, rows))["x"]["quantiles"] for rows in (70_000, 4_099))
    assert one == other
    assert abs(one["0.5"]) < 0.02


def test_categories_are_counted():
    column = pa.array(["a", "b", None, "a"]).dictionary_encode()
    found = training_distribution([pa.record_batch({"c": column})] * 2)
    assert found["c"]["categories"] == {"a": 4, "b": 2}
    assert (found["c"]["count"], found["c"]["nulls"]) == (6, 2)


def test_a_matrix_counts_as_its_columns():
    matrix = pa.FixedSizeListArray.from_arrays(pa.array([1.0, 2.0, 3.0, 4.0]), 2)
    found = training_distribution([pa.record_batch({"X": matrix})])
    assert (found["X_0"]["mean"], found["X_1"]["mean"]) == (2.0, 3.0)
