"""Plans at work: one operator for each kind of plan node, listed once in `OPERATORS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from millstream.stream import plan
from millstream.stream.operators.as_of import LatestOperator, LookbackOperator
from millstream.stream.operators.operator import Operator, Snapshot
from millstream.stream.operators.row_wise import (
    FilterOperator,
    MapBatchesOperator,
    PredictOperator,
    SelectOperator,
)
from millstream.stream.operators.tumbling import TumblingOperator

__all__ = ["OPERATORS", "Operator", "Snapshot", "operator_for"]

OPERATORS: dict[type[plan.Node], Callable[[Any], Operator]] = {
    plan.Filter: FilterOperator,
    plan.Select: SelectOperator,
    plan.MapBatches: MapBatchesOperator,
    plan.Predict: PredictOperator,
    plan.TumblingAggregate: TumblingOperator,
    plan.Lookback: LookbackOperator,
    plan.Latest: LatestOperator,
}
"""To add an operator: write its node in `plan`, its class in a file here, and its line in this table."""


def operator_for(node: plan.Node) -> Operator:
    """A fresh operator that does what `node` says."""
    return OPERATORS[type(node)](node)
