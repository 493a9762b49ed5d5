"""Which record can't be read: one that isn't JSON, or doesn't fit the schema, named by topic, partition and offset.

Records are decoded many at a time and the decoder can't say which of them it stumbled over, so the first bad one is
found by halving: log2(n) further decodings, once, on the way to an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millstream.errors import SchemaError

__all__ = ["named"]


def named(
    topic: str,
    partition: int,
    offsets: npt.NDArray[np.int64] | Sequence[int],
    decode: Callable[[slice], pa.RecordBatch],
) -> pa.RecordBatch:
    """``decode`` of all the records at `offsets`, (n,) ascending; its `SchemaError` names the first bad one."""
    try:
        return decode(slice(0, len(offsets)))
    except SchemaError as fault:
        row = _first_bad(decode, len(offsets))
        offset = int(offsets[row])
        raise SchemaError(
            f"topic {topic!r}, partition {partition}, offset {offset}: {_said(decode, row) or fault}; look at it with "
            f"Topic.tail and mend its producer; read_topic(topic, {{{partition}: ({offset + 1}, END)}}) gives the rows "
            "after it, to append to a fresh topic with those before"
        ) from fault


def _first_bad(decode: Callable[[slice], pa.RecordBatch], n: int) -> int:
    good, bad = 0, n  # the first `good` records can be read, the first `bad` can't
    while bad - good > 1:
        middle = (good + bad) // 2
        if _said(decode, 0, middle) is None:
            good = middle
        else:
            bad = middle
    return bad - 1


def _said(decode: Callable[[slice], pa.RecordBatch], start: int, stop: int | None = None) -> str | None:
    """What the decoder says of these records, by default one; None if it can read them."""
    try:
        decode(slice(start, start + 1 if stop is None else stop))
    except SchemaError as fault:
        return str(fault)
    return None
