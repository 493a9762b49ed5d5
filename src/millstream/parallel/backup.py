"""What a lost shard is recovered from.

A `ShardServer` is a function of its messages, so there are two ways to have it twice: hand every message to a second
one at once (a replica: twice the memory, recovery in no time), or keep a snapshot and the messages since (a journal:
recovery takes as long as handling them again). Either gives the same bits.
"""

from __future__ import annotations

from typing import Protocol

from millstream.parallel.shard_messages import Clock, Message, Push
from millstream.parallel.shard_server import ShardServer

__all__ = ["Backup", "Journal", "Replica"]


class Backup(Protocol):
    """Law: `recover` is a server in the state that the recorded messages left the first one in, and may be called
    again after more of them. Pulls change nothing and need not be recorded."""

    def record(self, message: Message, server: ShardServer, /) -> None:
        """`server` has handled the message."""
        ...

    def recover(self) -> ShardServer: ...


class Replica:
    """A second server, always as far as the first."""

    def __init__(self, server: ShardServer) -> None:
        self._twin = server.copy()

    def record(self, message: Message, server: ShardServer) -> None:
        self._twin.handle(message)

    def recover(self) -> ShardServer:
        return self._twin.copy()


class Journal:
    """A snapshot, made again every `every` messages, and the pushes and clocks since."""

    def __init__(self, server: ShardServer, every: int = 1000) -> None:
        self._every = every
        self._snapshot, self._since = server.copy(), list[Push | Clock]()

    def record(self, message: Message, server: ShardServer) -> None:
        if isinstance(message, Push | Clock):
            self._since.append(message)
        if len(self._since) >= self._every:
            self._snapshot, self._since = server.copy(), []

    def recover(self) -> ShardServer:
        server = self._snapshot.copy()
        for message in self._since:
            server.handle(message)
        return server
