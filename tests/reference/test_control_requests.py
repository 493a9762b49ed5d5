"""Control requests as the broker reads them, against kio's own reader, in every API and version advertised."""

import contextlib
import dataclasses
import io
import random
import socket
import struct
import types
import typing
import uuid
from datetime import timedelta

import pytest
from kio.index import load_entity_module
from kio.serial import entity_reader, entity_writer
from kio.static.constants import EntityType

from millstream.log import Log
from millstream.log.apis import APIS, FETCH, PRODUCE
from millstream.log.schema_reader import request_reader
from millstream.log.wire import Malformed

VERSIONS = [
    (a, v) for a in APIS.values() if a.key not in (PRODUCE, FETCH) for v in range(a.oldest, a.newest + 1)
]
ids = [f"{api.name}-{version}" for api, version in VERSIONS]
PLAIN = {
    "int8": lambda r: r.randint(-128, 127),
    "int16": lambda r: r.randint(-(2**15), 2**15 - 1),
    "int32": lambda r: r.randint(-(2**31), 2**31 - 1),
    "int64": lambda r: r.randint(-(2**63), 2**63 - 1),
    "bool": lambda r: r.random() < 0.5,
    "string": lambda r: "é" * r.randint(0, 200),
    "bytes": lambda r: r.randbytes(r.randint(0, 300)),
    "uuid": lambda r: uuid.UUID(int=r.getrandbits(128) | 1),
    "timedelta_i32": lambda r: timedelta(milliseconds=r.randint(-(2**31), 2**31 - 1)),
    "timedelta_i64": lambda r: timedelta(milliseconds=r.randint(0, 2**40)),
}


def request_class(api, version):
    module = load_entity_module(api.name, version, EntityType.request)
    return getattr(module, "".join(w.capitalize() for w in api.name.split("_")) + "Request")


def example(entity, rng):
    hints = typing.get_type_hints(entity)
    return entity(
        **{
            f.name: value(f.metadata.get("kafka_type"), hints[f.name], rng)
            for f in dataclasses.fields(entity)
        }
    )


def value(kind, hint, rng):
    if isinstance(hint, types.UnionType):
        if rng.random() < 0.3:
            return None
        (hint,) = (a for a in typing.get_args(hint) if a is not type(None))
    if typing.get_origin(hint) is tuple:
        return tuple(value(kind, typing.get_args(hint)[0], rng) for _ in range(rng.randint(0, 3)))
    return example(hint, rng) if dataclasses.is_dataclass(hint) else PLAIN[kind](rng)


def coded(request):
    buffer = io.BytesIO()
    entity_writer(type(request))(buffer, request)
    return buffer.getvalue()


@pytest.mark.parametrize(("api", "version"), VERSIONS, ids=ids)
def test_requests_are_read_as_kio_reads_them(api, version):
    entity, rng = request_class(api, version), random.Random(version)
    read = request_reader(entity)
    for _ in range(20):
        body = coded(example(entity, rng))
        assert read(memoryview(body)) == entity_reader(entity)(body, 0)[0]


@pytest.mark.parametrize(("api", "version"), VERSIONS, ids=ids)
def test_any_bytes_are_a_request_or_malformed(api, version):
    entity, rng = request_class(api, version), random.Random(version)
    read = request_reader(entity)
    for _ in range(100):
        body = bytearray(coded(example(entity, rng)))
        if body and rng.random() < 0.7:
            body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
        body = (
            body[: rng.randrange(len(body) + 1)] if rng.random() < 0.5 else rng.randbytes(rng.randrange(60))
        )
        with contextlib.suppress(Malformed):
            read(memoryview(body))


def test_a_count_that_the_frame_cannot_hold_is_refused_before_it_is_believed():
    entity = request_class(APIS[3], 1)
    with pytest.raises(Malformed, match="an array of 1073741824 items in 0 bytes"):
        request_reader(entity)(memoryview((1 << 30).to_bytes(4, "big")))


def test_whatever_well_formed_requests_ask_they_are_answered(tmp_path):
    """Random values in every field: errors in the answer, but no hang-up and no harm to the broker."""
    rng = random.Random(3)
    with Log(tmp_path) as log:
        host, port = log.bootstrap.split(":")
        for api, version in VERSIONS * 8:
            request = example(request_class(api, version), rng)
            if api.name == "metadata" and version < 12 and any(t.name is None for t in request.topics or ()):
                continue  # by id: possible to ask before 12, not to answer
            body = (b"\0" if version >= api.flexible else b"") + coded(request)
            with socket.create_connection((host, int(port)), timeout=20) as client:
                client.sendall(struct.pack(">ihhih", 10 + len(body), api.key, version, 77, -1) + body)
                assert client.recv(8)[4:] == struct.pack(">i", 77), (api.name, version, request)
        assert log.create_topic("after", format="bytes").end_offsets() == [0]
