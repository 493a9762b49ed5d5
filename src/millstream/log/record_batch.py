"""Record batch v2, the one format of the log: on disk, on the wire and in a reader's memory map.

::

    offset  type   field                   meaning
    0       int64  base offset             offset of the first record; set by the broker on append
    8       int32  batch length            bytes that follow this field: the whole batch is 12 + length
    12      int32  partition leader epoch  set by the broker on append
    16      int8   magic                   2
    17      uint32 CRC-32C                 over byte 21 to the end of the batch
    21      int16  attributes              bits 0-2 codec (none, gzip, snappy, lz4, zstd), bit 3 timestamp type
                                           (0 create time, 1 append time), bit 4 transactional, bit 5 control
    23      int32  last offset delta       offset of the last record, less the base offset
    27      int64  base timestamp          milliseconds since 1970 UTC
    35      int64  max timestamp
    43      int64  producer id             -1: the producer is not idempotent
    51      int16  producer epoch
    53      int32  base sequence
    57      int32  records count
    61      ...    records                 compressed as one block when the codec is not 0

The CRC starts at byte 21, so the broker patches base offset and leader epoch in place and never touches what the
producer signed. A record is ``length varint | attributes int8 | timestamp delta varlong | offset delta varint |
key length varint, key | value length varint, value | headers count varint, headers``, every varint zigzag; a
length of -1 is null. Source: https://kafka.apache.org/documentation/#recordbatch

This module codes and decodes in plain Python, which suits internal topics and is the reference for the kernels
of :mod:`millstream.kernels.records`, which read millions.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from crc32c import crc32c

from millstream.errors import CorruptBatch
from millstream.log.compression import decompress

__all__ = ["HEADER_BYTES", "BatchHeader", "Record", "check", "decode", "encode", "peek", "placed", "walk"]

HEADER_BYTES = 61
CRC_FROM = 21
LENGTH_FIELD_END = 12

_HEADER = struct.Struct(">qiibIhiqqqhii")
_PLACE = struct.Struct(">qii")

CODEC_MASK = 0x07
TRANSACTIONAL = 0x10
CONTROL = 0x20


class BatchHeader(NamedTuple):
    """The fixed part of a batch, as drawn above."""

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    n_records: int

    @property
    def size(self) -> int:
        """Bytes of the whole batch, header included."""
        return LENGTH_FIELD_END + self.length

    @property
    def next_offset(self) -> int:
        return self.base_offset + self.last_offset_delta + 1


class Record(NamedTuple):
    """One event. `timestamp` is in milliseconds since 1970 UTC, Kafka's unit."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


def peek(data: memoryview | bytes, position: int = 0) -> BatchHeader:
    """The header at `position`; raises `CorruptBatch` when no v2 header can stand there."""
    if len(data) - position < HEADER_BYTES:
        raise CorruptBatch(
            f"{len(data) - position} bytes left at {position}; a batch header takes {HEADER_BYTES}"
        )
    header = BatchHeader._make(_HEADER.unpack_from(data, position))
    if header.magic != 2:
        raise CorruptBatch(f"magic {header.magic} at byte {position}; this log stores record batch v2 only")
    if header.size < HEADER_BYTES:
        raise CorruptBatch(f"batch length {header.length} at byte {position} is shorter than a header")
    if header.n_records < 0 or header.last_offset_delta < 0:
        raise CorruptBatch(
            f"{header.n_records} records up to delta {header.last_offset_delta} at byte {position}"
        )
    return header


def check(data: memoryview) -> BatchHeader:
    """The header of `data`, which must be exactly one batch whose CRC holds; else `CorruptBatch`."""
    header = peek(data)
    if header.size != len(data):
        raise CorruptBatch(f"batch length says {header.size} bytes, {len(data)} are there")
    computed = crc32c(data[CRC_FROM:])
    if computed != header.crc:
        raise CorruptBatch(f"CRC-32C is {computed:#010x}, the header says {header.crc:#010x}")
    return header


def walk(data: memoryview) -> Iterator[tuple[int, BatchHeader]]:
    """(position, header) of each whole batch; a part of a batch at the end is left out, as Fetch may cut there."""
    position = 0
    while len(data) - position >= HEADER_BYTES:
        header = peek(data, position)
        if position + header.size > len(data):
            return
        yield position, header
        position += header.size


