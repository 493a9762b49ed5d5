"""Rows the Scorer would refuse, counted where they are, before the database computes a model on them.

SQLite keeps any value in any column: text in a column of numbers is 0 in arithmetic, so a prediction would come of it.
Elsewhere columns have types, and what is left to count is a null where the model takes integers.
https://www.sqlite.org/datatype3.html
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from millstream.errors import SignatureError
from millstream.models import Signature

__all__ = ["refuse_other_types"]

#: what SQLite calls the values that each type of a signature takes
_STORED = {
    "double": ("real", "integer", "null"),
    "float": ("real", "integer", "null"),
    "int64": ("integer",),
    "bool": ("integer",),
    "string": ("text", "null"),
}


def refuse_other_types(connection: sa.Connection, source: sa.Table, signature: Signature) -> None:
    """Raise SignatureError naming the first column with values that are not of its type, how many, and one of them."""
    strange = {
        name: condition
        for wanted in signature.inputs
        for name in wanted.columns
        if (condition := _other_than(connection.dialect.name, wanted.dtype, source.c[name])) is not None
    }
    if not strange:
        return
    sums = [sa.func.sum(sa.case((condition, 1), else_=0)) for condition in strange.values()]
    counts = connection.execute(sa.select(*sums).select_from(source)).one()
    dtypes = {name: wanted.dtype for wanted in signature.inputs for name in wanted.columns}
    for name, count in zip(strange, counts, strict=True):
        if count:
            raw = sa.type_coerce(source.c[name], sa.types.NullType)
            value = connection.execute(sa.select(raw).where(strange[name]).limit(1)).scalar_one()
            raise SignatureError(
                f"column {name!r} of table {source.name!r} holds {value!r}: expected {dtypes[name]}; "
                f"{count} rows hold such values: correct them, or score a table without them"
            )


def _other_than(dialect: str, dtype: str, column: sa.Column[Any]) -> sa.ColumnElement[bool] | None:
    if dialect == "sqlite":
        return sa.func.typeof(column).not_in(_STORED[dtype])
    return column.is_(None) if dtype in ("int64", "bool") else None
