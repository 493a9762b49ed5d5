"""How long does a logistic regression take, against scikit-learn's own solvers, and how far is it from sgemm?"""

from collections.abc import Iterator

import numpy as np
from sklearn.linear_model import LogisticRegression as Sklearn
from threadpoolctl import threadpool_limits

import millstream as ms
from benchmarks.pairs import in_turn
from millstream.learn import LogisticRegression

ROWS, COLUMNS = 200_000, 100


def measure() -> Iterator[str]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(ROWS, COLUMNS))
    y = (X @ rng.normal(size=COLUMNS) * 0.3 + rng.logistic(size=ROWS) > 0).astype(int)
    fitted: dict[str, object] = {}

    def ours(workers: int) -> None:
        fitted[f"millstream, {workers}"] = LogisticRegression(engine=ms.Threads(workers)).fit(X, y)

    def theirs(solver: str) -> None:
        fitted[solver] = Sklearn(solver=solver, tol=1e-6, max_iter=500).fit(X, y)

    seconds = in_turn(
        {
            "millstream, 1 worker": lambda: ours(1),
            "millstream, 2 workers": lambda: ours(2),
            "scikit-learn lbfgs": lambda: theirs("lbfgs"),
            "scikit-learn newton-cholesky": lambda: theirs("newton-cholesky"),
        },
        repeat=3,
    )
    for name, second in seconds.items():
        yield f"{name:30} {second:6.2f} s"
    one, two = seconds["millstream, 1 worker"], seconds["millstream, 2 workers"]
    yield f"speedup on 2 workers {one / two:.2f}, efficiency {one / two / 2:.0%}"
    model, reference = fitted["millstream, 2"], fitted["newton-cholesky"]
    yield f"largest difference of a coefficient from newton-cholesky {np.abs(model.coef_ - reference.coef_).max():.1e}"
    passes = int(np.max(model.n_iter_))
    yield f"one product X'X, 1 thread: {gram_seconds(X):.3f} s; a Newton pass needs one; {passes} passes"


def gram_seconds(X: np.ndarray) -> float:
    block = np.ascontiguousarray(X[:4096])
    with threadpool_limits(1):
        return in_turn({"gram": lambda: block.T @ block}, repeat=20)["gram"] * len(X) / len(block)
