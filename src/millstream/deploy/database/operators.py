"""ONNX operators as SQL, one function each.

Every function takes the node's attributes and the tensors of its inputs for one row (see `cells`) and returns
the tensor of its output. Null stands for NaN; SQL then propagates it as IEEE 754 does, except that a
comparison with null is unknown, which every CASE here takes as false, as a comparison with NaN is.

Arithmetic is that of the database, in double precision: a graph in float32 is followed more precisely than
ONNX Runtime does. Meanings: https://onnx.ai/onnx/operators/
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import sqlalchemy as sa

from millstream.deploy.database.cells import (
    Cells,
    Indicator,
    as_sql,
    cells,
    each,
    extreme,
    is_constant,
    lookup,
    number,
    total,
)
from millstream.errors import Refused

__all__ = ["OPERATORS", "Attributes", "Operator"]

Attributes = Mapping[str, Any]
Operator = Callable[..., Cells]

#: the operators that have a form in SQL, by name
OPERATORS: dict[str, Operator] = {}


def _form(*names: str) -> Callable[[Operator], Operator]:
    def enter(function: Operator) -> Operator:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return enter


# Arithmetic and comparison, cell by cell


def _binary(function: Callable[[Any, Any], Any]) -> Operator:
    def apply(attributes: Attributes, a: Cells, b: Cells) -> Cells:
        if is_constant(a) and is_constant(b):
            return np.asarray(function(a, b))
        return each(lambda x, y: function(as_sql(x), as_sql(y)), a, b)

    return apply


for _name, _function in {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Div": operator.truediv,
    "Equal": operator.eq,
    "Greater": operator.gt,
    "GreaterOrEqual": operator.ge,
    "Less": operator.lt,
    "LessOrEqual": operator.le,
}.items():
    OPERATORS[_name] = _binary(_function)


@_form("Neg")
def neg(attributes: Attributes, x: Cells) -> Cells:
    return each(lambda cell: -as_sql(cell), x)


@_form("Abs")
def absolute(attributes: Attributes, x: Cells) -> Cells:
    return each(lambda cell: sa.func.abs(as_sql(cell), type_=sa.Double), x)


@_form("Exp")
def exp(attributes: Attributes, x: Cells) -> Cells:
    return each(lambda cell: sa.func.exp(as_sql(cell), type_=sa.Double), x)


@_form("Sqrt")
def sqrt(attributes: Attributes, x: Cells) -> Cells:
    return each(lambda cell: sa.func.sqrt(as_sql(cell), type_=sa.Double), x)


@_form("Sigmoid")
def sigmoid(attributes: Attributes, x: Cells) -> Cells:
    return each(lambda cell: number(1.0) / (number(1.0) + sa.func.exp(-as_sql(cell), type_=sa.Double)), x)


# Logic


@_form("IsNaN")
def is_nan(attributes: Attributes, x: Cells) -> Cells:
    return each(lambda cell: as_sql(cell).is_(None), x)


@_form("Not")
def logical_not(attributes: Attributes, x: Cells) -> Cells:
    return each(lambda cell: sa.case((as_sql(cell), sa.false()), else_=sa.true()), x)


@_form("And")
def logical_and(attributes: Attributes, a: Cells, b: Cells) -> Cells:
    return each(lambda x, y: sa.and_(as_sql(x), as_sql(y)), a, b)


@_form("Or")
def logical_or(attributes: Attributes, a: Cells, b: Cells) -> Cells:
    return each(lambda x, y: sa.or_(as_sql(x), as_sql(y)), a, b)


@_form("Where")
def where(attributes: Attributes, condition: Cells, a: Cells, b: Cells) -> Cells:
    return each(lambda c, x, y: sa.case((as_sql(c), as_sql(x)), else_=as_sql(y)), condition, a, b)


# Categories


@_form("OneHotEncoder")
def one_hot(attributes: Attributes, x: Cells) -> Cells:
    categories = [*attributes.get("cats_strings", ()), *attributes.get("cats_int64s", ())]
    if not attributes.get("zeros", 1):
        raise Refused(
            "OneHotEncoder with zeros=0 fails on unknown categories, which SQL can't; export with zeros=1"
        )
    found = [Indicator(as_sql(cell), category) for cell in x.reshape(-1) for category in categories]
    return cells(found, (*x.shape, len(categories)))


@_form("LabelEncoder")
def label_encoder(attributes: Attributes, x: Cells) -> Cells:
    keys, values, default = _label_table(attributes)
    return each(lambda cell: lookup(cell, list(zip(keys, values, strict=True)), default), x)


def _label_table(attributes: Attributes) -> tuple[list[Any], list[Any], Any]:
    defaults = {"string": "_Unused", "int64": -1, "float": -0.0}
    keys = next(attributes[f"keys_{kind}s"] for kind in defaults if f"keys_{kind}s" in attributes)
    kind = next(kind for kind in defaults if f"values_{kind}s" in attributes)
    return list(keys), list(attributes[f"values_{kind}s"]), attributes.get(f"default_{kind}", defaults[kind])


# Sums


@_form("MatMul")
def matmul(attributes: Attributes, a: Cells, b: Cells) -> Cells:
    if is_constant(a) and is_constant(b):
        return np.asarray(a @ b)
    if a.ndim != 2 or b.ndim != 2:
        raise Refused(
            f"MatMul of shapes {a.shape} and {b.shape} has no form in SQL; expected (1, k) and (k, m)"
        )
    found = [_dot(row, column) for row in a for column in b.T]
    return cells(found, (a.shape[0], b.shape[1]))


@_form("Gemm")
def gemm(attributes: Attributes, a: Cells, b: Cells, c: Cells | None = None) -> Cells:
    if attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0:
        raise Refused("Gemm with alpha or beta other than 1 has no form in SQL; fold them into the weights")
    left = a.T if attributes.get("transA") else a
    product = matmul({}, left, b.T if attributes.get("transB") else b)
    return product if c is None else OPERATORS["Add"]({}, product, c)


def _dot(row: Cells, column: Cells) -> sa.ColumnElement[Any]:
    """The inner product; all indicators of one source together are one CASE."""
    terms: list[Any] = []
    by_source: dict[int, list[tuple[Indicator, float]]] = {}
    for x, w in zip(row.tolist(), column.tolist(), strict=True):
        if isinstance(x, Indicator) and not isinstance(w, sa.ColumnElement | Indicator):
            by_source.setdefault(id(x.source), []).append((x, float(w)))
        else:
            terms.append(as_sql(x) * as_sql(w))
    for group in by_source.values():
        terms.append(lookup(group[0][0].source, [(x.value, w) for x, w in group], 0.0))
    return total(terms)


@_form("ReduceSum")
def reduce_sum(attributes: Attributes, x: Cells, axes: Cells | None = None) -> Cells:
    axis = _only_axis(attributes.get("axes") if axes is None else axes.tolist(), x.ndim)
    summed = np.apply_along_axis(lambda line: cells([total(line)], (1,)), axis, x)
    return summed if attributes.get("keepdims", 1) else summed.squeeze(axis)


# Decisions


@_form("Softmax")
def softmax(attributes: Attributes, x: Cells) -> Cells:
    """p_j = 1 / (1 + sum over i != j of exp(z_i - z_j)): no term overflows to anything but 0."""
    axis = _only_axis([attributes.get("axis", -1)], x.ndim)
    return np.apply_along_axis(_probabilities, axis, x)


def _probabilities(line: Cells) -> Cells:
    z = [as_sql(cell) for cell in line.tolist()]
    found = []
    for j, own in enumerate(z):
        others = [sa.func.exp(other - own, type_=sa.Double) for i, other in enumerate(z) if i != j]
        found.append(number(1.0) / total([number(1.0), *others]))
    return cells(found, (len(found),))


@_form("ArgMax")
def arg_max(attributes: Attributes, x: Cells) -> Cells:
    return _arg("greatest", attributes, x)


@_form("ArgMin")
def arg_min(attributes: Attributes, x: Cells) -> Cells:
    return _arg("least", attributes, x)


def _arg(kind: str, attributes: Attributes, x: Cells) -> Cells:
    """``CASE least(...) WHEN first THEN 0 WHEN second THEN 1 ... END``: ties go to the lowest index."""
    if attributes.get("select_last_index", 0):
        raise Refused("ArgMax and ArgMin with select_last_index have no form in SQL; export them without")
    axis = _only_axis([attributes.get("axis", 0)], x.ndim)

    def of(line: Cells) -> Cells:
        items = line.tolist()
        return cells([lookup(extreme(kind, items), [(item, i) for i, item in enumerate(items)], 0)], (1,))

    found = np.apply_along_axis(of, axis, x)
    return found if attributes.get("keepdims", 1) else found.squeeze(axis)


# Shapes


@_form("Identity")
def identity(attributes: Attributes, x: Cells) -> Cells:
    return x


@_form("Constant")
def constant(attributes: Attributes) -> Cells:
    return np.asarray(attributes["value"])


@_form("Cast")
def cast(attributes: Attributes, x: Cells) -> Cells:
    to = onnx.helper.tensor_dtype_to_np_dtype(attributes["to"])
    if is_constant(x):
        return x.astype(to)
    return each(lambda cell: _cast_cell(cell, np.dtype(to).kind), x)


def _cast_cell(cell: Any, kind: str) -> Any:
    if isinstance(cell, Indicator) and kind == "f":
        return cell
    value = as_sql(cell)
    boolean = isinstance(value.type, sa.Boolean)
    if boolean and kind in "fi":
        one, zero = (1.0, 0.0) if kind == "f" else (1, 0)
        return sa.case((value, as_sql(one)), else_=as_sql(zero))
    if kind == "f":
        return value if isinstance(value.type, sa.Double) else sa.cast(value, sa.Double)
    if kind == "i":
        return value if isinstance(value.type, sa.Integer) else sa.cast(value, sa.BigInteger)
    raise Refused(f"Cast of {value.type} to NumPy kind {kind!r} has no form in SQL")


@_form("Unsqueeze")
def unsqueeze(attributes: Attributes, x: Cells, axes: Cells | None = None) -> Cells:
    where_to = attributes["axes"] if axes is None else axes.tolist()
    return np.expand_dims(x, tuple(int(axis) for axis in where_to))


@_form("Squeeze")
def squeeze(attributes: Attributes, x: Cells, axes: Cells | None = None) -> Cells:
    where_to = attributes.get("axes") if axes is None else axes.tolist()
    chosen = None if where_to is None else tuple(int(axis) for axis in where_to)
    return x.squeeze(chosen) if chosen is not None else x.squeeze(tuple(range(1, x.ndim)))


@_form("Reshape")
def reshape(attributes: Attributes, x: Cells, shape: Cells) -> Cells:
    wanted = [x.shape[i] if size == 0 else int(size) for i, size in enumerate(shape.tolist())]
    return x.reshape(wanted)


@_form("Concat")
def concat(attributes: Attributes, *tensors: Cells) -> Cells:
    _refuse_rows(attributes["axis"], tensors[0].ndim)
    return np.concatenate([tensor.astype(object) for tensor in tensors], axis=attributes["axis"])


@_form("Gather")
def gather(attributes: Attributes, x: Cells, indices: Cells) -> Cells:
    if is_constant(indices):
        return np.take(x, indices.astype(np.int64), axis=attributes.get("axis", 0))
    if not is_constant(x) or x.ndim != 1:
        raise Refused("Gather by a computed index has a form in SQL only from a constant vector")
    return each(lambda cell: lookup(cell, list(enumerate(x.tolist()[1:], start=1)), x.tolist()[0]), indices)


def _only_axis(axes: Any, n_axes: int) -> int:
    if axes is None or len(axes) != 1:
        raise Refused(
            f"a reduction over the axes {axes} has no form in SQL; expected one axis other than the rows"
        )
    return _refuse_rows(int(axes[0]), n_axes)


def _refuse_rows(axis: int, n_axes: int) -> int:
    if axis % n_axes == 0:
        raise Refused("an operator over the rows has no form in SQL, which sees one row at a time")
    return axis % n_axes
