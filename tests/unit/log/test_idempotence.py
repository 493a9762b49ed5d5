"""Idempotent producers: what is sent again is kept once, over a restart too."""

import struct

import pytest
from crc32c import crc32c

from millstream.errors import InputError
from millstream.log import idempotence
from millstream.log.idempotence import FencedProducer, OutOfSequence
from millstream.log.partition import Partition
from millstream.log.record_batch import Record, encode


def batch(sequence, n=1, producer=7, epoch=0):
    data = bytearray(encode([Record(0, 1, None, b"%d" % (sequence + i)) for i in range(n)]))
    struct.pack_into(">qhi", data, 43, producer, epoch, sequence)
    struct.pack_into(">I", data, 17, crc32c(bytes(data[21:])))
    return memoryview(bytes(data))


@pytest.fixture(params=["open", "opened again"])
def after_two(request, tmp_path):
    """A partition with the batches of sequence 0 to 2 and 3, of the same run or a later one."""
    partition = Partition(tmp_path)
    partition.append(batch(0, 3))
    partition.append(batch(3))
    partition.flush()
    if request.param == "opened again":
        partition.close()
        partition = Partition(tmp_path, clean=True)
    yield partition
    partition.close()


def test_a_batch_sent_again_has_its_old_offset(after_two):
    assert [after_two.append(batch(0, 3)), after_two.append(batch(3)), after_two.append(batch(4))] == [
        0,
        3,
        4,
    ]
    assert after_two.flush() == 5


@pytest.mark.parametrize("sequence", [1, 5, 100])
def test_a_gap_is_refused(after_two, sequence):
    with pytest.raises(OutOfSequence, match=f"sent sequence {sequence}, expected 4"):
        after_two.append(batch(sequence))
    assert after_two.end_offset == 4


def test_a_new_epoch_begins_at_0_and_fences_the_old_one(after_two):
    with pytest.raises(OutOfSequence, match="expected 0"):
        after_two.append(batch(4, epoch=1))
    assert after_two.append(batch(0, epoch=1)) == 4
    with pytest.raises(FencedProducer, match="has epoch 1, this batch 0"):
        after_two.append(batch(4))


@pytest.mark.parametrize(("sequence", "epoch"), [(-1, 0), (0, -1)])
def test_a_producer_without_a_sequence_or_an_epoch_is_refused(after_two, sequence, epoch):
    with pytest.raises(InputError, match=f"epoch {epoch} and sequence {sequence}; expected 0 or more"):
        after_two.append(batch(sequence, epoch=epoch, producer=8))


def test_others_are_not_concerned(after_two):
    assert after_two.append(batch(0, 3, producer=8)) == 4
    assert [after_two.append(memoryview(encode([Record(0, 1, None, b"a")]))) for _ in range(2)] == [7, 8]
    assert after_two.append(batch(33, producer=9)) == 9  # unknown here: forgotten, or deleted with its topic


def test_sequences_go_round(after_two):
    last = (1 << 31) - 1
    assert after_two.append(batch(last - 1, 2, producer=8)) == 4
    assert after_two.append(batch(0, producer=8)) == 6


def test_a_failed_append_may_be_sent_again(after_two, monkeypatch):
    monkeypatch.setattr(
        "os.pwritev", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(Exception, match="No space left"):
        after_two.append(batch(4))
    monkeypatch.undo()
    assert [after_two.append(batch(4)), after_two.append(batch(4))] == [4, 4]


def test_those_silent_longest_are_forgotten(tmp_path, monkeypatch):
    monkeypatch.setattr(idempotence, "PRODUCERS", 2)
    partition = Partition(tmp_path)
    for producer, sequence in ((1, 0), (2, 0), (1, 1), (3, 0)):
        partition.append(batch(sequence, producer=producer))
    assert [partition.append(batch(0, producer=p)) for p in (1, 3, 2)] == [0, 3, 4]
    partition.close()
