"""Whether the functions of a plan are those of its checkpoint: a digest of their code.

Byte code, constants and names, of nested functions too; neither file nor line, so that a function may move. Values that
a function closes over or imports are no part of it, and byte code differs between versions of Python, so digests of two
versions are not compared.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from collections.abc import Sequence
from types import CodeType

from millstream.stream.plan import Filter, MapBatches, Node, walk

__all__ = ["changed", "digest_of_functions"]


def digest_of_functions(plans: Sequence[Node]) -> str:
    """``VERSION:SHA-256`` of the filters' and maps' code, in the plan's order; empty where the plan has none."""
    steps = list(walk(*plans))
    functions = [n.predicate if isinstance(n, Filter) else n.function for n in steps if isinstance(n, _OWN)]
    if not functions:
        return ""
    spelled = "\n".join(map(_spelled, functions))
    return f"{_PYTHON}:{hashlib.sha256(spelled.encode()).hexdigest()}"


def changed(before: str, now: str) -> bool:
    """Whether two digests differ that can be compared."""
    return bool(before and now) and before.split(":")[0] == now.split(":")[0] and before != now


_OWN = Filter | MapBatches
_PYTHON = sys.implementation.cache_tag


def _spelled(function: object) -> str:
    """The code behind a callable; nothing for one that isn't written in Python."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function) if callable(function) else function
    code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
    return _code(code) if isinstance(code, CodeType) else ""


def _code(code: CodeType) -> str:
    constants = [_constant(value) for value in code.co_consts]
    return f"({code.co_code.hex()} {constants} {code.co_names} {code.co_varnames})"


def _constant(value: object) -> str:
    if isinstance(value, CodeType):
        return _code(value)
    if isinstance(value, frozenset):  # its order changes with the hash seed
        return f"frozenset({sorted(map(_constant, value))})"
    if isinstance(value, tuple):
        return f"({', '.join(map(_constant, value))})"
    return repr(value)
