"""Datasets regrouped, combined and joined by key on an engine.

Equal keys are brought together by a `shuffle`; what `map_batches` and `filter` noted is computed on the workers on the
way. Each function returns the dataset with a report, and the same rows in the same order on every
engine and at any width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millstream.data import Dataset, Field, Part, Role, Schema
from millstream.errors import InputError, SchemaError
from millstream.parallel.engine import Engine
from millstream.parallel.shuffle import Shuffled, shuffle
from millstream.parallel.threads import Threads

__all__ = ["combine_by_key", "join", "regroup"]

Function = Literal["count", "sum", "mean", "min", "max"]


def regroup(
    dataset: Dataset,
    keys: str | Sequence[str],
    *,
    engine: Engine | None = None,
    n_parts: int | None = None,
    directory: str | Path | None = None,
) -> Shuffled:
    """The same rows in other parts: rows with equal keys lie in one part, in the order they had.

    keys: columns of integers, Booleans, dates, times, strings or bytes; null is a key. n_parts: by default as many as
    make parts of about 4 MB. engine, directory: as in `combine_by_key`.

    >>> from millstream.data import from_arrow
    >>> rides = from_arrow(pa.table({"zone": ["a", "b", "a", "c"], "fare": [1.0, 2.0, 3.0, 4.0]}), part_rows=2)
    >>> for part in regroup(rides, "zone", n_parts=2).dataset.parts:
    ...     print(part.to_table()["zone"].to_pylist())
    ['a', 'a', 'c']
    ['b']
    """
    names = _keys(keys, dataset.schema)
    return shuffle(
        engine or Threads(), [Part.to_table], [dataset], names, _as_they_come, dataset.schema, n_parts=n_parts,
        directory=directory,
    )  # fmt: skip


def combine_by_key(
    dataset: Dataset,
    keys: str | Sequence[str],
    aggregates: Mapping[str, tuple[str | None, Function]],
    *,
    engine: Engine | None = None,
    directory: str | Path | None = None,
) -> Shuffled:
    """One row for each key: the key columns, and the aggregates by the names they are given.

    Every part is combined by itself before anything is shuffled, so no more rows are moved than there are keys in a
    part. keys: as in `regroup`. aggregates: name to (column, function); as in SQL nulls are left out, "count" of no
    column counts rows, and all but "count" give null where there is no value. engine: by default `Threads()`.
    directory: for the files of the shuffle, by default that for temporary files.

    >>> from millstream.data import from_arrow
    >>> rides = from_arrow(pa.table({"zone": ["a", "b", "a"], "fare": [1.0, 2.0, 4.0]}), part_rows=2)
    >>> combine_by_key(rides, "zone", {"n": (None, "count"), "fare": ("fare", "mean")}).dataset.to_table().to_pylist()
    [{'zone': 'a', 'n': 2, 'fare': 2.5}, {'zone': 'b', 'n': 1, 'fare': 2.0}]
    """
    names = _keys(keys, dataset.schema)
    _check(aggregates, names, dataset.schema)
    combine = _Combine(tuple(names), tuple((name, *aggregate) for name, aggregate in aggregates.items()))
    empty = pa.Table.from_batches([], schema=dataset.schema.select(combine.columns).arrow)
    result = combine.merge(combine.partial(empty)).schema
    fields = [dataset.schema[name] for name in names]
    fields += [Field(name, result.field(name).type, Role.FEATURE) for name in aggregates]
    return shuffle(
        engine or Threads(),
        [combine],
        [dataset],
        names,
        combine.merge,
        Schema(tuple(fields)),
        directory=directory,
    )


def join(
    left: Dataset,
    right: Dataset,
    on: str | Sequence[str],
    *,
    how: Literal["inner", "left"] = "inner",
    engine: Engine | None = None,
    directory: str | Path | None = None,
) -> Shuffled:
    """Every pair of rows with equal keys: the columns of `left`, then the others of `right`.

    how: "left" keeps rows of `left` without a match, with nulls. As in SQL a null key matches nothing. Columns other
    than the keys must differ in name. Rows with equal keys stand in the order of `left`, then of `right`. engine,
    directory: as in `combine_by_key`.

    >>> from millstream.data import from_arrow
    >>> rides = from_arrow(pa.table({"zone": ["a", "b", "a"], "fare": [1.0, 2.0, 4.0]}))
    >>> zones = from_arrow(pa.table({"zone": ["a", "c"], "city": ["Ayr", "Cork"]}))
    >>> join(rides, zones, "zone").dataset.to_table().to_pylist()
    [{'zone': 'a', 'fare': 1.0, 'city': 'Ayr'}, {'zone': 'a', 'fare': 4.0, 'city': 'Ayr'}]
    """
    names = _keys(on, left.schema)
    right.schema.require(names)
    if how not in ("inner", "left"):
        raise InputError(f"join(how={how!r}); expected 'inner' or 'left'")
    for name in names:
        if left.schema[name].type != right.schema[name].type:
            raise SchemaError(
                f"key {name!r} is {left.schema[name].type} on the left and {right.schema[name].type} on the right; "
                "cast one of them"
            )
    others = [field for field in right.schema.fields if field.name not in names]
    both = [field.name for field in others if field.name in left.schema]
    if both:
        raise SchemaError(
            f"columns {both} are on both sides; leave them out of one with select(), or rename them"
        )
    schema = Schema((*left.schema.fields, *others))
    reduce = _Join(tuple(names), f"{how} outer" if how == "left" else how)
    return shuffle(
        engine or Threads(),
        [Part.to_table, Part.to_table],
        [left, right],
        names,
        reduce,
        schema,
        directory=directory,
    )


def _keys(keys: str | Sequence[str], schema: Schema) -> list[str]:
    names = [keys] if isinstance(keys, str) else list(keys)
    if not names:
        raise InputError("there are no keys; name at least one column")
    schema.require(names)
    return names


def _check(aggregates: Mapping[str, tuple[str | None, str]], keys: Sequence[str], schema: Schema) -> None:
    if not aggregates:
        raise InputError("there are no aggregates; pass for example {'n': (None, 'count')}")
    for name, (column, function) in aggregates.items():
        if function not in ("count", "sum", "mean", "min", "max"):
            raise InputError(f"{name!r}: {function!r} is no function; expected count, sum, mean, min or max")
        if column is None and function != "count":
            raise InputError(f"{name!r}: {function} needs a column; (None, 'count') counts rows")
        if column is not None:
            schema.require([column])
        if name in keys:
            raise InputError(f"{name!r} is a key already; give the aggregate another name")


def _as_they_come(rows: pa.Table) -> pa.Table:
    return rows


@dataclass(frozen=True)
class _Combine:
    """Partial aggregates of a part, and their merge; column i of the partial form is called ``p{i}``."""

    keys: tuple[str, ...]
    aggregates: tuple[tuple[str, str | None, str], ...]

    @property
    def columns(self) -> list[str]:
        used = [*self.keys, *(column for _, column, _ in self.aggregates if column is not None)]
        return list(dict.fromkeys(used))

    def __call__(self, part: Part) -> pa.Table:
        return self.partial(part.to_table(self.columns))

    def partial(self, rows: pa.Table) -> pa.Table:
        wanted: list[tuple[str | list[str], str]] = []
        for _, column, function in self.aggregates:
            if function == "mean":
                wanted += [(str(column), "sum"), (str(column), "count")]
            else:
                wanted.append(([], "count_all") if column is None else (column, function))
        return self._grouped(rows, wanted)

    def merge(self, partial: pa.Table) -> pa.Table:
        merging = {"count": "sum", "sum": "sum", "min": "min", "max": "max"}
        wanted: list[tuple[str | list[str], str]] = []
        for _, _, function in self.aggregates:
            for way in ("sum", "count") if function == "mean" else (function,):
                wanted.append((f"p{len(wanted)}", merging[way]))
        merged = self._grouped(partial, wanted)
        columns = {name: merged[name] for name in self.keys}
        at = 0
        for name, _, function in self.aggregates:
            if function == "mean":
                total, count = merged[f"p{at}"].cast(pa.float64()), merged[f"p{at + 1}"]
                columns[name] = pc.divide(total, pc.cast(count, pa.float64()))  # null where the sum is
            else:
                columns[name] = merged[f"p{at}"]
            at += 2 if function == "mean" else 1
        return pa.table(columns)

    def _grouped(self, rows: pa.Table, wanted: Sequence[tuple[str | list[str], str]]) -> pa.Table:
        """Keys in the order of their first row; one thread, so that sums are added in the order of the rows."""
        for at, name in enumerate(rows.column_names):
            rows = rows.set_column(at, name, _decoded(rows[name])) if name in self.keys else rows
        grouped = rows.group_by(list(self.keys), use_threads=False).aggregate(list(wanted))
        aggregated = [i for i, name in enumerate(grouped.column_names) if i >= len(self.keys)]
        columns = {name: grouped.column(i) for i, name in enumerate(self.keys)}
        return pa.table({**columns, **{f"p{i}": grouped.column(at) for i, at in enumerate(aggregated)}})


@dataclass(frozen=True)
class _Join:
    keys: tuple[str, ...]
    kind: str

    def __call__(self, left: pa.Table, right: pa.Table) -> pa.Table:
        """Finds the pairs by their keys, and takes the rows, of whatever type their columns are."""
        pairs = self._numbered(left, "left").join(
            self._numbered(right, "right"), list(self.keys), join_type=self.kind, use_threads=False
        )
        pairs = pairs.sort_by([("left", "ascending"), ("right", "ascending")])
        others = right.drop_columns(list(self.keys))
        columns = {name: left[name].take(pairs["left"]) for name in left.column_names}
        return pa.table({**columns, **{n: others[n].take(pairs["right"]) for n in others.column_names}})

    def _numbered(self, rows: pa.Table, side: str) -> pa.Table:
        columns = [_decoded(rows[name]) for name in self.keys]
        return pa.table([*columns, pa.array(np.arange(len(rows)))], names=[*self.keys, side])


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Without dictionaries, which may differ from part to part."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
