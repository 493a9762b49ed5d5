"""Kafka's framing and primitives, for the two APIs coded by hand; the others go through kio.

A request is ``length int32 | api key int16 | api version int16 | correlation id int32 | client id nullable string |
[tagged fields, in flexible versions] | body``. A reply is ``length int32 | correlation id int32 | [tagged fields] |
body``. Everything read is bounded by the frame, whose length is bounded by the broker; a count larger than the bytes
that could hold it is `Malformed` before anything is allocated.
Source: https://kafka.apache.org/protocol
"""

from __future__ import annotations

import struct
from typing import NamedTuple

__all__ = ["MAX_ITEMS", "FrameReader", "Malformed", "Request", "array", "string"]

MAX_ITEMS = 100_000

_I8, _I16, _I32, _I64 = (struct.Struct(f) for f in (">b", ">h", ">i", ">q"))


class Malformed(Exception):
    """Bytes that are no request: the connection is closed and nothing has changed."""


class Request(NamedTuple):
    """A framed request whose header was read; `body` is what follows the header."""

    api_key: int
    version: int
    correlation_id: int
    client_id: str | None
    body: memoryview


class FrameReader:
    """Reads big-endian primitives off a memoryview; raises `Malformed` instead of running over its end."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0
        self._items = 0

    def _take(self, size: int) -> int:
        start = self._at
        if size < 0 or start + size > len(self._data):
            raise Malformed(f"{size} bytes wanted at {start} of a frame of {len(self._data)}")
        self._at = start + size
        return start

    def int8(self) -> int:
        return int(_I8.unpack_from(self._data, self._take(1))[0])

    def int16(self) -> int:
        return int(_I16.unpack_from(self._data, self._take(2))[0])

    def int32(self) -> int:
        return int(_I32.unpack_from(self._data, self._take(4))[0])

    def int64(self) -> int:
        return int(_I64.unpack_from(self._data, self._take(8))[0])

    def nullable_string(self) -> str | None:
        length = self.int16()
        if length == -1:
            return None
        return self.text(length)

    def text(self, length: int) -> str:
        """`length` bytes as UTF-8."""
        try:
            return str(self.take(length), "utf-8")
        except UnicodeDecodeError as fault:
            raise Malformed("a string that isn't UTF-8") from fault

    def string(self) -> str:
        text = self.nullable_string()
        if text is None:
            raise Malformed("null where a string must stand")
        return text

    def view(self) -> memoryview | None:
        """Length-prefixed bytes, not copied."""
        length = self.int32()
        return None if length == -1 else self.take(length)

    def take(self, length: int) -> memoryview:
        """`length` bytes, not copied."""
        start = self._take(length)
        return self._data[start : start + length]

    def count(self, item_bytes: int) -> int:
        """The length of an array whose items take at least `item_bytes` each; null counts as empty."""
        count = self.int32()
        return 0 if count == -1 else self.items(count, item_bytes)

    def items(self, count: int, item_bytes: int) -> int:
        """`count` itself, if that many items can be there."""
        self._items += count
        if count < 0 or count * item_bytes > len(self._data) - self._at or self._items > MAX_ITEMS:
            raise Malformed(f"an array of {count} items in {len(self._data) - self._at} bytes")
        return count

    def skip_tags(self) -> None:
        """Step over the tagged fields that end a flexible header."""
        for _ in range(self.items(self.unsigned(), 2)):
            self.unsigned()
            self._take(self.unsigned())

    def unsigned(self) -> int:
        """An unsigned varint of at most 32 bits."""
        value = shift = 0
        while shift < 35:
            byte = self.int8() & 0xFF
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
        raise Malformed("a varint of more than five bytes")

    def rest(self) -> memoryview:
        return self._data[self._at :]

    def end(self) -> None:
        """The frame must be used up."""
        if self._at != len(self._data):
            raise Malformed(f"{len(self._data) - self._at} bytes left after the request")


def string(text: str) -> bytes:
    """A length-prefixed string."""
    encoded = text.encode()
    return _I16.pack(len(encoded)) + encoded


def array(items: list[bytes]) -> bytes:
    """A length-prefixed array of coded items."""
    return _I32.pack(len(items)) + b"".join(items)
