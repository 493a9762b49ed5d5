"""A topic that a job writes to beside others: what is the job's own is found wherever it stands."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

import millstream.stream as ms
from millstream.errors import CheckpointError
from millstream.log import Log, read_topic

US = timedelta(microseconds=1)
ROWS = pa.table({"at": list(range(100)), "x": [float(i % 7) for i in range(100)]})


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    with Log(tmp_path_factory.mktemp("events")) as log:
        yield log


def stream() -> ms.Stream:
    return ms.as_stream(ROWS, event_time="at", delay=US, name="rows")


@pytest.mark.parametrize("others", [1, 2500])
def test_a_job_without_its_checkpoint_finds_its_rows_behind_those_of_others(
    log: Log, tmp_path: Path, others: int
) -> None:
    topic = log.create_topic(f"shared_{others}", partitions=2, schema=ROWS.schema)
    ms.run(stream().to(topic), job="mine", checkpoint=tmp_path / "state")
    for partition in range(2):
        topic.publish(partition, topic.encode(ROWS.slice(0, 1).to_batches()[0]) * others)
    ms.run(stream().to(topic), job="theirs")
    with pytest.raises(CheckpointError, match="holds rows of job 'mine' up to number 99"):
        ms.run(stream().to(topic), job="mine", checkpoint=tmp_path / "new state")
    assert sum(topic.end_offsets()) == read_topic(topic).n_rows == 200 + 2 * others
