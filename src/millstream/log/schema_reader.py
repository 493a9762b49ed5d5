"""Reads control requests by kio's schemas, with every count checked before it is believed.

kio's own reader reserves memory for as many items as a frame claims, so forty bytes can end the process; its
schemas, the dataclasses made from Kafka's message definitions, are what this reader follows. An array or
a field may take no more than the frame has left, and a frame no more than `MAX_ITEMS` array items in all.
The forms follow https://kafka.apache.org/protocol#protocol_types.
"""

from __future__ import annotations

import types
import typing
import uuid
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from datetime import timedelta
from typing import Any, TypeAlias

from millstream.log.wire import FrameReader, Malformed

__all__ = ["request_reader"]

Read: TypeAlias = Callable[[FrameReader], Any]

_FIXED: dict[str, Read] = {
    "int8": FrameReader.int8,
    "int16": FrameReader.int16,
    "int32": FrameReader.int32,
    "int64": FrameReader.int64,
    "bool": lambda frame: frame.int8() != 0,
    "uuid": lambda frame: uuid.UUID(bytes=raw) if any(raw := bytes(frame.take(16))) else None,
    "timedelta_i32": lambda frame: timedelta(milliseconds=frame.int32()),
    "timedelta_i64": lambda frame: _long_duration(frame.int64()),
}


def request_reader(entity: type) -> Callable[[memoryview], Any]:
    """A function from a request's body to an instance of `entity`; it raises `Malformed`.

    Bytes left after the last field are let go, as Kafka does: librdkafka 2.16 sends three after Metadata 12.
    """
    read = _entity(entity)
    return lambda body: read(FrameReader(body))


def _entity(entity: Any) -> Read:
    hints = typing.get_type_hints(entity)
    flexible = entity.__flexible__
    readers = [
        (f.name, _field(f.metadata.get("kafka_type"), hints[f.name], flexible)) for f in fields(entity)
    ]

    def read(frame: FrameReader) -> Any:
        values = {name: reader(frame) for name, reader in readers}
        if flexible:
            frame.skip_tags()
        return entity(**values)

    return read


def _field(kind: str | None, hint: Any, flexible: bool) -> Read:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    nullable = type(None) in options
    (plain,) = (option for option in options if option is not type(None))
    if typing.get_origin(plain) is tuple:
        return _array(_field(kind, typing.get_args(plain)[0], flexible), nullable, flexible)
    if is_dataclass(plain):
        return _entity(plain)
    assert kind is not None
    if kind in _FIXED:
        return _FIXED[kind]
    return _sized(FrameReader.text if kind == "string" else FrameReader.take, kind, nullable, flexible)


def _sized(content: Callable[[FrameReader, int], Any], kind: str, nullable: bool, flexible: bool) -> Read:
    length_of: Callable[[FrameReader], int] = FrameReader.int16 if kind == "string" else FrameReader.int32
    if flexible:
        length_of = _compact_length

    def read(frame: FrameReader) -> Any:
        length = length_of(frame)
        if length == -1:
            _check_nullable(kind, nullable)
            return None
        return content(frame, length)

    return read


def _array(item: Read, nullable: bool, flexible: bool) -> Read:
    length_of = _compact_length if flexible else FrameReader.int32

    def read(frame: FrameReader) -> tuple[Any, ...] | None:
        length = length_of(frame)
        if length == -1:
            _check_nullable("array", nullable)
            return None
        return tuple([item(frame) for _ in range(frame.items(length, 1))])

    return read


def _compact_length(frame: FrameReader) -> int:
    return frame.unsigned() - 1


def _check_nullable(kind: str, nullable: bool) -> None:
    if not nullable:
        raise Malformed(f"null where {kind} must stand")


def _long_duration(milliseconds: int) -> timedelta:
    try:
        return timedelta(milliseconds=milliseconds)
    except OverflowError as fault:
        raise Malformed(f"a duration of {milliseconds} ms") from fault
