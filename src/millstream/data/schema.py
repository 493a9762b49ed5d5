"""What the columns are called, what they hold, and what they are for.

A `Schema` is an Arrow schema with one `Role` a column. Features are what an estimator learns from, in the
order of the schema; at most one column is the target and at most one the weight. Everything else travels
along.

A feature column is a number, a Boolean (0.0 or 1.0), or a fixed-size list of floats, which stands for as
many features as the list is long and can be read as a matrix without a copy. A string may have the role of
a feature too: it can be carried, selected and encoded, but not turned into a block of numbers.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import pyarrow as pa

from millstream.errors import SchemaError

__all__ = ["Field", "Role", "Schema"]


class Role(enum.Enum):
    """What a column is for."""

    FEATURE = "feature"
    TARGET = "target"
    WEIGHT = "weight"
    KEY = "key"
    TIME = "time"
    OTHER = "other"


@dataclass(frozen=True)
class Field:
    """One column: its name, its Arrow type, its role.

    `columns` names the features inside a fixed-size list; left empty they are called ``name0``, ``name1``,
    ...

    >>> Field("X", pa.list_(pa.float32(), 2), Role.FEATURE).feature_names
    ('X0', 'X1')
    >>> Field("fare", pa.float64(), Role.FEATURE).feature_names
    ('fare',)
    """

    name: str
    type: pa.DataType
    role: Role
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.columns and not (self.is_matrix and len(self.columns) == self.type.list_size):
            raise SchemaError(
                f"column {self.name!r} of type {self.type} can't name {len(self.columns)} features; "
                "give as many names as the fixed-size list is long"
            )

    @property
    def is_matrix(self) -> bool:
        """True for a fixed-size list of float32 or float64."""
        return pa.types.is_fixed_size_list(self.type) and self.type.value_type in (pa.float32(), pa.float64())

    @property
    def is_number(self) -> bool:
        """True where a value is one number: integer, float, decimal or Boolean."""
        kind = pa.types
        return bool(
            kind.is_integer(self.type)
            or kind.is_floating(self.type)
            or kind.is_boolean(self.type)
            or kind.is_decimal(self.type)
            or kind.is_null(self.type)
        )

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The features this column stands for, in order."""
        if self.columns:
            return self.columns
        if self.is_matrix:
            return tuple(f"{self.name}{i}" for i in range(self.type.list_size))
        return (self.name,)


@dataclass(frozen=True)
class Schema:
    """The columns of a dataset, in order.

    >>> schema = Schema.of(pa.schema([("fare", pa.float64()), ("tip", pa.float64())]), target="tip")
    >>> schema.features, schema.target
    (('fare',), 'tip')
    >>> schema.with_roles(features=["tip"], target="fare").features
    ('tip',)
    """

    fields: tuple[Field, ...]

    def __post_init__(self) -> None:
        names = [field.name for field in self.fields]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise SchemaError(f"column names must differ; {twice} occur more than once: rename them")
        for role in (Role.TARGET, Role.WEIGHT):
            holders = [field.name for field in self.fields if field.role is role]
            if len(holders) > 1:
                raise SchemaError(f"at most one column is the {role.value}; got {holders}")

    @classmethod
    def of(
        cls,
        schema: pa.Schema,
        features: Iterable[str] | None = None,
        target: str | None = None,
        weight: str | None = None,
    ) -> Schema:
        """Give roles to an Arrow schema.

        Without `features` every column that is neither target nor weight is a feature; with it the others
        are OTHER.
        """
        fields = tuple(Field(field.name, field.type, Role.FEATURE) for field in schema)
        return cls(fields).with_roles(features=features, target=target, weight=weight)

    def with_roles(
        self, features: Iterable[str] | None = None, target: str | None = None, weight: str | None = None
    ) -> Schema:
        """The same columns with other roles; what is not given stays as it is.

        A column named here loses the role it had; a former target or weight becomes OTHER.
        """
        if isinstance(features, str):
            raise SchemaError(f"features={features!r} is one string; pass a list of column names")
        chosen = None if features is None else list(features)
        named = [*(chosen or ()), *(name for name in (target, weight) if name is not None)]
        self.require(named)
        twice = sorted({name for name in named if named.count(name) > 1})
        if twice:
            raise SchemaError(f"a column has one role; {twice} are given two")
        fields = (replace(field, role=_role(field, chosen, target, weight)) for field in self.fields)
        return Schema(tuple(fields))

    def require(self, names: Collection[str]) -> None:
        """Raise `SchemaError` naming the first of `names` that is not a column."""
        for name in names:
            if name not in self._by_name:
                raise SchemaError(f"no column {name!r}; the columns are {list(self.names)}")

    def select(self, names: Sequence[str]) -> Schema:
        """The named columns, in the order given."""
        self.require(names)
        return Schema(tuple(self[name] for name in names))

    def __getitem__(self, name: str) -> Field:
        self.require([name])
        return self._by_name[name]

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    @property
    def arrow(self) -> pa.Schema:
        """The same columns as an Arrow schema, without the roles."""
        return pa.schema([(field.name, field.type) for field in self.fields])

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Column names, in order."""
        return tuple(self._by_name)

    @cached_property
    def _by_name(self) -> dict[str, Field]:
        return {field.name: field for field in self.fields}

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the feature columns, in order."""
        return self._with(Role.FEATURE)

    @property
    def targets(self) -> tuple[str, ...]:
        """The target as a tuple of at most one name."""
        return self._with(Role.TARGET)

    @property
    def target(self) -> str | None:
        """Name of the target column, or None."""
        return next(iter(self.targets), None)

    @property
    def weight(self) -> str | None:
        """Name of the weight column, or None."""
        return next(iter(self._with(Role.WEIGHT)), None)

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features themselves: a fixed-size list counts as many as it is long."""
        return tuple(name for column in self.features for name in self[column].feature_names)

    @property
    def is_numeric(self) -> bool:
        """True if every feature can stand in a block of numbers."""
        return all(self[name].is_number or self[name].is_matrix for name in self.features)

    def _with(self, role: Role) -> tuple[str, ...]:
        return tuple(field.name for field in self.fields if field.role is role)


def _role(field: Field, features: list[str] | None, target: str | None, weight: str | None) -> Role:
    if field.name == target:
        return Role.TARGET
    if field.name == weight:
        return Role.WEIGHT
    replaced = (field.role is Role.TARGET and target is not None) or (
        field.role is Role.WEIGHT and weight is not None
    )
    if features is not None:
        if field.name in features:
            return Role.FEATURE
        return Role.OTHER if field.role is Role.FEATURE or replaced else field.role
    return Role.OTHER if replaced else field.role
