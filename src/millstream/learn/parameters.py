"""The check of a constructor parameter, made at ``fit`` as scikit-learn's contract asks."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

from millstream.errors import InputError

__all__ = ["not_negative", "positive", "positive_integer"]


def positive(estimator: Any, name: str) -> float:
    """The parameter as a float, infinity included; raises `InputError` unless it is a number above zero."""
    value = getattr(estimator, name)
    if isinstance(value, bool) or not isinstance(value, Real) or not float(value) > 0:
        raise _unfit(estimator, name, "a positive number")
    return float(value)


def not_negative(estimator: Any, name: str) -> float:
    """The parameter as a float; raises `InputError` unless it is zero or a number above."""
    value = getattr(estimator, name)
    if isinstance(value, bool) or not isinstance(value, Real) or not float(value) >= 0:
        raise _unfit(estimator, name, "zero or a positive number")
    return float(value)


def positive_integer(estimator: Any, name: str) -> int:
    """The parameter as an int; raises `InputError` unless it is a whole number above zero."""
    value = getattr(estimator, name)
    if isinstance(value, bool) or not isinstance(value, Integral) or not int(value) > 0:
        raise _unfit(estimator, name, "a positive integer")
    return int(value)


def _unfit(estimator: Any, name: str, expected: str) -> InputError:
    return InputError(f"{type(estimator).__name__}({name}={getattr(estimator, name)!r}): expected {expected}")
