"""Which center is nearest: the product that k-means spends its time in.

``|x - c|^2 = |x|^2 - 2 x c + |c|^2`` cancels far from the origin, so rows and centers are shifted first; ``|x|^2`` does
not change which center wins and is left out: the winner minimises ``|c|^2 / 2 - x c``. Ties go to the lowest index.
Rows go through in runs whose scores stay in the second-level cache. The ONNX form of `KMeans` is this formula.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["nearest_by_run", "run_length"]

Array = NDArray[np.floating]

_SCORES_BYTES = 1_000_000


def run_length(n_clusters: int, n_features: int, itemsize: int) -> int:
    """Rows in a run: scores and shifted rows together take about a megabyte."""
    return max(64, _SCORES_BYTES // (itemsize * (n_clusters + n_features)))


def nearest_by_run(
    X: Array, centers: Array, shift: Array
) -> Iterator[tuple[slice, NDArray[np.intp], Array, Array]]:
    """For each run of rows: where it lies, the nearest centers, the squared distances, the shifted rows.

    X: ``(rows, features)``; centers: ``(clusters, features)``; shift: ``(features,)``, all of one dtype.
    Yields ``slice, (run,) intp, (run,), (run, features)``.
    """
    moved = centers - shift  # (clusters, features)
    half = 0.5 * np.einsum("ij,ij->i", moved, moved)
    run = run_length(len(centers), X.shape[1], X.itemsize)
    for start in range(0, len(X), run):
        rows = slice(start, start + run)
        shifted = X[rows] - shift
        score = half - shifted @ moved.T  # (run, clusters)
        label = score.argmin(axis=1)
        best = np.take_along_axis(score, label[:, None], axis=1)[:, 0]
        distance = np.maximum(np.einsum("ij,ij->i", shifted, shifted) + 2.0 * best, 0.0)
        yield rows, label, distance, shifted
