"""A live topic: `TopicBinding` and its reader, through the broker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import pyarrow as pa
from confluent_kafka import TopicCollection
from confluent_kafka.admin import AdminClient

from millstream.errors import CheckpointError
from millstream.log import Topic
from millstream.log.client import CALL_SECONDS, settings, translated
from millstream.stream.plan import Source
from millstream.stream.sources.reader import Chunk

__all__ = ["TopicBinding", "TopicReader"]


class TopicReader:
    """A `Reader` over a topic's consumer. ends: where to stop; None goes on for ever."""

    def __init__(
        self,
        topic: Topic,
        schema: pa.Schema,
        positions: Mapping[int, int] | None,
        ends: Mapping[int, int] | None,
    ) -> None:
        self._topic = topic
        self._schema = schema
        self._positions = dict.fromkeys(range(topic.n_partitions), 0) | dict(positions or {})
        self._ends = None if ends is None else dict(ends)
        self.identity = _identity(topic)
        self._consumer = topic.consumer(dict(self._positions))

    @property
    def origin(self) -> str:
        return f"topic {self._topic.name!r}"

    @property
    def partitions(self) -> Sequence[int]:
        return sorted(self._positions)

    @property
    def ends(self) -> Mapping[int, int] | None:
        return self._ends

    @property
    def finished(self) -> set[int]:
        if self._ends is None:
            return set()
        return {p for p, position in self._positions.items() if position >= self._ends[p]}

    @property
    def positions(self) -> Mapping[int, int]:
        return dict(self._positions)

    def poll(self, limit: int, timeout: timedelta, order: Sequence[int]) -> list[Chunk]:
        chunks = []
        for chunk in self._consumer.poll(limit, timeout):
            offsets, rows = chunk.offsets, chunk.batch
            if self._ends is not None:
                within = int((offsets < self._ends[chunk.partition]).sum())
                offsets, rows = offsets[:within], rows.slice(0, within)
            if len(offsets):
                self._positions[chunk.partition] = int(offsets[-1]) + 1
                chunks.append(Chunk(chunk.partition, offsets, rows))
        return chunks

    def caught_up(self) -> set[int]:
        ends = self._topic.end_offsets()
        return {p for p, position in self._positions.items() if position >= ends[p]}

    def close(self) -> None:
        self._consumer.close()


@dataclass(frozen=True, eq=False)
class TopicBinding:
    """A topic read as its records come. bounded: stop at the end it has when the job first starts."""

    topic: Topic
    bounded: bool
    idle: timedelta | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TopicBinding) and (other.topic.name, other.bounded) == (
            self.topic.name,
            self.bounded,
        )

    def open(
        self, source: Source, positions: Mapping[int, int] | None, ends: Mapping[int, int] | None
    ) -> TopicReader:
        if not self.bounded:
            ends = None
        elif ends is None:
            ends = dict(enumerate(self.topic.end_offsets()))
        if positions is not None:
            self._check_reaches(source, positions)
        return TopicReader(self.topic, source.schema, positions, ends)

    def _check_reaches(self, source: Source, positions: Mapping[int, int]) -> None:
        for partition, end in enumerate(self.topic.end_offsets()):
            if end < positions.get(partition, 0):
                raise CheckpointError(
                    f"source {source.name!r}: topic {self.topic.name!r}, partition {partition}, ends at offset {end}, "
                    f"and the checkpoint has read it up to {positions[partition]}: these are not the records it read; "
                    "start with another checkpoint directory and another output"
                )


def _identity(topic: Topic) -> str:
    """The topic's name and the id that the cluster gave it when it was made."""
    what = f"asking for the id of topic {topic.name!r}"
    client = AdminClient(settings(topic.log.bootstrap))
    asked = translated(
        what, client.describe_topics, TopicCollection([topic.name]), request_timeout=CALL_SECONDS
    )
    description = translated(what, asked[topic.name].result, CALL_SECONDS)
    return f"topic {topic.name!r} with id {description.topic_id}"
