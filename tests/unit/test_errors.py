"""The exception tree is drawn as it is."""

import re

import pytest

from millstream import errors


def drawn_tree() -> dict[str, set[str]]:
    """Name of each exception in the docstring -> names of the bases drawn for it."""
    bases: dict[str, set[str]] = {"MillstreamError": {"Exception"}}
    stack = ["MillstreamError"]
    for line in errors.__doc__.splitlines():
        match = re.match(r"\s{4}((?:[│ ]   )*)[├└]── (\w+)(?: \((\w+)\))?", line)
        if match:
            depth = len(match[1]) // 4
            del stack[depth + 1 :]
            bases[match[2]] = {stack[depth], match[3]} if match[3] else {stack[depth]}
            stack.append(match[2])
    return bases


def test_the_drawing_is_the_tree():
    actual = {name: {base.__name__ for base in getattr(errors, name).__bases__} for name in errors.__all__}
    assert drawn_tree() == actual


@pytest.mark.parametrize("name", errors.__all__)
def test_messages_are_printed_as_written(name):
    assert str(getattr(errors, name)("no topic 'a'; create it first")) == "no topic 'a'; create it first"
