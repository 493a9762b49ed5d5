"""Every metric gives scikit-learn's figure, however the rows are split into parts and merged."""

import itertools

import numpy as np
import pytest
from sklearn import metrics as oracle

from millstream.errors import InputError
from millstream.learn import metrics

ROWS = 999


def sample(seed):
    rng = np.random.default_rng(seed)
    y = (rng.random(ROWS) < 0.3).astype(int)
    score = np.round(np.clip(0.4 * y + rng.random(ROWS) * 0.6, 0.01, 0.99), 2)  # ties on purpose
    return y, score, rng.integers(1, 5, ROWS).astype(float), rng


def by_parts(make, y, prediction, weight, rng):
    """Random cuts, one part empty, merged in a random tree."""
    cuts = np.sort(rng.integers(0, ROWS, 6))
    cuts = np.concatenate([[0], cuts, cuts[-1:], [ROWS]])
    parts = [make().update(y[a:b], prediction[a:b], weight[a:b]) for a, b in itertools.pairwise(cuts)]
    while len(parts) > 1:
        taken = parts.pop(rng.integers(len(parts)))
        parts[rng.integers(len(parts))].merge(taken)
    return parts[0].result


CASES = {
    "accuracy": (metrics.Accuracy, "label", oracle.accuracy_score),
    "precision": (metrics.Precision, "label", oracle.precision_score),
    "recall": (metrics.Recall, "label", oracle.recall_score),
    "roc_auc": (metrics.RocAuc, "score", oracle.roc_auc_score),
    "log_loss": (metrics.LogLoss, "score", oracle.log_loss),
}


def test_every_metric_is_tested():
    exported = {getattr(metrics, name) for name in metrics.__all__} - {metrics.Metric}
    assert exported == {case[0] for case in CASES.values()}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(5))
def test_any_split_gives_the_figure_of_the_whole(name, seed):
    make, kind, reference = CASES[name]
    y, score, weight, rng = sample(seed)
    prediction = (score > 0.5).astype(int) if kind == "label" else score
    expected = reference(y, prediction, sample_weight=weight)
    assert by_parts(make, y, prediction, weight, rng) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("make", [case[0] for case in CASES.values()])
def test_no_rows_have_no_figure(make):
    assert isinstance(make(), metrics.Metric)
    assert np.isnan(make().result)


def test_string_labels_and_three_classes():
    y, said = ["a", "b", "c", "a"], ["a", "b", "a", "c"]
    assert metrics.Accuracy().update(y, said).result == 0.5
    assert metrics.Recall(positive="a").update(y, said).result == 0.5
    P = np.full((4, 3), 1 / 3)
    assert metrics.LogLoss(classes=["a", "b", "c"]).update(y, P).result == pytest.approx(np.log(3))


def test_the_curve_is_scikit_learns():
    y, score, _, _ = sample(7)
    false, true = metrics.RocAuc().update(y, score).curve()
    expected_false, expected_true, _ = oracle.roc_curve(y, score, drop_intermediate=False)
    np.testing.assert_allclose(false, expected_false)
    np.testing.assert_allclose(true, expected_true)


@pytest.mark.parametrize(
    ("update", "message"),
    [
        (lambda: metrics.Accuracy().update([1, 0], [1]), "2 labels, 1 predictions"),
        (lambda: metrics.RocAuc().update([1, 0], [0.5, np.nan]), "row 1 is NaN"),
        (lambda: metrics.LogLoss().update([2], [[0.5, 0.5]]), "label .*2.* is none of the classes"),
        (lambda: metrics.LogLoss().update([1], [[0.1, 0.5, 0.4]]), "3 columns of probabilities came for 2"),
    ],
)
def test_bad_rows_are_named(update, message):
    with pytest.raises(InputError, match=message):
        update()
