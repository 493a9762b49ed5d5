"""Roles: who gets them, and what is refused."""

from __future__ import annotations

import pyarrow as pa
import pytest

from millstream.data import Field, Role, Schema
from millstream.errors import SchemaError

COLUMNS = pa.schema(
    [("lat", pa.float64()), ("carrier", pa.string()), ("late", pa.bool_()), ("w", pa.int64())]
)


def roles(schema: Schema) -> list[str]:
    return [field.role.value for field in schema.fields]


def test_every_column_left_over_is_a_feature() -> None:
    schema = Schema.of(COLUMNS, target="late", weight="w")
    assert roles(schema) == ["feature", "feature", "target", "weight"]
    assert (schema.features, schema.targets, schema.weight) == (("lat", "carrier"), ("late",), "w")


def test_named_features_leave_the_others_other() -> None:
    assert roles(Schema.of(COLUMNS, features=["lat"], target="late")) == [
        "feature",
        "other",
        "target",
        "other",
    ]


def test_with_roles_moves_the_target_and_keeps_what_is_not_named() -> None:
    schema = Schema.of(COLUMNS, target="late", weight="w").with_roles(target="lat")
    assert roles(schema) == ["target", "feature", "other", "weight"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "tardy"}, r"no column 'tardy'; the columns are \['lat', 'carrier', 'late', 'w'\]"),
        ({"features": ["lat", "lat"]}, r"\['lat'\] are given two"),
        ({"features": ["late"], "target": "late"}, r"\['late'\] are given two"),
        ({"features": "lat"}, "pass a list"),
    ],
)
def test_bad_names_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        Schema.of(COLUMNS, **arguments)


def test_a_name_occurs_once() -> None:
    with pytest.raises(SchemaError, match=r"\['a'\] occur more than once"):
        Schema((Field("a", pa.int64(), Role.FEATURE), Field("a", pa.int64(), Role.OTHER)))


def test_select_orders_and_keeps_roles() -> None:
    schema = Schema.of(COLUMNS, target="late").select(["late", "lat"])
    assert schema.names == ("late", "lat")
    assert schema.target == "late"
    assert schema.arrow == pa.schema([("late", pa.bool_()), ("lat", pa.float64())])


def test_a_fixed_size_list_is_as_many_features_as_it_is_long() -> None:
    schema = Schema.of(pa.schema([("e", pa.list_(pa.float32(), 3)), ("f", pa.int8())]))
    assert schema.feature_names == ("e0", "e1", "e2", "f")
    with pytest.raises(SchemaError, match="2 features"):
        Field("e", pa.list_(pa.float32(), 3), Role.FEATURE, ("a", "b"))
