"""The plan: a frozen, comparable, printable tree of what a stream means.

A plan says nothing about where its rows come from: a live topic and its replay give equal plans if their names, schemas
and times are equal, and the rows follow. Every node checks itself when it is made, so a plan that stands can run; what
can't is a PlanError before the first row. Functions compare by identity and predictors as they choose.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

import pyarrow as pa

from millstream.clock import microseconds
from millstream.errors import PlanError
from millstream.stream.aggregates import Aggregate
from millstream.stream.event_time import LONGEST, check_event_time
from millstream.stream.predictor import Predictor
from millstream.stream.slots import check_key

__all__ = [
    "Aggregates",
    "Filter",
    "Late",
    "Latest",
    "Lookback",
    "MapBatches",
    "Node",
    "Predict",
    "Select",
    "Source",
    "TumblingAggregate",
    "sources",
    "walk",
]

Mask = Callable[[pa.RecordBatch], pa.Array]
Rowwise = Callable[[pa.RecordBatch], pa.RecordBatch]
Aggregates = tuple[tuple[str, Aggregate], ...]


class Node(ABC):
    """A step of a plan. `schema` is of the rows it gives, `inputs` what it takes, left first."""

    @property
    @abstractmethod
    def schema(self) -> pa.Schema: ...

    @property
    def inputs(self) -> tuple[Node, ...]:
        return ()

    @abstractmethod
    def label(self) -> str:
        """One line for the printed plan."""

    def __str__(self) -> str:
        lines = [self.label()]
        for node in self.inputs:
            lines += ["  " + line for line in str(node).split("\n")]
        return "\n".join(lines)


@dataclass(frozen=True)
class Source(Node):
    """Rows that come in. delay: microseconds of disorder allowed; None takes a table in event-time order."""

    name: str
    columns: pa.Schema
    event_time: str
    delay: int | None

    def __post_init__(self) -> None:
        check_event_time(self.columns, self.event_time, self.name)
        if self.delay is not None and self.delay < 0:
            raise PlanError(f"source {self.name!r}: delay is {self.delay} us; expected zero or more")
        _check_length(self.delay or 0, f"source {self.name!r}: delay")

    @property
    def schema(self) -> pa.Schema:
        return self.columns

    def label(self) -> str:
        delay = "in order" if self.delay is None else f"delay {timedelta(microseconds=self.delay)}"
        return f"source {self.name} (event time {self.event_time}, {delay})"


@dataclass(frozen=True)
class _OneInput(Node):
    input: Node

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.input,)


@dataclass(frozen=True)
class Late(_OneInput):
    """The rows of a source that came behind its watermark."""

    input: Source

    @property
    def schema(self) -> pa.Schema:
        return self.input.schema

    def label(self) -> str:
        return "late"


@dataclass(frozen=True)
class Filter(_OneInput):
    """The rows for which `predicate`, a function from a batch to a Boolean array, is true."""

    predicate: Mask

    @property
    def schema(self) -> pa.Schema:
        return self.input.schema

    def label(self) -> str:
        return f"filter {_function_name(self.predicate)}"


@dataclass(frozen=True)
class MapBatches(_OneInput):
    """Each batch replaced, row for row, by what `function` gives, in the schema `gives`."""

    function: Rowwise
    gives: pa.Schema

    @property
    def schema(self) -> pa.Schema:
        return self.gives

    def label(self) -> str:
        return f"map_batches {_function_name(self.function)} -> {_columns(self.gives)}"


@dataclass(frozen=True)
class Select(_OneInput):
    """Some of the columns, in this order."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        _need("select", self.names, self.input.schema)

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([self.input.schema.field(name) for name in self.names])

    def label(self) -> str:
        return f"select {', '.join(self.names)}"


@dataclass(frozen=True)
class Predict(_OneInput):
    """The rows with a model's predictions beside them."""

    predictor: Predictor

    def __post_init__(self) -> None:
        self.predictor.output_schema(self.input.schema)

    @property
    def schema(self) -> pa.Schema:
        return self.predictor.output_schema(self.input.schema)

    def label(self) -> str:
        return f"predict by {type(self.predictor).__name__}"


@dataclass(frozen=True)
class TumblingAggregate(_OneInput):
    """Aggregates by key and by window [k * size, (k + 1) * size), in microseconds from the epoch."""

    keys: tuple[str, ...]
    size: int
    aggregates: Aggregates
    time_type: pa.DataType

    def __post_init__(self) -> None:
        where = "aggregate"
        if self.size <= 0:
            raise PlanError(f"{where}: the window is {self.size} us long; expected more than zero")
        _check_length(self.size, f"{where}: the window")
        if not self.aggregates:
            raise PlanError(f"{where}: no aggregate given; write for instance aggregate(n=count())")
        _check_aggregates(where, self.aggregates)
        for key in self.keys:
            check_key(self.input.schema, key, where)
        _no_late(self.input, where)
        _distinct(where, [f.name for f in self.schema])

    @property
    def schema(self) -> pa.Schema:
        rows = self.input.schema
        return pa.schema(
            [rows.field(key) for key in self.keys]
            + [pa.field("window_start", self.time_type), pa.field("window_end", self.time_type)]
            + [pa.field(name, a.result_type(rows, "aggregate")) for name, a in self.aggregates]
        )

    def label(self) -> str:
        by = f" by {', '.join(self.keys)}" if self.keys else ""
        return f"tumbling {timedelta(microseconds=self.size)}{by}: {_named(self.aggregates)}"


