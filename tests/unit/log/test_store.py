"""Topics in a directory, and its one owner."""

import os
import subprocess
import sys

import pytest

from millstream.errors import InputError, LogError, LogLocked, TopicExists, UnknownTopic
from millstream.log.record_batch import Record, encode
from millstream.log.store import Store

ONE = memoryview(encode([Record(0, 1, None, b"a")]))


def test_topics_survive_a_restart(tmp_path):
    with Store(tmp_path) as store:
        made = store.create_topic("clicks", partitions=3)
        made.partitions[2].append(ONE)
    with Store(tmp_path) as store:
        again = store.topic("clicks")
        assert (again.id, [p.end_offset for p in again.partitions]) == (made.id, [0, 0, 1])


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "a b", "a\n", "ü", "x" * 250, "a\0"])
def test_a_name_kafka_would_refuse_is_refused(tmp_path, name):
    with Store(tmp_path) as store:
        with pytest.raises(InputError, match="topic name"):
            store.create_topic(name)
        assert not store.topics
        assert not list((tmp_path / "topics").iterdir())


@pytest.mark.parametrize("partitions", [0, -1, 5000])
def test_a_number_of_partitions_out_of_range_is_refused(tmp_path, partitions):
    with Store(tmp_path) as store, pytest.raises(InputError, match="expected 1 to 4096"):
        store.create_topic("t", partitions)


def test_a_topic_is_made_once_and_deleted_once(tmp_path):
    with Store(tmp_path) as store:
        store.create_topic("t")
        with pytest.raises(TopicExists):
            store.create_topic("t")
        store.delete_topic("t")
        with pytest.raises(UnknownTopic, match="there are: none"):
            store.delete_topic("t")
        assert store.create_topic("t").partitions[0].end_offset == 0


def test_a_topic_half_made_by_a_crash_is_not_there(tmp_path):
    with Store(tmp_path):
        (tmp_path / "staging" / "half" / "0").mkdir(parents=True)
    with Store(tmp_path) as store:
        assert not store.topics
        assert not list((tmp_path / "staging").iterdir())


def test_a_second_process_is_refused_with_the_owners_pid(tmp_path):
    code = "import sys; from millstream.log.store import Store; Store(sys.argv[1])"
    with Store(tmp_path):
        second = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert "LogLocked" in second.stderr
    assert f"owned by process {os.getpid()}" in second.stderr


def test_the_lock_is_gone_after_close_and_after_a_failed_open(tmp_path):
    with Store(tmp_path) as store:
        assert (tmp_path / "lock").exists()
        with pytest.raises(LogLocked):
            Store(tmp_path)
        store.close()
    assert not (tmp_path / "lock").exists()
    (tmp_path / "store.json").write_text("no json")
    with pytest.raises(LogError, match=r"store\.json is damaged"):
        Store(tmp_path)
    assert not (tmp_path / "lock").exists()


def test_an_unclean_stop_raises_the_leader_epoch(tmp_path):
    with Store(tmp_path) as store:
        assert store.leader_epoch == 0
    unclean = "import os, sys; from millstream.log.store import Store; Store(sys.argv[1]); os._exit(1)"
    subprocess.run([sys.executable, "-c", unclean, str(tmp_path)], timeout=60, check=False)
    with Store(tmp_path) as store:
        assert store.leader_epoch == 1
    with Store(tmp_path) as store:
        assert store.leader_epoch == 1
