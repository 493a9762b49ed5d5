"""QR: the triangular factor of all rows together, by TSQR.

The R factors of two runs of rows are stacked and factored again (Demmel, Grigori, Hoemmen, Langou,
*Communication-optimal parallel and sequential QR and LU factorizations*, SIAM J. Sci. Comput. 2012, section 2). It is
backward stable, where forming ``X.T @ X`` squares the condition number. Rows of R are given the sign that makes the
diagonal non-negative, so R is unique where X has full column rank.

Associative up to rounding: each R is the exact factor of rows moved by at most ``c * eps * norm(X)`` with a small
constant c for each level of the tree.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.errors import TrainingError
from millstream.parallel.operation import Op

__all__ = ["QR", "r_factor"]

Array = np.ndarray[Any, Any]


def r_factor(X: Array) -> Array:
    """R of ``(rows, features)``: ``(min(rows, features), features)`` float64, upper triangular, diagonal >= 0.

    >>> R = QR(r_factor(np.array([[3.0, 1.0]])), r_factor(np.array([[4.0, 7.0]])))
    >>> R.round(12).tolist()
    [[5.0, 6.2], [0.0, 3.4]]
    """
    R: Array = np.asarray(np.linalg.qr(X.astype("f8", copy=False), mode="r"))
    signs: Array = np.where(np.diagonal(R) < 0, -1.0, 1.0)
    return signs[:, None] * R


def _stacked(left: Array, right: Array) -> Array:
    if left.ndim != 2 or left.shape[1:] != right.shape[1:]:
        raise TrainingError(
            f"parts returned factors of shapes {left.shape} and {right.shape} to QR; return r_factor of rows of one "
            "width, also of none: r_factor(np.empty((0, features)))"
        )
    return r_factor(np.vstack([left, right]))


QR = Op("QR", _stacked)