@dataclass(frozen=True)
class _TwoInputs(Node):
    left: Node
    right: Node
    keys: tuple[str, ...]

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.left, self.right)

    def _check(self, where: str) -> None:
        if not self.keys:
            raise PlanError(f"{where}: on is empty; name at least one key column that both streams have")
        for key in self.keys:
            left = check_key(self.left.schema, key, f"{where}, left stream")
            right = check_key(self.right.schema, key, f"{where}, right stream")
            if left != right:
                raise PlanError(
                    f"{where}: key {key!r} is {left} on the left and {right} on the right; expected one type; cast "
                    "one side with map_batches"
                )
        _no_late(self.left, where)
        _no_late(self.right, where)
        _distinct(where, [f.name for f in self.schema])


@dataclass(frozen=True)
class Lookback(_TwoInputs):
    """For each left row at t, aggregates of the right rows of its key with t - over < time <= t."""

    over: int
    aggregates: Aggregates

    def __post_init__(self) -> None:
        if self.over <= 0:
            raise PlanError(f"lookback: over is {self.over} us; expected more than zero")
        _check_length(self.over, "lookback: over")
        if not self.aggregates:
            raise PlanError("lookback: no aggregate given; write for instance lookback(..., n=count())")
        _check_aggregates("lookback", self.aggregates)
        self._check("lookback")

    @property
    def schema(self) -> pa.Schema:
        rows = self.right.schema
        added = [pa.field(name, a.result_type(rows, "lookback")) for name, a in self.aggregates]
        return pa.schema([*self.left.schema, *added])

    def label(self) -> str:
        over = timedelta(microseconds=self.over)
        return f"lookback {over} on {', '.join(self.keys)}: {_named(self.aggregates)}"


@dataclass(frozen=True)
class Latest(_TwoInputs):
    """For each left row at t, `columns` of the right row of its key with the greatest time <= t.

    within: microseconds; a row at or before t - within counts as none. None looks back without end.
    """

    columns: tuple[str, ...]
    within: int | None

    def __post_init__(self) -> None:
        if self.within is not None and self.within <= 0:
            raise PlanError(f"latest: within is {self.within} us; expected more than zero")
        _check_length(self.within or 0, "latest: within")
        if not self.columns:
            raise PlanError("latest: no column to take from the right stream; name some with columns=")
        _need("latest, right stream", self.columns, self.right.schema)
        self._check("latest")

    @property
    def schema(self) -> pa.Schema:
        rows = self.right.schema
        added = [rows.field(name).with_nullable(True) for name in self.columns]
        return pa.schema([*self.left.schema, *added])

    def label(self) -> str:
        within = "" if self.within is None else f" within {timedelta(microseconds=self.within)}"
        return f"latest{within} on {', '.join(self.keys)}: {', '.join(self.columns)}"


def walk(*outputs: Node) -> Iterator[Node]:
    """Every distinct node once, inputs before those who take them."""
    seen: set[Node] = set()

    def visit(node: Node) -> Iterator[Node]:
        if node in seen:
            return
        for before in node.inputs:
            yield from visit(before)
        seen.add(node)
        yield node

    for output in outputs:
        yield from visit(output)


def sources(*outputs: Node) -> list[Source]:
    """The sources of a plan, in the order of `walk`."""
    return [node for node in walk(*outputs) if isinstance(node, Source)]


def positive(duration: timedelta, name: str) -> int:
    """A duration in microseconds; PlanError unless it is a timedelta above zero, and of a length that fits int64."""
    if not isinstance(duration, timedelta) or duration <= timedelta(0):
        raise PlanError(f"{name}={duration!r}; expected a timedelta above zero, such as timedelta(hours=1)")
    length = microseconds(duration)
    _check_length(length, name)
    return length


def _check_length(length: int, name: str) -> None:
    if length > LONGEST:
        longest = timedelta(microseconds=LONGEST).days
        raise PlanError(f"{name} is {length} us long; expected at most 2**62 us, {longest} days")


def _check_aggregates(where: str, aggregates: Aggregates) -> None:
    for name, aggregate in aggregates:
        if not isinstance(aggregate, Aggregate):
            raise PlanError(
                f"{where}: {name}={aggregate!r}; expected count(), or sum, mean, min or max of a column; write for "
                f"instance {name}=mean('COLUMN')"
            )


def _need(where: str, names: tuple[str, ...], schema: pa.Schema) -> None:
    for name in names:
        if name not in schema.names:
            raise PlanError(f"{where}: {name!r} is not a column; choose from {', '.join(schema.names)}")
    _distinct(where, list(names))


def _distinct(where: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise PlanError(
            f"{where}: column {', '.join(twice)} would stand twice in the result; give another name"
        )


def _no_late(node: Node, where: str) -> None:
    if any(isinstance(n, Late) for n in walk(node)):
        raise PlanError(
            f"{where}: late rows have no watermark to wait for; send them to a sink, or read that topic"
        )


def _named(aggregates: Aggregates) -> str:
    return ", ".join(f"{name}={aggregate}" for name, aggregate in aggregates)


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)


def _function_name(function: object) -> str:
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', '?')}.{name}"
