"""Every estimator, discovered, against scikit-learn's own conformance suite."""

import pytest
from sklearn.utils.estimator_checks import check_estimators_overwrite_params, parametrize_with_checks

from millstream import learn

# What is expected to fail, and why. None of it is passed by scikit-learn's own estimator of that name.
EXPECTED_FAILURES: dict[str, dict[str, str]] = {
    "KMeans": {
        "check_sample_weight_equivalence_on_dense_data": "seeds are drawn from rows, whatever they weigh",
    },
}

NEEDS_COLUMNS = (
    learn.ColumnTransformer,
)  # takes columns by name, as scikit-learn's, which the suite leaves out too


@parametrize_with_checks(
    [kind() for kind in learn.estimators() if kind not in NEEDS_COLUMNS],
    expected_failed_checks=lambda estimator: EXPECTED_FAILURES.get(type(estimator).__name__, {}),
)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_contract(estimator, check):
    check(estimator)


def test_the_contract_rejects_an_estimator_that_changes_its_parameters():
    """Planted: ``fit`` writes to a constructor parameter."""

    class Forgetful(learn.StandardScaler):
        def fit(self, X, y=None, sample_weight=None):
            super().fit(X, y, sample_weight)
            self.with_mean = False
            return self

    with pytest.raises(AssertionError, match="should not change or mutate"):
        check_estimators_overwrite_params("Forgetful", Forgetful())
