"""A topic as programs use it: append tables, read live, publish rows of a known order, look at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from millstream.errors import InputError, SchemaError
from millstream.log.consumer import Consumer, TailRecord, read_tail
from millstream.log.json_format import check_finite, decode_json, encode_json
from millstream.log.one_text_type import ArrowStream, as_table
from millstream.log.producer import WHOLE_BYTES, WHOLE_ROWS, Headers, Row
from millstream.log.schemas import TopicSchema

if TYPE_CHECKING:
    from millstream.log.log import Log

__all__ = ["Topic"]

_ENCODE_ROWS = 65_536
_RECORD_OVERHEAD = 64


class Topic:
    """A topic of a `Log`; get one from ``log[name]`` or ``log.create_topic``.

    `schema` are the columns of a row and `format` ("json" or "bytes") is how a record spells them.
    """

    def __init__(self, log: Log, name: str, n_partitions: int, spelled: TopicSchema) -> None:
        self.log = log
        self.name = name
        self.n_partitions = n_partitions
        self.schema = spelled.schema
        self.format = spelled.format

    def __repr__(self) -> str:
        return f"Topic({self.name!r}, {self.n_partitions} partitions, {self.format} of {', '.join(self.schema.names)})"

    def append(
        self,
        table: pa.Table | pa.RecordBatch | ArrowStream,
        key: str | None = None,
        partition: str | None = None,
        headers: Headers | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Append one record a row and return their number once all are durable (acks=all).

        `table` has the topic's columns, in any order; a pandas DataFrame will do. `key` names the column whose value,
        as text, becomes the record's key; `partition` names an integer column that chooses the partition and is not
        stored unless the schema has it. Without it equal keys meet in one partition, and rows without a key go
        anywhere. `headers` go on every record; `progress` is called with the number of rows handed over so far.

        Raises `SchemaError` before anything is sent when columns don't fit, `LogFull` when the disk is full and
        `BrokerUnavailable` when no broker answers; a prefix of the rows may then be stored (`Topic.tail` shows it).
        """
        table = as_table(
            table, f"topic {self.name!r}: append takes a pa.Table, a pa.RecordBatch or a data frame"
        )
        self._check_columns(table, key, partition)
        if self.format == "json":
            check_finite(table.select(self.schema.names))
        return self.log.send(self.name, self._rows(table, key, partition, headers), progress)

    def _check_columns(self, table: pa.Table, key: str | None, partition: str | None) -> None:
        for name in (*self.schema.names, *filter(None, (key, partition))):
            if name not in table.column_names:
                raise SchemaError(
                    f"topic {self.name!r}: no column {name!r}; the table has {table.column_names}"
                )
        if partition is not None:
            numbers = table[partition]
            if not pa.types.is_integer(numbers.type) or numbers.null_count:
                raise SchemaError(
                    f"column {partition!r} is {numbers.type}; expected partition numbers without nulls"
                )
            for number in numbers.unique().to_pylist():
                self._check_partition(number)

    def _check_partition(self, number: int) -> None:
        if not 0 <= number < self.n_partitions:
            raise InputError(
                f"topic {self.name!r}: partition {number}; expected 0 to {self.n_partitions - 1}"
            )

    def _rows(
        self, table: pa.Table, key: str | None, partition: str | None, headers: Headers | None
    ) -> Iterator[Row]:
        for start in range(0, table.num_rows, _ENCODE_ROWS):
            piece = table.slice(start, _ENCODE_ROWS)
            count = piece.num_rows
            numbers = [None] * count if partition is None else piece[partition].to_pylist()
            if self.format == "bytes":
                keys, values = piece["key"].to_pylist(), piece["value"].to_pylist()
            else:
                values = self.encode(_one_batch(piece.select(self.schema.names)))
                keys = [None] * count
            if key is not None:
                keys = piece[key].cast(pa.string()).cast(pa.binary()).to_pylist()
            for number, k, value in zip(numbers, keys, values, strict=True):
                yield number, k, value, headers

    def encode(self, batch: pa.RecordBatch) -> list[bytes]:
        """The values of records that spell the rows of `batch`, which has this topic's columns. `SchemaError` if
        it has not, or holds what the format can't spell."""
        try:
            batch = batch.select(self.schema.names).cast(self.schema)
        except (KeyError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as fault:
            raise SchemaError(f"topic {self.name!r} takes {self.schema.names}: {fault}") from fault
        values = batch["value"] if self.format == "bytes" else encode_json(batch)
        encoded: list[bytes] = values.to_pylist()
        return encoded

    def decode(
        self, values: Sequence[bytes | None] | pa.BinaryArray, keys: Sequence[bytes | None] | None = None
    ) -> pa.RecordBatch:
        """The rows that records spell, one a value; `keys` fill the key column of a topic of bytes."""
        if self.format == "json":
            return decode_json(values, self.schema)
        column = values if isinstance(values, pa.Array) else pa.array(values, pa.binary())
        key = pa.nulls(len(column), pa.binary()) if keys is None else pa.array(keys, pa.binary())
        return pa.RecordBatch.from_arrays([key, column], schema=self.schema)

    def consumer(self, positions: dict[int, int]) -> Consumer:
        """A live reader from `positions`, {partition: next offset}."""
        self.log.check_open()
        for number in positions:
            self._check_partition(number)
        return Consumer(self, positions)

    def publish(
        self,
        partition: int,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None] | None = None,
        headers: Sequence[Headers | None] | None = None,
    ) -> int:
        """Append records to one partition in exactly this order; returns their number once all are durable.

        When it raises, a prefix of the records is stored, and none of them twice: nothing is retried, and each
        batch is sent after the one before it was acknowledged. Read `tail` to learn which.
        """
        self._check_partition(partition)
        keys = [None] * len(values) if keys is None else keys
        marks = [None] * len(values) if headers is None else headers
        rows: list[Row] = [(partition, k, v, h) for k, v, h in zip(keys, values, marks, strict=True)]
        return sum(self.log.send_whole(self.name, partition, batch) for batch in _whole_batches(rows))

    def tail(self, partition: int, n: int) -> list[TailRecord]:
        """The last `n` records of a partition, oldest first, with headers; fewer if there are fewer."""
        self._check_partition(partition)
        self.log.check_open()
        return read_tail(self.log.bootstrap, self.name, partition, n, seconds=30.0)

    def end_offsets(self) -> list[int]:
        """By partition, the offset after the last durable record."""
        return self.log.end_offsets(self.name, self.n_partitions)


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    (batch,) = table.combine_chunks().to_batches()
    return batch


def _whole_batches(rows: list[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    size = 0
    for row in rows:
        _, key, value, headers = row
        more = sum(len(name) + len(v or b"") + 8 for name, v in headers or ())
        more += len(key or b"") + len(value or b"") + _RECORD_OVERHEAD
        if batch and (len(batch) == WHOLE_ROWS or size + more > WHOLE_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += more
    if batch:
        yield batch
