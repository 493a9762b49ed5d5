"""Where the broker of a directory listens: ``DIR/broker.json``, beside the lock.

::

    {"host": "127.0.0.1", "port": 40123, "pid": 4711}

The file is a hint. `find` believes it only if the process it names holds the directory's lock now.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from millstream.log.lock import owner

__all__ = ["Address", "find", "publish", "withdraw"]

_FILE = "broker.json"


class Address(msgspec.Struct, frozen=True):
    """A running broker: where it listens, and the pid of its process."""

    host: str
    port: int
    pid: int

    @property
    def bootstrap(self) -> str:
        return f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return self.bootstrap


def find(directory: Path) -> Address | None:
    """The broker that serves `directory` now, or None."""
    try:
        address = msgspec.json.decode((directory / _FILE).read_bytes(), type=Address)
    except (OSError, msgspec.DecodeError):
        return None
    return address if owner(directory) == address.pid else None


def publish(directory: Path, address: Address) -> None:
    fresh = directory / f"{_FILE}.new"
    fresh.write_bytes(msgspec.json.encode(address))
    fresh.rename(directory / _FILE)


def withdraw(directory: Path) -> None:
    (directory / _FILE).unlink(missing_ok=True)
