"""Loss, gradient and Hessian of the logistic model over a run of rows.

Everything a Newton step needs is a sum over rows, so a block of rows gives its share and the part tree adds the
shares up. Two classes need one row of coefficients, ``K > 2`` classes need K (the symmetric softmax form). With
``x~ = (x, 1)`` and weights ``w``::

    two classes   p = sigmoid(x~ b)    gradient = X~' (w (p - y))    Hessian = X~' diag(w p (1 - p)) X~
    K classes     P = softmax(X~ B')   gradient = (w (P - Y))' X~    Hessian = blockdiag_k(X~' diag(w p_k) X~) - V'V
                                                                     V = sqrt(w) P (row-wise Kronecker) X~

Both Hessians are written with products ``A.T @ A`` of one array, which NumPy hands to BLAS as a symmetric rank-k
update: half the arithmetic of a general product. Rows go through in runs whose scaled copy stays in the second-level
cache. Sums are float64; for float32 rows only the Hessian's product runs in float32, because it merely shapes the
direction of a step, while loss and gradient decide where the optimum is.

Source: Hastie, Tibshirani, Friedman, *The Elements of Statistical Learning*, 2nd edition, section 4.4.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logsumexp

__all__ = ["LogisticLoss", "scores", "sigmoid_pair", "softmax"]

Array = NDArray[np.floating]
Statistic = dict[str, NDArray[np.floating]]

_SCALED_BYTES = 1_500_000  # the scaled copy of a run of rows: below a second-level cache of 2 MB


def scores(X: Array, coefficients: Array) -> Array:
    """Linear scores of rows.

    X: ``(rows, features)``; coefficients: ``(outputs, features + 1)``, the intercept last. Returns ``(rows, outputs)``
    in the wider of the two dtypes.
    """
    result: Array = X @ coefficients[:, :-1].T + coefficients[:, -1]
    return result


def sigmoid_pair(score: Array) -> Array:
    """``(rows,)`` scores to ``(rows, 2)`` probabilities; each for itself, since ``1 - p`` would lose a small one."""
    with np.errstate(over="ignore"):  # the inverse of infinity is the 0 that is meant
        result: Array = 1.0 / (1.0 + np.exp(np.stack([score, -score], axis=1)))
    return result


def softmax(score: Array) -> Array:
    """``(rows, K)`` scores to ``(rows, K)`` probabilities that sum to one."""
    shifted = np.exp(score - score.max(axis=1, keepdims=True))
    result: Array = shifted / shifted.sum(axis=1, keepdims=True)
    return result


@dataclass(frozen=True)
class LogisticLoss:
    """The weighted negative log-likelihood of ``n_classes`` classes over ``n_features`` features.

    Example:
        >>> loss = LogisticLoss(n_classes=2, n_features=1)
        >>> X, y, weight = np.array([[-1.0], [1.0]]), np.array([0, 1]), np.ones(2)
        >>> statistic = loss.evaluate(X, y, weight, np.zeros((1, 2)))
        >>> statistic["loss"].round(4), statistic["gradient"]
        (np.float64(1.3863), array([[-1.,  0.]]))
    """

    n_classes: int
    n_features: int

    @property
    def n_outputs(self) -> int:
        """Rows of the coefficients: one for two classes, else one a class."""
        return 1 if self.n_classes == 2 else self.n_classes

    @property
    def n_parameters(self) -> int:
        """Coefficients and intercepts together."""
        return self.n_outputs * (self.n_features + 1)

    def zero(self, hessian: bool) -> Statistic:
        """The statistic of no rows, float64: loss ``()``, weight ``()``, gradient ``(outputs, features + 1)``, and the
        Hessian ``(parameters, parameters)`` if asked for."""
        statistic: Statistic = {
            "loss": np.zeros(()),
            "weight": np.zeros(()),
            "gradient": np.zeros((self.n_outputs, self.n_features + 1)),
        }
        if hessian:
            statistic["hessian"] = np.zeros((self.n_parameters, self.n_parameters))
        return statistic

    def evaluate(
        self,
        X: Array,
        y: NDArray[np.intp],
        weight: Array,
        coefficients: Array,
        hessian: bool = True,
    ) -> Statistic:
        """The share of these rows.

        X: ``(rows, features)`` float32 or float64; y: ``(rows,)`` class numbers; weight: ``(rows,)``; coefficients:
        ``(outputs, features + 1)`` float64.
        """
        total = self.zero(hessian)
        run = max(256, _SCALED_BYTES // (X.itemsize * self.n_parameters))
        for start in range(0, len(X), run):
            rows = slice(start, start + run)
            self._add(total, X[rows], y[rows], weight[rows].astype(np.float64), coefficients)
        return total

    def along(
        self,
        X: Array,
        y: NDArray[np.intp],
        weight: Array,
        coefficients: Array,
        direction: Array,
        steps: Array,
    ) -> Array:
        """The loss at ``coefficients + step * direction`` for each step, ``(len(steps),)``, in one read of the rows."""
        X = X.astype(np.float64, copy=False)
        base, slope = scores(X, coefficients), scores(X, direction)
        return np.array([float(weight @ self._losses(base + step * slope, y)) for step in steps])

    def _losses(self, score: Array, y: NDArray[np.intp]) -> Array:
        if self.n_classes == 2:
            z = score[:, 0]
            return np.asarray(np.logaddexp(0.0, z) - y * z)
        return np.asarray(logsumexp(score, axis=1) - score[np.arange(len(y)), y])

    def _add(
        self, total: Statistic, X: Array, y: NDArray[np.intp], weight: Array, coefficients: Array
    ) -> None:
        exact = X.astype(np.float64, copy=False)
        score = scores(exact, coefficients)
        total["loss"] += weight @ self._losses(score, y)
        total["weight"] += weight.sum()
        if self.n_classes == 2:
            probability = expit(score)
            residual = weight[:, None] * (probability - y[:, None])
        else:
            probability = softmax(score)
            residual = probability.copy()
            residual[np.arange(len(y)), y] -= 1.0
            residual *= weight[:, None]
        total["gradient"][:, :-1] += residual.T @ exact
        total["gradient"][:, -1] += residual.sum(axis=0)
        if "hessian" not in total:
            return
        if self.n_classes == 2:
            spread = weight * probability[:, 0] * expit(-score[:, 0])
            total["hessian"] += _gram(X, np.sqrt(spread)[:, None])
        else:
            self._add_softmax_hessian(total["hessian"], X, weight, probability)

    def _add_softmax_hessian(self, hessian: Array, X: Array, weight: Array, probability: Array) -> None:
        width = self.n_features + 1
        root = np.sqrt(weight)[:, None]
        hessian -= _gram(X, root * probability)
        for k in range(self.n_classes):
            block = slice(k * width, (k + 1) * width)
            hessian[block, block] += _gram(X, root * np.sqrt(probability[:, k : k + 1]))


def _gram(X: Array, scale: Array) -> Array:
    """``Z.T @ Z`` where row i of Z is ``scale[i] (Kronecker) (x_i, 1)``; scale: ``(rows, m)``."""
    rows, features = X.shape
    Z = np.empty((rows, scale.shape[1], features + 1), dtype=X.dtype)
    scale = scale.astype(X.dtype, copy=False)
    np.multiply(X[:, None, :], scale[:, :, None], out=Z[:, :, :features])
    Z[:, :, features] = scale
    flat = Z.reshape(rows, -1)  # (rows, m * (features + 1))
    result: Array = flat.T @ flat
    return result
