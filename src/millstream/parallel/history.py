"""What an algorithm measured, step by step, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from millstream.errors import TrainingError

__all__ = ["history_table"]


def history_table(history: Sequence[Mapping[str, float]]) -> pa.Table:
    """One row a step: ``step`` int64, then every measure as float64, null where a step did not have it.

    >>> history_table([{"loss": 0.5}, {"loss": 0.25, "rate": 1.0}]).to_pydict()
    {'step': [0, 1], 'loss': [0.5, 0.25], 'rate': [None, 1.0]}
    """
    names = list(dict.fromkeys(name for measures in history for name in measures))
    if "step" in names:
        raise TrainingError("a measure is called 'step', as the number of the step is; give it another name")
    columns = {name: pa.array([m.get(name) for m in history], pa.float64()) for name in names}
    return pa.table({"step": pa.array(range(len(history)), pa.int64()), **columns})
