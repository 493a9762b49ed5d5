"""A model as SQL expressions, one for every flat output.

The graph is evaluated symbolically for one row: its inputs are the columns of a table, its constants are
numbers, and each operator builds the expression of its output out of those of its inputs (`operators`). What
comes out is plain SQL that any tool can run: no function of ours, no extension. Names and literals are
SQLAlchemy expression objects until the dialect quotes them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import sqlalchemy as sa
from onnx import numpy_helper

from millstream.deploy.database.cells import Cells, as_sql, cells
from millstream.deploy.database.operators import OPERATORS
from millstream.errors import Refused
from millstream.models import Input, Signature
from millstream.models.outputs import flat_names

__all__ = ["compile_graph"]


def compile_graph(
    model: onnx.ModelProto, signature: Signature, column: Callable[[str], sa.ColumnElement[Any]]
) -> dict[str, sa.ColumnElement[Any]]:
    """The expression of every flat output, by name; `column` gives the expression of a flat input column.

    Raises Refused with every operator of the graph that has no form in SQL.
    """
    unknown = sorted({node.op_type for node in model.graph.node} - OPERATORS.keys())
    if unknown:
        raise Refused(
            f"the operators {unknown} of this model have no form in SQL; score it through the Scorer "
            "(DatabaseScorer without as_sql)"
        )
    tensors: dict[str, Cells] = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    tensors |= {wanted.name: _row(wanted, column) for wanted in signature.inputs}
    for node in model.graph.node:
        attributes = {a.name: _attribute(a) for a in node.attribute}
        arguments = [tensors[name] if name else None for name in node.input]
        tensors[node.output[0]] = OPERATORS[node.op_type](attributes, *arguments)
    outputs: dict[str, sa.ColumnElement[Any]] = {}
    for field in signature.output_schema:
        row = tensors[field.name].reshape(-1)
        flat = flat_names(field) if field.type.num_fields else [(field.name, 0)]
        outputs |= {name: as_sql(row[index]) for name, index in flat}
    return outputs


def _row(wanted: Input, column: Callable[[str], sa.ColumnElement[Any]]) -> Cells:
    """The input as a tensor of one row, by the rules of `models.feeds`: null text is empty, null is NaN."""
    items: list[sa.ColumnElement[Any]] = []
    for name in wanted.columns:
        value = column(name)
        if wanted.dtype == "string":
            items.append(sa.func.coalesce(value, sa.literal("", sa.String), type_=sa.String))
        elif wanted.dtype in ("double", "float"):
            items.append(sa.cast(value, sa.Double))
        else:
            items.append(value)
    return cells(items, (1,) if wanted.width is None else (1, wanted.width))


def _attribute(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.type == onnx.AttributeProto.STRINGS:
        return [text.decode() for text in value]
    if attribute.type == onnx.AttributeProto.STRING:
        return value.decode()
    if attribute.type == onnx.AttributeProto.TENSOR:
        return np.asarray(numpy_helper.to_array(value))
    return value
