"""scikit-learn's `Pipeline` over our estimators: used as it is, and written to ONNX step by step."""

from __future__ import annotations

from collections.abc import Mapping

from sklearn.pipeline import Pipeline

from millstream.learn.onnx_form import add_form, onnx_form
from millstream.learn.onnx_graph import Column, Graph, GraphRows

__all__ = ["Pipeline"]


@onnx_form(Pipeline)
def _form(pipeline: Pipeline, graph: Graph, rows: GraphRows) -> Mapping[str, Column]:
    found: Mapping[str, Column] = {column.name: column for column in rows.columns}
    for _, step in pipeline.steps:
        if step is not None and step != "passthrough":
            found = add_form(step, graph, GraphRows(tuple(found.values())))
    return found
