"""What a topic may be called: Kafka's rule, which also keeps a name inside its directory.

Source: org.apache.kafka.common.internals.Topic, `validate`.
"""

from __future__ import annotations

import re

from millstream.errors import InputError

__all__ = ["check_topic_name"]

_LEGAL = re.compile(r"[A-Za-z0-9._-]{1,249}\Z")


def check_topic_name(name: str) -> str:
    """`name` itself, or `InputError`.

    >>> check_topic_name("clicks.per-minute_2")
    'clicks.per-minute_2'
    >>> check_topic_name("../etc")
    Traceback (most recent call last):
        ...
    millstream.errors.InputError: topic name '../etc': expected 1 to 249 of A-Z a-z 0-9 . _ - and neither '.' nor '..'
    """
    if name in (".", "..") or not _LEGAL.match(name):
        raise InputError(
            f"topic name {name!r}: expected 1 to 249 of A-Z a-z 0-9 . _ - and neither '.' nor '..'"
        )
    return name