def placed(data: memoryview, base_offset: int, leader_epoch: int) -> list[memoryview]:
    """The batch as two buffers to write, with offset and epoch patched; the signed part is not copied."""
    (length,) = struct.unpack_from(">i", data, 8)
    return [memoryview(_PLACE.pack(base_offset, length, leader_epoch)), data[_PLACE.size :]]


def encode(records: Sequence[Record], base_offset: int = 0, leader_epoch: int = -1) -> bytes:
    """An uncompressed batch of `records`; their own offsets are ignored, they follow `base_offset` in order.

    >>> batch = encode([Record(0, 1_700_000_000_000, b"k", b"v")], base_offset=41)
    >>> len(batch), decode(memoryview(batch))
    (70, [Record(offset=41, timestamp=1700000000000, key=b'k', value=b'v', headers=())])
    """
    if not records:
        raise ValueError("a batch holds at least one record")
    base_timestamp = records[0].timestamp
    body = b"".join(_encode_record(i, r, r.timestamp - base_timestamp) for i, r in enumerate(records))
    latest = max(r.timestamp for r in records)
    signed = (
        struct.pack(">hiqqqhii", 0, len(records) - 1, base_timestamp, latest, -1, -1, -1, len(records)) + body
    )
    length = len(signed) + CRC_FROM - LENGTH_FIELD_END
    return struct.pack(">qiibI", base_offset, length, leader_epoch, 2, crc32c(signed)) + signed


def decode(data: memoryview) -> list[Record]:
    """The records of one batch whose CRC was checked; raises `CorruptBatch` if the records don't fill it."""
    header = peek(data)
    codec = header.attributes & CODEC_MASK
    body = bytes(data[HEADER_BYTES : header.size])
    if codec:
        body = decompress(codec, body)
    records, position = [], 0
    try:
        for _ in range(header.n_records):
            record, position = _decode_record(body, position, header)
            records.append(record)
    except (IndexError, UnicodeDecodeError) as fault:
        raise CorruptBatch(
            f"batch at offset {header.base_offset}: record {len(records)} is cut short"
        ) from fault
    return records


def _encode_record(delta: int, record: Record, timestamp_delta: int) -> bytes:
    out = bytearray(b"\0")
    _put_varint(out, timestamp_delta)
    _put_varint(out, delta)
    _put_bytes(out, record.key)
    _put_bytes(out, record.value)
    _put_varint(out, len(record.headers))
    for name, value in record.headers:
        _put_bytes(out, name.encode())
        _put_bytes(out, value)
    prefix = bytearray()
    _put_varint(prefix, len(out))
    return bytes(prefix + out)


def _put_varint(out: bytearray, value: int) -> None:
    value = (value << 1) ^ (value >> 63)
    while value > 0x7F:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)


def _put_bytes(out: bytearray, value: bytes | None) -> None:
    _put_varint(out, -1 if value is None else len(value))
    out += value or b""


def _decode_record(body: bytes, position: int, header: BatchHeader) -> tuple[Record, int]:
    length, position = _varint(body, position)
    end = position + length
    if length < 0 or end > len(body):
        raise IndexError(end)
    timestamp_delta, position = _varint(body, position + 1)
    offset_delta, position = _varint(body, position)
    key, position = _bytes(body, position)
    value, position = _bytes(body, position)
    count, position = _varint(body, position)
    headers = []
    for _ in range(count):
        name, position = _bytes(body, position)
        content, position = _bytes(body, position)
        headers.append(((name or b"").decode(), content))
    if position != end:
        raise IndexError(position)
    timestamp = header.base_timestamp + timestamp_delta
    return Record(header.base_offset + offset_delta, timestamp, key, value, tuple(headers)), end


def _varint(body: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = body[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), position
        shift += 7
        if shift > 63:
            raise IndexError(position)


def _bytes(body: bytes, position: int) -> tuple[bytes | None, int]:
    length, position = _varint(body, position)
    if length < 0:
        return None, position
    if position + length > len(body):
        raise IndexError(position + length)
    return body[position : position + length], position + length
