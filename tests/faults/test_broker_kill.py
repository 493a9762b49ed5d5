"""SIGKILL of the broker while it is written to: every acknowledged record is kept, none is invented."""

import os
import random
import signal
import threading
import time

import pytest
from confluent_kafka import Producer

from millstream.log import Log, read_topic
from millstream.log.address import find

KILLS = 6


@pytest.mark.parametrize("seed", range(KILLS))
def test_nothing_acknowledged_is_lost(tmp_path, seed):
    rng = random.Random(seed)
    acknowledged, produced = [], 0
    with Log(tmp_path) as log:
        log.create_topic("t", partitions=3, format="bytes")
        producer = Producer({"bootstrap.servers": log.bootstrap, "acks": "all", "linger.ms": 1, "retries": 0})

        def note(error, message):
            if error is None:
                acknowledged.append((message.partition(), message.offset(), message.value()))

        killer = threading.Timer(rng.uniform(0.05, 0.6), os.kill, (log.broker.pid, signal.SIGKILL))
        killer.start()
        deadline = time.monotonic() + 30
        while find(tmp_path) is not None:
            assert time.monotonic() < deadline
            for _ in range(200):
                try:
                    producer.produce("t", b"%d" % produced, partition=produced % 3, on_delivery=note)
                except BufferError:
                    break
                produced += 1
            producer.poll(0)
        killer.join()
        producer.purge()
        producer.flush(10)
    with Log(tmp_path) as log:
        table = read_topic(log["t"]).to_table()
    stored = {
        (p, o): v
        for p, o, v in zip(*(table[c].to_pylist() for c in ("_partition", "_offset", "value")), strict=True)
    }
    assert all(stored.get((p, o)) == v for p, o, v in acknowledged)
    assert len(set(stored.values())) == len(stored)
    assert {int(v) for v in stored.values()} <= set(range(produced))
    assert len(stored) >= len(acknowledged) > 0
