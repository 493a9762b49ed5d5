"""Cells: what one row of a tensor is made of while a graph is read as SQL.

A tensor of one row is a NumPy object array whose leading axis has length 1; a cell is a Python constant, a
SQLAlchemy expression, or an `Indicator`. NumPy then gives broadcasting, reshaping, gathering and
concatenation by the very rules ONNX has, and only arithmetic is written here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import operators
from sqlalchemy.sql.functions import FunctionElement

__all__ = [
    "Cells",
    "Indicator",
    "as_sql",
    "cells",
    "each",
    "extreme",
    "is_constant",
    "lookup",
    "number",
    "total",
]

#: an object array of shape (1, ...), or a constant tensor
Cells = np.ndarray

_TERMS = 8
_ARGUMENTS = 64


@dataclass(frozen=True)
class Indicator:
    """1.0 where `source` equals `value`, else 0.0: a column of a one-hot encoding.

    Kept apart from other expressions so that a weighted sum of indicators of one source becomes a single
    CASE.
    """

    source: sa.ColumnElement[Any]
    value: Any


class Sum(FunctionElement[Any]):
    """``(a + b + ...)``. SQLAlchemy's own sums merge into one flat list, whatever parentheses they have."""

    inherit_cache = True
    name = "sum"
    type = sa.Double()


@compiles(Sum)
def _sum(element: Sum, compiler: Any, **options: Any) -> str:
    return f"({' + '.join(compiler.process(term, **options) for term in element.clauses)})"


class Extreme(FunctionElement[Any]):
    """The least or greatest of its arguments; SQLite calls them min and max."""

    inherit_cache = True
    name = "extreme"


class Least(Extreme):
    inherit_cache = True
    name = "least"


class Greatest(Extreme):
    inherit_cache = True
    name = "greatest"


@compiles(Extreme)
def _standard(element: Extreme, compiler: Any, **options: Any) -> str:
    return f"{element.name}({compiler.process(element.clauses, **options)})"


@compiles(Extreme, "sqlite")
def _sqlite(element: Extreme, compiler: Any, **options: Any) -> str:
    name = {"least": "min", "greatest": "max"}[element.name]
    return f"{name}({compiler.process(element.clauses, **options)})"


def is_constant(tensor: Cells) -> bool:
    """Whether a tensor holds no expression."""
    if tensor.dtype != object:
        return True
    return not any(isinstance(cell, Indicator | sa.ColumnElement) for cell in tensor.reshape(-1).tolist())


def cells(items: Sequence[Any], shape: tuple[int, ...]) -> Cells:
    """Cells in the given shape. `np.array` won't do: it would look for sequences inside expressions."""
    made = np.empty(len(items), dtype=object)
    for i, item in enumerate(items):
        made[i] = item
    return made.reshape(shape)


def each(function: Callable[..., Any], *tensors: Cells) -> Cells:
    """`function` cell by cell, with NumPy's broadcasting."""
    return np.asarray(np.frompyfunc(function, len(tensors), 1)(*(t.astype(object) for t in tensors)))


def as_sql(cell: Any) -> sa.ColumnElement[Any]:
    """A cell as an expression; constants become typed literals."""
    if isinstance(cell, Indicator):
        return sa.case((cell.source == cell.value, number(1.0)), else_=number(0.0))
    if isinstance(cell, sa.ColumnElement):
        return cell
    if isinstance(cell, bool | np.bool_):
        return sa.true() if cell else sa.false()
    if isinstance(cell, int | np.integer):
        return sa.literal(int(cell), sa.BigInteger)
    if isinstance(cell, float | np.floating):
        return number(float(cell))
    return sa.literal(str(cell), sa.String)


def number(value: float) -> sa.ColumnElement[Any]:
    """A double in full precision; NaN is NULL."""
    return sa.null() if np.isnan(value) else sa.literal(value, sa.Double)


def total(terms: Iterable[Any]) -> sa.ColumnElement[Any]:
    """The sum of cells as a tree: SQLite refuses expressions deeper than 1000."""
    level = [as_sql(term).self_group(against=operators.mul) for term in terms]
    while len(level) > 1:
        groups = [level[i : i + _TERMS] for i in range(0, len(level), _TERMS)]
        level = [Sum(*group) if len(group) > 1 else group[0] for group in groups]
    return level[0]


def extreme(kind: str, items: Sequence[Any]) -> sa.ColumnElement[Any]:
    """The least (`kind` "least") or greatest of cells, nested because SQLite allows 127 arguments."""
    level = [as_sql(item) for item in items]
    function = {"least": Least, "greatest": Greatest}[kind]
    while len(level) > 1:
        groups = [level[i : i + _ARGUMENTS] for i in range(0, len(level), _ARGUMENTS)]
        level = [function(*group) if len(group) > 1 else group[0] for group in groups]
    return level[0]


def lookup(source: Any, table: Sequence[tuple[Any, Any]], default: Any) -> sa.ColumnElement[Any]:
    """``CASE source WHEN key THEN value ... ELSE default END``."""
    whens = [(as_sql(key), as_sql(value)) for key, value in table]
    return sa.case(*whens, value=as_sql(source), else_=as_sql(default))
