"""The check of a constructor parameter, made at ``fit`` as scikit-learn's contract asks."""

from __future__ import annotations

from typing import Any

from millstream.errors import InputError

__all__ = ["in_range"]


def in_range(estimator: Any, name: str, value: Any, kind: type, above: float) -> None:
    """Raises `InputError` unless value is of the kind (a class of `numbers`) and greater than ``above``."""
    fits = isinstance(value, kind) and not isinstance(value, bool)
    if not fits or not value > above:
        raise InputError(
            f"{type(estimator).__name__}({name}={value!r}): expected a{'n' if kind.__name__ == 'Integral' else ''} "
            f"{kind.__name__.lower()} number above {above}"
        )
