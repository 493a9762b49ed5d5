"""Rows as an Arrow table: the border where tables, batches and data frames come in."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from millstream.errors import InputError

__all__ = ["as_table"]


def as_table(rows: Any) -> pa.Table:
    """Rows as a table, without the index a data frame may have.

    rows: a table, a record batch, or anything that gives an Arrow stream (``__arrow_c_stream__``), as pandas' and
        polars' data frames do. Raises `InputError` for anything else.

    >>> as_table(pa.record_batch({"fare": [7.5]})).num_rows
    1
    """
    if isinstance(rows, pa.Table):
        return rows
    if isinstance(rows, pa.RecordBatch):
        return pa.Table.from_batches([rows])
    if not hasattr(rows, "__arrow_c_stream__"):
        raise InputError(
            f"{rows!r:.200} is a {type(rows).__name__}; expected a pyarrow.Table, a RecordBatch or a data frame: "
            "read files with read_parquet, arrays with from_numpy"
        )
    try:
        table = pa.table(rows)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, TypeError) as error:
        raise InputError(
            f"the {type(rows).__name__} has a column that is not of one type ({error}); convert it first"
        ) from error
    if hasattr(rows, "columns"):
        table = table.select([str(name) for name in rows.columns])
    return table.replace_schema_metadata(None)
