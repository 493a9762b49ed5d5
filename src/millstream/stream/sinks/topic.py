"""Rows into a topic, the number of each in its record's headers.

Row number n goes to partition n modulo the number of partitions, so every partition holds its rows in the order of
their numbers and recovery needs only the last number of each. Header ``millstream-job`` holds the job's name, header
``millstream-number`` the row's number in decimal; a record and its headers are one unit on disk.

A process killed while the broker still reads its last request can leave that request to be appended after recovery has
looked; only a transaction fences that. Recovery looks after the restart of a process, seconds later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from millstream.errors import CheckpointError, PlanError
from millstream.log import Topic
from millstream.log.one_text_type import plain_schema
from millstream.stream.sinks.last_numbers import JOB_HEADER, NUMBER_HEADER, last_numbers
from millstream.stream.sinks.sink import Numbers

__all__ = ["TopicSink"]

Header = tuple[str, bytes | None]


@dataclass(frozen=True, eq=False)
class TopicSink:
    topic: Topic
    between_barriers = True

    @property
    def name(self) -> str:
        return self.topic.name

    def check(self, schema: pa.Schema) -> None:
        wanted, given = self.topic.schema, plain_schema(schema)
        if (wanted.names, wanted.types) != (given.names, given.types):
            raise PlanError(
                f"sink {self.name!r} takes {_columns(wanted)}; the stream gives {_columns(schema)}; use select or "
                "map_batches, or create the topic with schema=stream.schema"
            )

    def claim(self, job: str) -> None:
        """Jobs may share a topic: each row says whose it is."""

    def spell(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The records' values, so that a row the format can't hold is an error before it is promised."""
        return pa.record_batch({"value": pa.array(self.topic.encode(rows), pa.binary())})

    def marks(self) -> Mapping[int, int]:
        return dict(enumerate(self.topic.end_offsets()))

    def check_kept(self, first: int, marks: Mapping[int, int]) -> None:
        """By the end offsets: records that went by retention are not missed."""
        for partition, end in enumerate(self.topic.end_offsets()):
            if end < marks.get(partition, 0):
                raise CheckpointError(
                    f"sink {self.name!r}, partition {partition}, ends at offset {end}, and the checkpoint has seen it "
                    f"end at {marks[partition]}: the topic was made anew; start the job afresh with another "
                    "checkpoint directory"
                )

    def published(self, job: str, marks: Mapping[int, int] | None) -> Numbers:
        starts = dict.fromkeys(range(self.topic.n_partitions), 0) if marks is None else marks
        return last_numbers(self.topic, job, starts)

    def publish(self, job: str, first: int, rows: pa.Table, out: Numbers) -> None:
        name: Header = (JOB_HEADER, job.encode())
        numbers = np.arange(first, first + len(rows))
        for partition in range(self.topic.n_partitions):
            mine = (numbers % self.topic.n_partitions == partition) & (numbers > out.get(partition, -1))
            if not mine.any():
                continue
            values = rows.column("value").filter(pa.array(mine)).to_pylist()
            headers: list[list[Header] | None] = [
                [name, (NUMBER_HEADER, b"%d" % number)] for number in numbers[mine].tolist()
            ]
            self.topic.publish(partition, values, [None] * len(values), headers)


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)
