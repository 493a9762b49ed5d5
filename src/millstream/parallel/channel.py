"""Messages and file descriptors between two processes of one machine, over a pair of Unix sockets.

::

    bytes   4           8             4                 length of about     length of stream
          ┌───────────┬─────────────┬─────────────────┬───────────────────┬──────────────────┐
          │ length of │ length of   │ number of       │ about: a pickled  │ stream: bytes as │
          │ about     │ stream      │ descriptors     │ tuple             │ the sender liked │
          └───────────┴─────────────┴─────────────────┴───────────────────┴──────────────────┘

The descriptors ride on the first byte (SCM_RIGHTS, unix(7)). Both ends are ours: the sockets have no name that a
stranger could connect to, so pickle is read from ourselves alone.
"""

from __future__ import annotations

import pickle
import socket
import struct
from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

__all__ = ["Channel", "Message"]

HEAD = struct.Struct("<IQI")
MOST_DESCRIPTORS = 253  # SCM_MAX_FD of the kernel


class Message(NamedTuple):
    """`about` says what it is; `descriptors` belong to the receiver."""

    about: tuple[Any, ...]
    stream: memoryview
    descriptors: list[int]


class Channel:
    """One end. A timeout set on the socket bounds every wait; when it strikes, the channel is of no use any more."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end

    def fileno(self) -> int:
        return self.socket.fileno()

    def close(self) -> None:
        self.socket.close()

    def send(self, about: tuple[Any, ...], stream: bytes = b"", descriptors: Sequence[int] = ()) -> None:
        """Raises `OSError` if the other end is gone or does not take it in time."""
        packed = pickle.dumps(about, protocol=5)
        head = HEAD.pack(len(packed), len(stream), len(descriptors)) + packed
        riders = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
        sent = self.socket.sendmsg([head, stream], riders)
        if sent < len(head):
            self.socket.sendall(head[sent:])
            sent = len(head)
        if sent < len(head) + len(stream):
            self.socket.sendall(memoryview(stream)[sent - len(head) :])

    def receive(self) -> Message:
        """Waits for a message. Raises `EOFError` if the other end is closed, `OSError` if it does not come in time."""
        room = socket.CMSG_SPACE(MOST_DESCRIPTORS * array("i").itemsize)
        first, riders, _, _ = self.socket.recvmsg(HEAD.size, room, socket.MSG_CMSG_CLOEXEC)
        descriptors = array("i")
        for _, _, data in riders:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        head = bytearray(first)
        if len(head) < HEAD.size:
            head += self._exactly(HEAD.size - len(head), at_start=not head)
        n_about, n_stream, _ = HEAD.unpack(head)
        rest = memoryview(self._exactly(n_about + n_stream))
        about = pickle.loads(rest[:n_about])  # noqa: S301 - see above: our own process sent it
        return Message(about, rest[n_about:], list(descriptors))

    def _exactly(self, size: int, at_start: bool = False) -> bytearray:
        buffer = bytearray(size)
        view, got = memoryview(buffer), 0
        while got < size:
            n = 0 if at_start else self.socket.recv_into(view[got:])
            if n == 0:
                raise EOFError("the other process closed the channel")
            got += n
        return buffer
