"""A checkpoint goes on with the inputs and the code it is of, and with no others."""

import functools
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import millstream.stream as ms
from millstream.errors import CheckpointError
from millstream.log import Log, Topic
from millstream.stream.functions import changed, digest_of_functions

US = timedelta(microseconds=1)
ROWS = pa.table({"at": list(range(200)), "x": [float(i % 7) for i in range(200)]})


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    with Log(tmp_path_factory.mktemp("events")) as log:
        yield log


def read(topic: Topic, tmp_path: Path, **more: object) -> ms.JobReport:
    stream = ms.as_stream(topic, event_time="at", delay=US, name="in", bounded=True)
    return ms.run(
        stream.to(tmp_path / "out"), job="j", checkpoint=tmp_path / "state", every=US, max_rows=20, **more
    )


def stopped(topic: Topic, tmp_path: Path) -> None:
    stop = threading.Event()
    read(topic, tmp_path, stop=stop, monitor=lambda moment, _: stop.set() if moment == "rows" else None)


def test_a_topic_made_anew_is_refused(log: Log, tmp_path: Path) -> None:
    topic = log.create_topic("anew", schema=ROWS.schema)
    topic.append(ROWS)
    stopped(topic, tmp_path)
    log.delete_topic("anew")
    again = log.create_topic("anew", schema=ROWS.schema)
    with pytest.raises(
        CheckpointError, match=r"partition 0, ends at offset 0, and the checkpoint has read it"
    ):
        read(again, tmp_path)
    again.append(pa.concat_tables([ROWS, ROWS]))
    said = r"is topic 'anew' with id .*has read topic 'anew' with id .*another checkpoint directory"
    with pytest.raises(CheckpointError, match=said):
        read(again, tmp_path)


def test_another_topic_under_the_name_of_the_source_is_refused(log: Log, tmp_path: Path) -> None:
    topics = [log.create_topic(name, schema=ROWS.schema) for name in ("one", "two")]
    for topic in topics:
        topic.append(ROWS)
    stopped(topics[0], tmp_path)
    with pytest.raises(
        CheckpointError, match=r"source 'in' of job 'j' is topic 'two'.* has read topic 'one'"
    ):
        read(topics[1], tmp_path)
    assert read(log["one"], tmp_path).rows_in == 200


def test_a_table_that_has_shrunk_is_refused(tmp_path: Path) -> None:
    def once(table: pa.Table) -> ms.JobReport:
        stream = ms.as_stream(table, event_time="at", delay=US, name="rows")
        return ms.run(stream.to(tmp_path / "out"), job="t", checkpoint=tmp_path / "state")

    once(ROWS)
    with pytest.raises(CheckpointError, match="the table has 150 rows, and the checkpoint has read 200"):
        once(ROWS.slice(0, 150))


def small(limit: float) -> Callable[[pa.RecordBatch], pa.Array]:
    """Functions of one name; their code differs in a constant."""
    if limit == 3.0:
        return lambda batch: pc.less(batch["x"], 3.0)
    return lambda batch: pc.less(batch["x"], 4.0)


def test_another_code_of_a_function_is_refused(tmp_path: Path) -> None:
    def once(limit: float, rows: int) -> ms.JobReport:
        stream = ms.as_stream(ROWS.slice(0, rows), event_time="at", delay=US, name="rows")
        return ms.run(
            stream.filter(small(limit)).to(tmp_path / "out"), job="f", checkpoint=tmp_path / "state"
        )

    once(3.0, 100)
    with pytest.raises(CheckpointError, match=r"filter or map_batches functions had another code"):
        once(4.0, 200)
    assert once(3.0, 200).rows_in == 200


class Threshold:
    def __call__(self, batch: pa.RecordBatch, limit: float = 1.0) -> pa.Array:
        return pc.less(batch["x"], limit)

    def other(self, batch: pa.RecordBatch) -> pa.Array:
        return pc.greater(batch["x"], 2.0)


def digest(function: Callable[..., pa.Array]) -> str:
    return digest_of_functions([ms.as_stream(ROWS, event_time="at").filter(function).plan])


def test_callables_of_every_kind() -> None:
    it = Threshold()
    kinds = [it, it.other, functools.partial(it.other), small(3.0), lambda b: pc.is_in(b["x"], {1, 2}), bool]
    assert [digest(kind) for kind in kinds] == [digest(kind) for kind in kinds]
    assert len({digest(kind) for kind in kinds}) == len(kinds) - 1  # a partial has the code of its function
    assert changed(digest(it), digest(it.other))
    assert not changed("cpython-300:abc", digest(it))
    assert not changed("", digest(it))


def test_the_digest_is_the_same_in_every_process() -> None:
    """Whatever the seed of its hashes, by which the order of a set's members changes."""
    members = ", ".join(repr(letter) for letter in "abcdefgh")
    function = f"lambda batch: [x in {{{members}}} and (lambda y: y)(x) for x in batch]"
    program = (
        "import pyarrow as pa, millstream.stream as ms\n"
        "from millstream.stream.functions import digest_of_functions\n"
        "rows = ms.as_stream(pa.table({'at': [1]}), event_time='at')\n"
        f"print(digest_of_functions([rows.filter({function}).plan]))"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, timeout=60, text=True
    )
    assert said.stdout.strip() == digest(eval(function))
