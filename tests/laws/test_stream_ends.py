"""The laws of sources (`Binding`, `Reader`) and sinks (`Sink`), for every class found in their packages; and that each
law can be broken."""

import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import millstream.stream as ms
from millstream.data import from_arrow
from millstream.log import Log, read_topic
from millstream.stream import sinks, sources
from millstream.stream.plan import Source
from millstream.stream.sinks.parquet import ParquetSink
from millstream.stream.sinks.sink import Numbers, Sink
from millstream.stream.sinks.topic import TopicSink
from millstream.stream.sources.binding import Binding, ReplayBinding, TableBinding
from millstream.stream.sources.reader import Chunk, Reader
from millstream.stream.sources.table import TableReader, whole_table
from millstream.stream.sources.topic import TopicBinding

ROWS = pa.table({"at": pa.array(range(300), pa.int64()), "x": pa.array(np.arange(300) / 7)})
JOB = "law"


def classes(package: ModuleType, methods: set[str]) -> set[type]:
    """Every class of a package that has these methods, but for protocols."""
    modules = [import_module(m.name) for m in pkgutil.iter_modules(package.__path__, package.__name__ + ".")]
    found = {
        c for m in modules for _, c in inspect.getmembers(m, inspect.isclass) if c.__module__ == m.__name__
    }
    return {c for c in found if methods <= set(dir(c)) and not getattr(c, "_is_protocol", False)}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    with Log(tmp_path_factory.mktemp("events")) as log:
        topic = log.create_topic("rows", partitions=3, schema=ROWS.schema)
        partition = pa.array(np.arange(300) % 7 % 2, pa.int32())  # partition 2 stays empty
        topic.append(ROWS.append_column("p", partition), partition="p")
        yield log


SOURCES: dict[type, Callable[[Log], Binding]] = {
    TableBinding: lambda log: TableBinding(ROWS),
    ReplayBinding: lambda log: ReplayBinding(read_topic(log["rows"])),
    TopicBinding: lambda log: TopicBinding(log["rows"], bounded=True),
}


def drained(reader: Reader, limit: int, at_least: int = 1000) -> list[Chunk]:
    """Chunks until there are `at_least` rows or the source has ended; a source that hangs fails here."""
    chunks: list[Chunk] = []
    for _ in range(2000):
        if reader.finished >= set(reader.partitions) or sum(len(c.offsets) for c in chunks) >= at_least:
            return chunks
        chunks += reader.poll(limit, timedelta(milliseconds=20), list(reader.partitions))
    raise AssertionError("the source neither gives rows nor ends")


def rows_by_partition(chunks: list[Chunk]) -> dict[int, list[tuple[int, dict[str, object]]]]:
    found: dict[int, list[tuple[int, dict[str, object]]]] = {}
    for chunk in chunks:
        pairs = zip(chunk.offsets.tolist(), chunk.rows.to_pylist(), strict=True)
        found.setdefault(chunk.partition, []).extend(pairs)
    return found


def rows_come_once_and_in_order(binding: Binding) -> bool:
    reader = binding.open(SOURCE, None, None)
    found = rows_by_partition(drained(reader, 17))
    reader.close()
    ordered = all([o for o, _ in rows] == sorted({o for o, _ in rows}) for rows in found.values())
    everything = sorted((row["at"] for rows in found.values() for _, row in rows), key=int)
    return ordered and everything == list(range(300))


def reopened_at_its_positions_it_gives_the_rest(binding: Binding) -> bool:
    whole = binding.open(SOURCE, None, None)
    expected = rows_by_partition(drained(whole, 1000))
    whole.close()
    first = binding.open(SOURCE, None, None)
    chunks = drained(first, 23, at_least=100)
    positions, ends = dict(first.positions), None if first.ends is None else dict(first.ends)
    first.close()
    second = binding.open(SOURCE, positions, ends)
    chunks += drained(second, 31)
    second.close()
    return rows_by_partition(chunks) == expected


SOURCE = ms.as_stream(ROWS, event_time="at", delay=timedelta(0), name="rows").plan
SOURCE_LAWS = [rows_come_once_and_in_order, reopened_at_its_positions_it_gives_the_rest]


def test_every_source_is_tested() -> None:
    assert set(SOURCES) == classes(sources, {"open"})


@pytest.mark.parametrize("law", SOURCE_LAWS)
@pytest.mark.parametrize("kind", SOURCES)
def test_law_of_sources(law: Callable[[Binding], bool], kind: type, log: Log) -> None:
    assert law(SOURCES[kind](log))


class Stuttering:
    """Breaks both laws: gives the last row before its positions again."""

    bounded = True

    def open(
        self, source: Source, positions: Mapping[int, int] | None, ends: Mapping[int, int] | None
    ) -> TableReader:
        again = {p: max(0, offset - 1) for p, offset in (positions or {}).items()}
        return whole_table(pa.concat_tables([ROWS, ROWS.slice(299)]) if positions is None else ROWS, again)


@pytest.mark.parametrize("law", SOURCE_LAWS)
def test_law_of_sources_rejects_a_stutter(law: Callable[[Binding], bool]) -> None:
    assert not law(Stuttering())


