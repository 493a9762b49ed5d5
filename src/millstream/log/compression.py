"""The codecs of record batch v2, for readers: the broker itself passes compressed batches through unopened.

A block may not unpack to more than `MAX_UNPACKED` bytes, so a small batch can't fill the memory of its reader.
Snappy comes in two dresses: librdkafka's raw block and Java's xerial framing.
"""

from __future__ import annotations

import struct

import pyarrow as pa

from millstream.errors import CorruptBatch

__all__ = ["MAX_UNPACKED", "decompress"]

MAX_UNPACKED = 256 << 20

_STREAMED = {1: "gzip", 3: "lz4", 4: "zstd"}
_SNAPPY = 2
_XERIAL = b"\x82SNAPPY\0"
_XERIAL_HEADER = 16


def decompress(codec: int, block: bytes) -> bytes:
    """The records of a batch body under `codec` (bits 0-2 of its attributes); `CorruptBatch` if it can't be."""
    if codec == _SNAPPY:
        return _snappy(block)
    if codec not in _STREAMED:
        raise CorruptBatch(f"codec {codec} of a batch is unknown; expected 0 to 4")
    try:
        with pa.CompressedInputStream(pa.py_buffer(block), _STREAMED[codec]) as stream:
            unpacked = stream.read(MAX_UNPACKED + 1)
    except (OSError, pa.ArrowInvalid) as fault:
        raise CorruptBatch(
            f"a {_STREAMED[codec]} block of {len(block)} bytes doesn't unpack: {fault}"
        ) from fault
    return _bounded(bytes(unpacked))


def _bounded(unpacked: bytes) -> bytes:
    if len(unpacked) > MAX_UNPACKED:
        raise CorruptBatch(f"a batch unpacks to more than {MAX_UNPACKED} bytes; write smaller batches")
    return unpacked


def _snappy(block: bytes) -> bytes:
    if not block.startswith(_XERIAL):
        return _snappy_block(block)
    pieces, position, total = [], _XERIAL_HEADER, 0
    while position + 4 <= len(block):
        (size,) = struct.unpack_from(">i", block, position)
        if size < 0:
            raise CorruptBatch(f"a snappy chunk of {size} bytes")
        pieces.append(_snappy_block(block[position + 4 : position + 4 + size]))
        total += len(pieces[-1])
        if total > MAX_UNPACKED:
            raise CorruptBatch(f"a batch unpacks to more than {MAX_UNPACKED} bytes; write smaller batches")
        position += 4 + size
    return b"".join(pieces)


def _snappy_block(block: bytes) -> bytes:
    size = shift = 0
    for byte in block[:5]:
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    if size > MAX_UNPACKED:
        raise CorruptBatch(f"a snappy block claims {size} bytes; at most {MAX_UNPACKED} are unpacked")
    try:
        return bytes(pa.decompress(block, decompressed_size=size, codec="snappy", asbytes=True))
    except (OSError, pa.ArrowInvalid) as fault:
        raise CorruptBatch(f"a snappy block of {len(block)} bytes doesn't unpack: {fault}") from fault
