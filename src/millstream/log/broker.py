"""The broker: a process that serves a directory to Kafka clients on loopback.

`serve` runs in the foreground until SIGINT or SIGTERM; ``python -m millstream.log.broker`` is the child that
:class:`millstream.Log` starts, which also ends when its parent does, however the parent died.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import ipaddress
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import uvloop

from millstream.clock import SystemClock
from millstream.errors import AddressInUse, InputError, LogError
from millstream.log.address import Address, publish, withdraw
from millstream.log.connection import Connection
from millstream.log.node import Limits, Node
from millstream.log.store import Store

__all__ = ["Ready", "serve"]

_PARENT_CHECK_SECONDS = 0.5
_GOODBYE_SECONDS = 5.0


class Ready(msgspec.Struct):
    """The line a child writes once it serves, or once it knows that it can't (`error` names the exception)."""

    address: Address | None = None
    error: str = ""
    message: str = ""


def serve(
    directory: str | os.PathLike[str],
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    on_ready: Callable[[Address], None] | None = None,
    auto_create: int | None = None,
    limits: Limits | None = None,
    parent: int | None = None,
) -> None:
    """Serve `directory` until SIGINT or SIGTERM; call from the main thread.

    `port` 0 takes a free one. `on_ready` is called with the address once clients can connect. `auto_create` gives
    topics that a client names in Metadata that many partitions; None creates nothing unasked. With `parent`, also
    stop when the process of that pid is no longer our parent.

    Raises `LogLocked` (another process owns the directory, named by pid), `LogError` (the directory can't be
    written), `AddressInUse` (the port is taken) and `InputError` (`host` isn't loopback).
    """
    listener = _listen(host, port)
    try:
        with Store(directory) as store:
            address = Address(host, listener.getsockname()[1], os.getpid())
            node = Node(
                store, host, address.port, SystemClock(), limits=limits or Limits(), auto_create=auto_create
            )
            try:
                asyncio.Runner(loop_factory=uvloop.new_event_loop).run(
                    _run(node, listener, address, on_ready, parent)
                )
            finally:
                withdraw(store.directory)
    finally:
        listener.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback:
        raise InputError(
            f"host {host!r}: the broker has neither TLS nor authentication, so it binds to loopback only; "
            "use 127.0.0.1"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as fault:
        listener.close()
        if fault.errno == errno.EADDRINUSE:
            raise AddressInUse(
                f"port {port} of {host} is taken; stop the process that listens there, or pass port=0 for a free one"
            ) from fault
        raise InputError(f"can't listen on {host}:{port}: {fault.strerror}") from fault
    listener.setblocking(False)
    return listener


async def _run(
    node: Node,
    listener: socket.socket,
    address: Address,
    on_ready: Callable[[Address], None] | None,
    parent: int | None,
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    connections: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(connections) >= node.limits.connections:
            writer.close()
            return
        task = loop.create_task(Connection(node, reader, writer).serve())
        connections.add(task)
        task.add_done_callback(connections.discard)

    server = await asyncio.start_server(accept, sock=listener)
    publish(node.store.directory, address)
    if on_ready is not None:
        on_ready(address)
    await _stopped(stop, parent)
    server.close()
    for task in list(connections):
        task.cancel()
    if connections:
        await asyncio.wait(connections, timeout=_GOODBYE_SECONDS)
    await node.commits.close()


async def _stopped(stop: asyncio.Event, parent: int | None) -> None:
    """Return on a signal, or once `parent` is gone: then the kernel has given us another one."""
    while parent is None or os.getppid() == parent:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if parent is None else _PARENT_CHECK_SECONDS):
                await stop.wait()
                return


def _child() -> None:
    parser = argparse.ArgumentParser(prog="python -m millstream.log.broker")
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--parent", type=int, required=True)
    asked = parser.parse_args()

    def report(ready: Ready) -> None:
        sys.stdout.write(msgspec.json.encode(ready).decode() + "\n")
        sys.stdout.flush()

    try:
        serve(
            asked.dir, port=asked.port, parent=asked.parent, on_ready=lambda address: report(Ready(address))
        )
    except (LogError, AddressInUse, InputError) as fault:
        report(Ready(error=type(fault).__name__, message=str(fault)))
        sys.exit(1)


if __name__ == "__main__":
    _child()
