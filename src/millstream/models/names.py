"""Names of models and aliases, and references such as ``zones@production`` or ``zones@3``.

A name becomes part of a URL, of a topic's metadata and of a message, so it is checked once, here: letters,
digits, ``_``, ``-`` and ``.``, starting with a letter (an alias) or a letter or digit (a model). No slash, no
``..``: a name can't leave the registry's folder. An alias never starts with a digit, so what follows ``@`` is
a version number or an alias and never both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from millstream.errors import InputError

__all__ = ["Reference", "alias_name", "model_name"]

_MODEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.)){0,99}")
_ALIAS = re.compile(r"[A-Za-z](?:[A-Za-z0-9_-]|\.(?!\.)){0,99}")


def model_name(name: str) -> str:
    """`name` itself, once it is known to be a model's name.

    >>> model_name("flight-delay.v2")
    'flight-delay.v2'
    >>> model_name("../zones")
    Traceback (most recent call last):
    millstream.errors.InputError: '../zones' is no model name: expected 1 to 100 letters, ...
    """
    if not isinstance(name, str) or not _MODEL.fullmatch(name):
        raise InputError(
            f"{name!r} is no model name: expected 1 to 100 letters, digits, '_', '-' or '.', "
            "starting with a letter or digit and without '..'; choose such a name"
        )
    return name


def alias_name(alias: str) -> str:
    """`alias` itself, once it is known to be an alias.

    >>> alias_name("production")
    'production'
    """
    if not isinstance(alias, str) or not _ALIAS.fullmatch(alias):
        raise InputError(
            f"{alias!r} is no alias: expected 1 to 100 letters, digits, '_', '-' or '.', "
            "starting with a letter and without '..'; choose such a name, 'production' say"
        )
    return alias


@dataclass(frozen=True)
class Reference:
    """Which version of which model: by number, or by the alias that points to it."""

    name: str
    number: int | None
    alias: str | None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read ``name@alias`` or ``name@number``.

        >>> Reference.parse("zones@production")
        Reference(name='zones', number=None, alias='production')
        >>> Reference.parse("zones@3").number
        3
        """
        name, at, which = text.partition("@")
        if not at or not which:
            raise InputError(
                f"{text!r} names no version: expected 'name@alias' or 'name@number', "
                f"'{name or 'zones'}@production' say"
            )
        if which.isascii() and which.isdigit():
            return cls(model_name(name), int(which), None)
        return cls(model_name(name), None, alias_name(which))
