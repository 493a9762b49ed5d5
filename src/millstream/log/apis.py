"""The APIs that the broker speaks: one table, from which the advertised versions, the coding and the dispatch come.

Produce and Fetch are coded by hand (:mod:`millstream.log.produce`, :mod:`millstream.log.fetch`); every other message
is a kio dataclass of its version. A handler fills fields by name; a field that the version at hand doesn't have
is left out by `Codec.build`, so one handler serves all versions of its API.
"""

from __future__ import annotations

import functools
import io
from typing import Any, NamedTuple

from kio.index import load_entity_module
from kio.schema.errors import ErrorCode
from kio.serial import entity_writer
from kio.static.constants import EntityType

from millstream.errors import LogError, LogFull
from millstream.log.schema_reader import request_reader
from millstream.log.wire import FrameReader, Malformed, Request

__all__ = [
    "APIS",
    "API_VERSIONS",
    "FETCH",
    "PRODUCE",
    "Api",
    "Codec",
    "codec",
    "read_request",
    "storage_error",
]

PRODUCE, FETCH, API_VERSIONS = 0, 1, 18
CONTROL_BYTES = 4 << 20


class Api(NamedTuple):
    """`flexible` is the first version with compact strings and tagged fields."""

    key: int
    name: str
    oldest: int
    newest: int
    flexible: int


APIS = {
    api.key: api
    for api in (
        Api(PRODUCE, "produce", 3, 8, 9),
        Api(FETCH, "fetch", 4, 11, 12),
        Api(2, "list_offsets", 1, 6, 6),
        Api(3, "metadata", 0, 12, 9),
        Api(8, "offset_commit", 2, 8, 8),
        Api(9, "offset_fetch", 1, 7, 6),
        Api(10, "find_coordinator", 0, 3, 3),
        Api(11, "join_group", 0, 7, 6),
        Api(12, "heartbeat", 0, 4, 4),
        Api(13, "leave_group", 0, 5, 4),
        Api(14, "sync_group", 0, 5, 4),
        Api(API_VERSIONS, "api_versions", 0, 3, 3),
        Api(19, "create_topics", 2, 5, 5),
        Api(20, "delete_topics", 1, 5, 4),
        Api(22, "init_producer_id", 0, 4, 2),
    )
}


def read_request(frame: memoryview) -> Request:
    """Split a frame into header and body.

    Raises `Malformed` for bytes that are no request, for an API or a version that isn't advertised (ApiVersions
    excepted, which is answered in any version, KIP-511), and for more than `CONTROL_BYTES` of anything but Produce.
    """
    reader = FrameReader(frame)
    key, version, correlation_id = reader.int16(), reader.int16(), reader.int32()
    api = APIS.get(key)
    if api is None or version < 0:
        raise Malformed(f"API {key} version {version} is not spoken here")
    if key != API_VERSIONS and not api.oldest <= version <= api.newest:
        raise Malformed(f"{api.name} version {version}; expected {api.oldest} to {api.newest}")
    if key != PRODUCE and len(frame) > CONTROL_BYTES:
        raise Malformed(f"{len(frame)} bytes of {api.name}; at most {CONTROL_BYTES} are taken")
    client_id = reader.nullable_string()
    if version >= api.flexible:
        reader.skip_tags()
    return Request(key, version, correlation_id, client_id, reader.rest())


class Codec:
    """Reads and builds the messages of one version of one API; `read` turns a body into a request, or `Malformed`."""

    def __init__(self, api: Api, version: int) -> None:
        request = load_entity_module(api.name, version, EntityType.request)
        self._response = load_entity_module(api.name, version, EntityType.response)
        stem = "".join(word.capitalize() for word in api.name.split("_"))
        self.read = request_reader(getattr(request, f"{stem}Request"))
        self._top = f"{stem}Response"
        self._write = entity_writer(getattr(self._response, self._top))
        self._fields = {
            name: set(entity.__dataclass_fields__)
            for name, entity in vars(self._response).items()
            if hasattr(entity, "__dataclass_fields__")
        }

    def build(self, entity: str, **values: object) -> Any:
        """A part of the response, of the fields among `values` that this version has."""
        known = self._fields[entity]
        return getattr(self._response, entity)(**{k: v for k, v in values.items() if k in known})

    def reply(self, **values: object) -> bytes:
        """The coded body of the response."""
        buffer = io.BytesIO()
        self._write(buffer, self.build(self._top, **values))
        return buffer.getvalue()


def storage_error(fault: LogError) -> ErrorCode:
    """How a client is told: a full disk may have room later, so that error is one which clients retry."""
    return ErrorCode.kafka_storage_error if isinstance(fault, LogFull) else ErrorCode.unknown_server_error


@functools.cache
def codec(key: int, version: int) -> Codec:
    return Codec(APIS[key], version)
