"""Scoring a stream, row by row as it comes: a step of the plan, not a service beside it.

`VersionPredictor` is the step. It appends the flat outputs and ``model``, the version that answered, so every row of
the output says whose answer it is. If it follows an alias it changes to a newly promoted version when the runtime
calls `refresh`, at barriers and nowhere else; the new version answers its golden rows first.
"""

from __future__ import annotations

import os
import tempfile
import threading
import uuid
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millstream.data import read_parquet
from millstream.deploy.target import MODEL_COLUMN, Target
from millstream.errors import InputError, SignatureError
from millstream.log import Log, Topic, read_topic
from millstream.models import Followed, Scorer, Version, flat, flat_schema
from millstream.models.feeds import flat_rows
from millstream.stream import JobReport, Stream, as_stream, run
from millstream.stream.job import Monitor

__all__ = ["StreamJob", "VersionPredictor"]

#: nothing waits for the watermark of a plan that only scores, so no row of it is ever late
_NEVER_LATE = timedelta(days=36_500)
_GOLDEN_ROW = "golden_row"


class VersionPredictor:
    """A version, or whatever an alias points to, as a step of a stream's plan: `millstream.stream.Predictor`."""

    def __init__(self, version: Version | Followed) -> None:
        self._followed = version if isinstance(version, Followed) else None
        self._version = version.version if isinstance(version, Followed) else version
        self._scorer: Scorer = version.scorer()

    @property
    def version(self) -> str:
        """``name@number`` of the version that answers at present."""
        return str(self._version)

    def output_schema(self, schema: pa.Schema) -> pa.Schema:
        """The input's columns, the flat outputs, and ``model``. SignatureError names a column that is missing."""
        wanted = self._version.signature
        for needed in wanted.inputs:
            for name in (needed.name,) if needed.name in schema.names else needed.columns:
                if name not in schema.names:
                    raise SignatureError(
                        f"column {name!r} is missing: expected {needed.dtype}; there are {schema.names}"
                    )
        added = [*flat_schema(wanted.output_schema), pa.field(MODEL_COLUMN, pa.string())]
        clash = sorted({field.name for field in added} & set(schema.names))
        if clash:
            raise SignatureError(
                f"the rows have columns {clash} of their own, the names of predictions; rename them"
            )
        return pa.schema([*schema, *added])

    def predict(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows with their predictions."""
        predictions = flat(self._scorer.predict(batch))
        model = pa.repeat(pa.scalar(self.version), batch.num_rows)
        return pa.RecordBatch.from_arrays(
            [*batch.columns, *predictions.columns, model], schema=self.output_schema(batch.schema)
        )

    def refresh(self) -> None:
        """Change to the version the alias points to now, once it has answered its golden rows here.

        Raises ParityError, or SignatureError if the new version's outputs are other ones: the job then ends at the
        barrier, with the old version's rows published.
        """
        if self._followed is None or not self._followed.refresh():
            return
        version, scorer = self._followed.version, self._followed.scorer()
        if version.signature.output_schema != self._version.signature.output_schema:
            raise SignatureError(
                f"{version} gives {version.signature.output_schema.names}, {self._version} gave "
                f"{self._version.signature.output_schema.names}; run it as a job of its own, into another sink"
            )
        version.check(StreamJob.target, scorer.predict(version.golden.inputs))
        self._version, self._scorer = version, scorer


class StreamJob(Target):
    """Scores the rows of `source` into `sink`, each with the version that answered.

    version: a Version, or ``registry.follow("zones@production")``.
    source: a Topic with one timestamp column, or any Stream, a feature plan for one.
    sink: a Topic with the schema of `schema`, or a directory.
    keep: the columns written before the predictions (default: all).
    bounded: for a Topic as source: stop at the end it has at the start.

    >>> import tempfile, numpy as np
    >>> from millstream.learn import KMeans
    >>> from millstream.models import Registry
    >>> X = np.array([[0.0, 0.0], [0.0, 1.0], [9.0, 9.0], [9.0, 8.0]])
    >>> folder = tempfile.mkdtemp()
    >>> version = Registry(folder + "/models").register("zones", KMeans(2, random_state=7).fit(X), data=X)
    >>> rides = as_stream(pa.table({"at": [1, 2], "x0": [0.0, 9.0], "x1": [0.5, 8.5]}), event_time="at")
    >>> _ = StreamJob(version, source=rides, sink=folder + "/zones", keep=["at"]).run()
    >>> read_parquet(folder + "/zones").to_table().column_names
    ['at', 'label', 'model']
    """

    target = "stream"

    def __init__(
        self,
        version: Version | Followed,
        source: Topic | Stream,
        sink: Topic | str | os.PathLike[str],
        *,
        keep: Sequence[str] | None = None,
        bounded: bool = False,
    ) -> None:
        super().__init__(version.version if isinstance(version, Followed) else version)
        self._sink = sink if isinstance(sink, Topic) else Path(sink)
        stream = _as_stream(source, bounded) if isinstance(source, Topic) else source
        self.stream = StreamJob.plan(version, stream, keep)

    @staticmethod
    def plan(version: Version | Followed, source: Stream, keep: Sequence[str] | None = None) -> Stream:
        """The scored stream of a job; its `schema` is what a topic made as a sink needs."""
        scored = source.predict(VersionPredictor(version))
        added = scored.schema.names[len(source.schema.names) :]
        return scored if keep is None else scored.select(*keep, *added)

    def run(
        self,
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        job: str | None = None,
        every: timedelta = timedelta(seconds=10),
        delivery: Literal["exactly-once", "at-least-once"] = "exactly-once",
        max_rows: int = 65_536,
        stop: threading.Event | None = None,
        monitor: Monitor | None = None,
    ) -> JobReport:
        """Check the golden rows, then score until the source ends or someone says stop; see `millstream.run`.

        job: the name of the job, by default ``score-<model>``.
        """
        self.verify()
        self._went_live(self._sink.name if isinstance(self._sink, Topic) else str(self._sink))
        return run(
            self.stream.to(self._sink),
            job=job or f"score-{self.version.name}",
            checkpoint=None if checkpoint is None else Path(checkpoint),
            every=every,
            delivery=delivery,
            max_rows=max_rows,
            stop=stop,
            monitor=monitor,
        )

    def golden_answers(self) -> pa.Table:
        """Golden rows through the runtime: between two topics of the sink's log, made for them and deleted again, or
        into a directory where the sink is one."""
        rows = _golden_rows(self.version)
        if isinstance(self._sink, Topic):
            return _between_topics(self._sink.log, self.version, rows)
        with tempfile.TemporaryDirectory(prefix="millstream-golden-") as folder:
            stream = StreamJob.plan(self.version, as_stream(rows, event_time=_GOLDEN_ROW))
            run(stream.to(folder), job="golden")
            return read_parquet(folder).to_table().sort_by(_GOLDEN_ROW)


def _as_stream(topic: Topic, bounded: bool) -> Stream:
    times = [field.name for field in topic.schema if pa.types.is_timestamp(field.type)]
    if len(times) != 1:
        raise InputError(
            f"topic {topic.name!r} has {len(times)} timestamp columns, {times}; expected one; "
            "pass as_stream(topic, event_time=..., delay=...) as the source"
        )
    return as_stream(topic, event_time=times[0], delay=_NEVER_LATE, bounded=bounded)


def _golden_rows(version: Version) -> pa.Table:
    """Golden rows as a topic can hold them: flat, null for NaN, numbered in a column that serves as event time."""
    batch = flat_rows(version.signature, version.golden.inputs)
    table = pa.table({_GOLDEN_ROW: pa.array(np.arange(batch.num_rows))})
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_nan(column), None, column)
        table = table.append_column(name, column)
    return table


def _between_topics(log: Log, version: Version, rows: pa.Table) -> pa.Table:
    name = f"millstream-golden-{uuid.uuid4().hex}"
    made: list[str] = []
    try:
        source = log.create_topic(name, schema=rows.schema)
        made.append(source.name)
        source.append(rows)
        stream = as_stream(source, event_time=_GOLDEN_ROW, delay=timedelta(0), bounded=True)
        scored = StreamJob.plan(version, stream)
        sink = log.create_topic(f"{name}-scored", schema=scored.schema)
        made.append(sink.name)
        run(scored.to(sink), job=name)
        return read_topic(sink).to_table().sort_by(_GOLDEN_ROW)
    finally:
        for topic in made:
            log.delete_topic(topic)
