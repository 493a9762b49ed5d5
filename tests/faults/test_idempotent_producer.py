"""A client that retries on its own (``enable.idempotence``, the Java client's default): each record is kept once, in
order, though the broker is killed below it while it sends."""

import os
import signal
import socket
import struct

from confluent_kafka import Producer
from crc32c import crc32c

from millstream.log import Log
from millstream.log.record_batch import Record, encode
from millstream.log.wire import array, string


def test_every_record_once_and_in_order_over_kills_of_the_broker(tmp_path):
    answers, n = [], 0
    log = Log(tmp_path)
    log.create_topic("t", partitions=2, format="bytes")
    port = log.broker.port
    producer = Producer(
        {
            "bootstrap.servers": log.bootstrap,
            "enable.idempotence": True,
            "linger.ms": 0,
            "batch.num.messages": 20,
            "reconnect.backoff.max.ms": 100,
            "retry.backoff.ms": 20,
            "on_delivery": lambda error, message: answers.append(error),
        }
    )
    for _ in range(3):
        for _ in range(5000):
            producer.produce("t", b"%d" % n, partition=n % 2)
            n += 1
        producer.poll(0.03)
        os.kill(log.broker.pid, signal.SIGKILL)
        log.close()
        log = Log(tmp_path, port=port)
    with log:
        assert producer.flush(30) == 0
        assert answers == [None] * n
        topic = log["t"]
        for number in (0, 1):
            assert [r.value for r in topic.tail(number, n)] == [b"%d" % i for i in range(number, n, 2)]


def batch(sequence):
    data = bytearray(encode([Record(0, 1, None, b"%d" % sequence)]))
    struct.pack_into(">qhi", data, 43, 7, 0, sequence)
    struct.pack_into(">I", data, 17, crc32c(bytes(data[21:])))
    return bytes(data)


def produced(log, records):
    """(error, base offset) of a Produce request of these bytes."""
    body = struct.pack(">hhi", -1, -1, 10_000)
    body += array([string("t") + array([struct.pack(">ii", 0, len(records)) + records])])
    request = struct.pack(">hhi", 0, 3, 1) + string("test") + body
    host, port = log.bootstrap.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        with connection.makefile("rb") as replies:
            reply = replies.read(int.from_bytes(replies.read(4), "big"))
    return struct.unpack_from(">hq", reply, 4 + 4 + 3 + 4 + 4)


def test_a_batch_whose_answer_was_lost_with_the_broker_is_kept_once(tmp_path):
    with Log(tmp_path) as log:
        log.create_topic("t", format="bytes")
        assert [produced(log, batch(i)) for i in range(3)] == [(0, 0), (0, 1), (0, 2)]
        os.kill(log.broker.pid, signal.SIGKILL)
    with Log(tmp_path) as log:
        assert [produced(log, batch(i)) for i in (1, 2, 3, 3)] == [(0, 1), (0, 2), (0, 3), (0, 3)]
        assert produced(log, batch(9)) == (45, -1)  # OUT_OF_ORDER_SEQUENCE_NUMBER
        assert log["t"].end_offsets() == [4]
