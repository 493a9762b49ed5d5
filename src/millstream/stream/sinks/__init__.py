"""Sinks, and which one a target asks for."""

from __future__ import annotations

from pathlib import Path

from millstream.errors import PlanError
from millstream.log import Topic
from millstream.stream.sinks.parquet import ParquetSink
from millstream.stream.sinks.sink import Sink
from millstream.stream.sinks.topic import TopicSink

__all__ = ["Sink", "sink_for"]


def sink_for(target: object) -> Sink:
    """The sink for a topic, or for a directory of Parquet files; PlanError for anything else."""
    if isinstance(target, Topic):
        return TopicSink(target)
    if isinstance(target, str | Path):
        return ParquetSink(Path(target))
    raise PlanError(f"to({target!r}): a {type(target).__name__} is no sink; expected a Topic or a directory")
