"""Newton's method for logistic regression, written on the parallel contract: one pass over the rows a step.

``local`` evaluates loss, gradient and Hessian at the trial point; ``update`` accepts the point when the objective fell
enough (Armijo) and solves for the next direction, so a step that is accepted at once costs one pass and nothing is
computed twice. When a trial is refused, one extra pass evaluates the loss at many step lengths together (two
matrix-vector products serve them all) and the longest acceptable one is tried next. The last pass, which only confirms
that the gradient is small, leaves the Hessian out.

The objective is scikit-learn's, divided by ``C`` and the sum of the weights::

    f(B) = (1 / W) sum_i w_i loss_i(B) + 1 / (2 C W) |B without its intercepts|^2,     W = sum_i w_i

The linear system is scaled to a unit diagonal before Cholesky (Jacobi), which keeps features that lie eight decades
apart solvable; a system that is still not positive definite gets a growing multiple of the identity.

Source: Nocedal and Wright, *Numerical Optimization*, 2nd edition, sections 3.1, 3.4 and 6.1 (modification of the
Hessian), and Hastie et al. section 4.4.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from millstream.data import Block, Part
from millstream.errors import InputError
from millstream.learn.logistic_loss import LogisticLoss
from millstream.learn.rows import refuse_not_finite
from millstream.parallel import Context, Done, Meta, Step

__all__ = ["Newton"]

Array = NDArray[np.floating]
State = dict[str, Any]

_ARMIJO = 1e-4
_STEPS = 0.5 ** np.arange(1, 21)  # lengths tried after a refused full step
_TINY = np.finfo(float).tiny
_SURE = 1e-9  # a Newton decrement below which the next gradient will be small: quadratic convergence


@dataclass(frozen=True)
class Newton:
    """Fits ``(outputs, features + 1)`` coefficients, the intercept last.

    classes: sorted labels as they stand in the rows' target; C: inverse strength of the L2 penalty, ``inf`` for none;
    tolerance: bound on the largest component of the gradient of f, each divided by the root of its curvature, so that
    the units of a feature don't matter.

    ``Done.params``: ``coefficients``, ``n_iter`` (steps accepted), ``gradient`` (what tolerance bounds), ``converged``.
    """

    classes: NDArray[Any]
    C: float
    fit_intercept: bool
    tolerance: float
    max_iter: int

    def init(self, meta: Meta, rng: np.random.Generator) -> State:
        n_features = len(meta.schema.feature_names)
        loss = self._loss(n_features)
        zero = np.zeros((loss.n_outputs, n_features + 1))
        return {
            "point": zero,  # the last accepted point
            "direction": zero,  # where the trial lies: point + length * direction
            "length": 1.0,
            "phase": "trial",
            "hessian": True,
            "objective": np.inf,
            "slope": 0.0,
            "weight": 0.0,
            "curvature": np.ones(loss.n_parameters),
            "n_iter": 0,
        }

    def plan(self, state: State) -> Step:
        shipped = {
            "point": state["point"],
            "direction": state["direction"],
            "length": np.float64(state["length"]),
            "search": np.bool_(state["phase"] == "search"),
            "hessian": np.bool_(state["hessian"]),
            "check": np.bool_(np.isinf(state["objective"])),
        }
        return Step(params=shipped)

    def local(self, params: Mapping[str, Any], part: Part, ctx: Context) -> dict[str, Array]:
        loss = self._loss(params["point"].shape[1] - 1)
        trial = params["point"] + params["length"] * params["direction"]
        hessian = bool(params["hessian"])
        total: dict[str, Array] = {"along": np.zeros(len(_STEPS))} if params["search"] else loss.zero(hessian)
        for block in part.blocks():
            X, y = block.X, self.class_numbers(block)
            if params["check"]:
                refuse_not_finite(block)
            if params["search"]:
                total["along"] += loss.along(X, y, block.weight, params["point"], params["direction"], _STEPS)
                continue
            for name, share in loss.evaluate(X, y, block.weight, trial, hessian).items():
                total[name] += share
        return total

    def update(self, state: State, statistic: Mapping[str, Array]) -> State | Done:
        return self._shorten(state, statistic) if "along" in statistic else self._judge(state, statistic)

    def measure(self, state: Mapping[str, Any], statistic: Mapping[str, Array]) -> dict[str, float]:
        """The mean loss at the trial point."""
        return {} if "along" in statistic else {"loss": float(statistic["loss"] / statistic["weight"])}

    def class_numbers(self, block: Block) -> NDArray[np.intp]:
        """The position of each row's target among the classes."""
        if block.y is None:
            raise InputError("the rows have no target: name it, as in read_parquet(path, target='late')")
        return np.searchsorted(self.classes, block.y).astype(np.intp, copy=False)

    def _loss(self, n_features: int) -> LogisticLoss:
        return LogisticLoss(len(self.classes), n_features)

    def _judge(self, state: State, statistic: Mapping[str, Array]) -> State | Done:
        trial = state["point"] + state["length"] * state["direction"]
        weight = float(statistic["weight"])
        if not weight > 0:
            raise InputError(f"the weights of the rows sum to {weight}; expected a positive sum")
        objective = float(statistic["loss"]) / weight + self._penalty(trial, weight)
        if not self._fell_enough(state, objective):
            return {**state, "phase": "search"}
        gradient = self._gradient(statistic["gradient"], trial, weight)
        penalty = 1.0 / (self.C * weight)
        hessian = (
            None if "hessian" not in statistic else self._hessian(statistic["hessian"] / weight, penalty)
        )
        if not (np.isfinite(gradient).all() and (hessian is None or np.isfinite(hessian).all())):
            raise InputError(
                "the features are so large that sums of their squares overflow: scale them (StandardScaler)"
            )
        curvature = state["curvature"] if hessian is None else np.diagonal(hessian).copy()
        largest = float((np.abs(gradient.ravel()) / np.sqrt(np.maximum(curvature, _TINY))).max())
        accepted = {**state, "point": trial, "objective": objective, "weight": weight, "phase": "trial"}
        accepted["curvature"] = curvature
        if largest <= self.tolerance:
            return self._done(accepted, largest, converged=True)
        if hessian is None:  # the sure thing was not: the same point once more, with its Hessian
            return {**accepted, "direction": np.zeros_like(trial), "hessian": True}
        if state["n_iter"] >= self.max_iter:
            return self._done(accepted, largest, converged=False)
        direction = -solve_scaled(hessian, gradient.ravel()).reshape(gradient.shape)
        slope = float(np.sum(gradient * direction))
        if -slope <= np.finfo(float).eps * abs(objective):  # no float64 step lowers f any more
            return self._done(accepted, largest, converged=True)
        following = {"direction": direction, "length": 1.0, "slope": slope, "hessian": -slope > _SURE}
        return {**accepted, **following, "n_iter": state["n_iter"] + 1}

    def _penalty(self, point: Array, weight: float) -> float:
        return 0.5 / (self.C * weight) * float(np.sum(point[:, :-1] ** 2))

    def _gradient(self, summed: Array, point: Array, weight: float) -> Array:
        gradient = summed / weight
        gradient[:, :-1] += point[:, :-1] / (self.C * weight)
        if not self.fit_intercept:
            gradient[:, -1] = 0.0
        return gradient

    def _fell_enough(self, state: State, objective: float) -> bool:
        searched = state["length"] < 1.0  # judged by the pass before: judging twice could disagree for ever
        if searched or np.isinf(state["objective"]) or not np.any(state["direction"]):
            return True
        allowed = state["objective"] + _ARMIJO * state["length"] * state["slope"]
        rounding = 16 * np.finfo(float).eps * max(1.0, abs(state["objective"]))
        return bool(objective <= allowed + rounding)

    def _shorten(self, state: State, statistic: Mapping[str, Array]) -> State | Done:
        """The longest step that lowers the objective enough; without one the last accepted point is the answer."""
        for length, loss in zip(_STEPS, statistic["along"], strict=True):
            trial = state["point"] + length * state["direction"]
            objective = float(loss) / state["weight"] + self._penalty(trial, state["weight"])
            if objective <= state["objective"] + _ARMIJO * length * state["slope"]:
                return {**state, "length": float(length), "phase": "trial", "hessian": True}
        return self._done(state, float("nan"), converged=False)

    def _hessian(self, summed: Array, penalty: float) -> Array:
        """With the penalty, and regular in the directions that the objective does not see."""
        width = summed.shape[0] // LogisticLoss(len(self.classes), 0).n_outputs
        H = summed.reshape(-1, width, summed.shape[0] // width, width)  # (outputs, width, outputs, width)
        outputs, each = np.arange(H.shape[0]), np.arange(width)
        H[outputs[:, None], each[:-1], outputs[:, None], each[:-1]] += penalty
        if not self.fit_intercept:
            H[:, -1] = 0.0
            H[:, :, :, -1] = 0.0
            H[outputs, -1, outputs, -1] = 1.0
        if len(outputs) > 1:  # softmax is blind to a shift common to all classes: pin it at zero
            shift = H[outputs[:, None], each, outputs[:, None], each].mean(axis=0) / len(outputs)
            H[:, each, :, each] += shift[:, None, None]
        return summed

    def _done(self, state: State, largest: float, converged: bool) -> Done:
        point = state["point"].copy()
        if len(point) > 1:  # only differences of intercepts matter: scikit-learn's choice is a sum of zero
            point[:, -1] -= point[:, -1].mean()
        return Done(
            {
                "coefficients": point,
                "n_iter": np.int64(state["n_iter"]),
                "gradient": np.float64(largest),
                "converged": np.bool_(converged),
            }
        )


def solve_scaled(H: Array, right: Array) -> Array:
    """``H x = right`` for a symmetric positive semidefinite H, scaled to a unit diagonal first.

    Not positive definite in floating point: a multiple of the identity is added and raised tenfold until it is.
    """
    scale = 1.0 / np.sqrt(np.maximum(np.diagonal(H), _TINY))
    scaled = H * scale[:, None] * scale
    np.fill_diagonal(scaled, 1.0)
    shift = 0.0
    while True:
        try:
            factor = cho_factor(scaled + shift * np.eye(len(H)), lower=True)
        except LinAlgError:
            shift = max(1e-12, 10.0 * shift)
            continue
        solution: Array = scale * cho_solve(factor, scale * right)
        return solution
