"""Streams in event time: one plan for history and for what comes in now.

`as_stream` makes a `Stream` of a topic, of its replay, or of a table; methods add steps to a frozen plan; `run` and
`Stream.collect` carry it out. Layers, each knowing those before it: event time and frames; aggregates and keys; the
plan; operators (frames in, frames out, no I/O); the graph; sources, sinks and checkpoints; the run.
"""

from __future__ import annotations

from millstream.stream.aggregates import Aggregate, count, max, mean, min, sum
from millstream.stream.job import Moment, Monitor
from millstream.stream.predictor import Predictor
from millstream.stream.report import Ending, JobReport, SourceCounts
from millstream.stream.run import run
from millstream.stream.stream import KeyedStream, Output, Stream, WindowedStream, as_stream
from millstream.stream.windows import Tumbling

__all__ = [
    "Aggregate",
    "Ending",
    "JobReport",
    "KeyedStream",
    "Moment",
    "Monitor",
    "Output",
    "Predictor",
    "SourceCounts",
    "Stream",
    "Tumbling",
    "WindowedStream",
    "as_stream",
    "count",
    "max",
    "mean",
    "min",
    "run",
    "sum",
]
