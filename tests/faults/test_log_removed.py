"""The directory of a log removed under its live broker: what can't be kept is not acknowledged."""

import shutil

import pyarrow as pa
import pytest

from millstream.errors import LogError, LogFull
from millstream.log import Log

ROW = pa.table({"text": ["a"]})


@pytest.fixture
def topic(tmp_path):
    with Log(tmp_path / "log") as log:
        made = log.create_topic("t", schema=pa.schema([("text", pa.string())]))
        made.append(ROW)
        shutil.rmtree(tmp_path / "log")
        yield made


def told(action):
    with pytest.raises(LogError) as fault:
        action()
    assert not isinstance(fault.value, LogFull)
    return str(fault.value)


def test_an_append_is_refused_and_says_why(topic):
    for _ in range(2):
        assert "removed" in told(lambda: topic.append(ROW))


def test_a_whole_batch_is_refused_and_says_why(topic):
    assert "removed" in told(lambda: topic.publish(0, [b'{"text":"a"}']))


def test_a_new_topic_is_refused_and_says_why(topic):
    assert "No such file or directory" in told(lambda: topic.log.create_topic("more"))
