"""The public names are what they say: each resolves, and the list for type checkers is the same list."""

import ast
from pathlib import Path

import pytest

import millstream as ms


@pytest.mark.parametrize("name", ms.__all__)
def test_every_public_name_resolves(name):
    assert getattr(ms, name) is not None


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(ms.__file__).read_text())
    guard = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        (statement.module, alias.asname or alias.name)
        for statement in guard.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert seen == {(package, name) for name, package in ms._PACKAGE_OF.items()}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'kmeans'"):
        ms.kmeans  # noqa: B018
