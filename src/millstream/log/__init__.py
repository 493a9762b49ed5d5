"""What happened: a durable, replayable log that Kafka's clients speak to.

::

    store      record_batch < segment < partition < store       synchronous, no sockets
    groups     group, committed                                 state machines; their state is records
    broker     wire, apis, *_apis < connection < broker         a child process on loopback
    programs   Log, Topic, Consumer, read_topic                 this package's public names

Names are loaded on first use, so that the broker's process stays small.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from millstream.log.broker import serve
    from millstream.log.consumer import Chunk, Consumer, TailRecord
    from millstream.log.log import Log, broker_of
    from millstream.log.snapshot import read_topic
    from millstream.log.topic import Topic

_HOME = {
    "Chunk": "consumer",
    "Consumer": "consumer",
    "Log": "log",
    "TailRecord": "consumer",
    "Topic": "topic",
    "broker_of": "log",
    "read_topic": "snapshot",
    "serve": "broker",
}

__all__ = ["Chunk", "Consumer", "Log", "TailRecord", "Topic", "broker_of", "read_topic", "serve"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
