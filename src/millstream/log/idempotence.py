"""Idempotent producers: a batch that a client sends again, because no answer reached it, is kept once.

A producer has an id and an epoch, and numbers its records in each partition from 0. A partition remembers of every
producer the last `REMEMBERED` batches, as many as a client has in flight; it is rebuilt from the batch headers when the
partition is opened, so a retry across a restart is recognised too. Source: KIP-98, "Idempotent Producer Guarantees",
and KIP-360 for a producer that isn't known (any more), whose first batch may have any sequence.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from millstream.errors import InputError, LogError
from millstream.log.record_batch import BatchHeader

__all__ = ["REMEMBERED", "FencedProducer", "OutOfSequence", "Producers"]

REMEMBERED = 5
PRODUCERS = 10_000
_SEQUENCES = 1 << 31


class OutOfSequence(LogError):
    """A batch doesn't follow the last one of its producer: some were lost, or one is too old to be recognised."""


class FencedProducer(LogError):
    """A batch of an earlier epoch of its producer."""


class _Batch(NamedTuple):
    sequence: int
    n_records: int
    base_offset: int


class _Producer(NamedTuple):
    epoch: int
    batches: deque[_Batch]


class Producers:
    """The idempotent producers of one partition; of more than `PRODUCERS` those silent longest are forgotten."""

    def __init__(self) -> None:
        self._known: dict[int, _Producer] = {}

    def duplicate_of(self, header: BatchHeader) -> int | None:
        """The offset at which this very batch already stands; None if it is new. Raises `OutOfSequence`,
        `FencedProducer`, and `InputError` for numbers that no producer has."""
        if header.producer_id < 0:
            return None
        if header.producer_epoch < 0 or header.base_sequence < 0:
            raise InputError(
                f"producer {header.producer_id}: epoch {header.producer_epoch} and sequence {header.base_sequence}; "
                "expected 0 or more"
            )
        known = self._known.get(header.producer_id)
        if known is None:
            return None
        if header.producer_epoch < known.epoch:
            raise FencedProducer(
                f"producer {header.producer_id} has epoch {known.epoch}, this batch {header.producer_epoch}; "
                "start the producer again"
            )
        expected = 0
        if header.producer_epoch == known.epoch:
            for batch in known.batches:
                if (batch.sequence, batch.n_records) == (header.base_sequence, header.n_records):
                    return batch.base_offset
            last = known.batches[-1]
            expected = (last.sequence + last.n_records) % _SEQUENCES
        if header.base_sequence != expected:
            raise OutOfSequence(
                f"producer {header.producer_id} sent sequence {header.base_sequence}, expected {expected}; "
                "nothing of the batch was kept"
            )
        return None

    def note(self, header: BatchHeader) -> None:
        """A batch was appended, or found when the partition was opened."""
        if header.producer_id < 0:
            return
        known = self._known.pop(header.producer_id, None)
        if known is None or known.epoch != header.producer_epoch:
            known = _Producer(header.producer_epoch, deque(maxlen=REMEMBERED))
        known.batches.append(_Batch(header.base_sequence, header.n_records, header.base_offset))
        self._known[header.producer_id] = known
        if len(self._known) > PRODUCERS:
            del self._known[next(iter(self._known))]