def test_bindings_are_equal_when_they_read_the_same_rows(log: Log) -> None:
    assert TopicBinding(log["rows"], True) == TopicBinding(log["rows"], True)
    assert TopicBinding(log["rows"], True) != TopicBinding(log["rows"], False)
    assert TableBinding(ROWS) == TableBinding(ROWS)
    assert TableBinding(ROWS) != TableBinding(ROWS.slice(0))
    replayed = read_topic(log["rows"])
    assert ReplayBinding(replayed) == ReplayBinding(replayed) != ReplayBinding(from_arrow(ROWS))


Visible = Callable[[], list[int]]
"""The `at` of every visible row: partition after partition, each in its order."""


def topic_sink(log: Log, tmp_path: Path) -> tuple[Sink, Visible]:
    topic = log.create_topic(
        f"sink-{tmp_path.parent.name}-{tmp_path.name}"[-200:], partitions=3, schema=ROWS.schema
    )

    def visible() -> list[int]:
        return read_topic(topic).to_table()["at"].to_pylist()

    return TopicSink(topic), visible


def parquet_sink(log: Log, tmp_path: Path) -> tuple[Sink, Visible]:
    def visible() -> list[int]:
        return [
            at for path in sorted(tmp_path.glob("*.parquet")) for at in pq.read_table(path)["at"].to_pylist()
        ]

    return ParquetSink(tmp_path), visible


SINKS: dict[type, Callable[[Log, Path], tuple[Sink, Visible]]] = {
    TopicSink: topic_sink,
    ParquetSink: parquet_sink,
}


def each_row_is_visible_once_after_a_break(sink: Sink, visible: Visible, kept: int) -> bool:
    """Rows 0 to 99 are out; of 100 to 199 the first `kept`; then recovery publishes them all, twice over."""
    spelled = pa.Table.from_batches([sink.spell(batch) for batch in ROWS.to_batches()])
    marks = dict(sink.marks())
    if sink.published(JOB, None):
        return False
    sink.publish(JOB, 0, spelled.slice(0, 100), {})
    marks = dict(sink.marks())
    if kept:
        sink.publish(JOB, 100, spelled.slice(100, kept), {})
    for _ in range(2):
        sink.publish(JOB, 100, spelled.slice(100, 100), sink.published(JOB, marks))
    sink.publish(JOB, 200, spelled.slice(200), sink.published(JOB, marks))
    seen = visible()
    breaks = sum(later < earlier for earlier, later in pairwise(seen))
    return sorted(seen) == list(range(300)) and breaks < 3


def test_every_sink_is_tested() -> None:
    assert set(SINKS) == classes(sinks, {"publish", "published"})


@pytest.mark.parametrize("kept", [0, 1, 50, 99, 100])
@pytest.mark.parametrize("kind", SINKS)
def test_law_of_sinks(kind: type, kept: int, log: Log, tmp_path: Path) -> None:
    assert each_row_is_visible_once_after_a_break(*SINKS[kind](log, tmp_path), kept)


def test_a_topic_broken_off_within_one_partition_gets_the_rest(log: Log, tmp_path: Path) -> None:
    """A kill leaves partition 0 whole, partition 1 in part and partition 2 without its rows."""
    sink, visible = topic_sink(log, tmp_path)
    spelled = pa.Table.from_batches([sink.spell(batch) for batch in ROWS.to_batches()])
    marks = dict(sink.marks())
    never = 10**9
    sink.publish(JOB, 0, spelled, {1: never, 2: never})
    sink.publish(JOB, 0, spelled.slice(0, 100), {0: never, 2: never})
    out = sink.published(JOB, marks)
    assert out == {0: 297, 1: 97}
    sink.publish(JOB, 0, spelled, out)
    assert visible() == [*range(0, 300, 3), *range(1, 300, 3), *range(2, 300, 3)]


def test_rows_of_another_job_in_the_topic_are_not_taken_for_ours(log: Log, tmp_path: Path) -> None:
    sink, visible = topic_sink(log, tmp_path)
    spelled = pa.Table.from_batches([sink.spell(batch) for batch in ROWS.to_batches()])
    marks = dict(sink.marks())
    sink.publish("another", 0, spelled, {})
    assert sink.published(JOB, marks) == {}
    assert sink.published("another", marks) == {0: 297, 1: 298, 2: 299}
    assert len(visible()) == 300


class Forgetful(ParquetSink):
    """Breaks the law: can't tell what it has published, and names no file twice."""

    def published(self, job: str, marks: Mapping[int, int] | None) -> Numbers:
        return {}

    def publish(self, job: str, first: int, rows: pa.Table, out: Numbers) -> None:
        taken = len(list(self.directory.glob("*.parquet")))
        super().publish(job, first + 1000 * taken, rows, out)


@pytest.mark.parametrize("kept", [0, 50])
def test_law_of_sinks_rejects_one_that_forgets(log: Log, tmp_path: Path, kept: int) -> None:
    _, visible = parquet_sink(log, tmp_path)
    assert not each_row_is_visible_once_after_a_break(Forgetful(tmp_path), visible, kept)
