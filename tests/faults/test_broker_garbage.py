"""Bytes that are no requests: their connection is closed, nothing changes, and others are served on."""

import random
import socket
import struct
import time

import pytest

from millstream.log import Log
from millstream.log.apis import APIS


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    with Log(tmp_path_factory.mktemp("garbage")) as opened:
        opened.create_topic("t", partitions=2, format="bytes").publish(0, [b"before"])
        yield opened


def connect(log):
    host, port = log.bootstrap.split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def closed(connection):
    """Whether the other side hangs up, whatever it said before."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


def unharmed(log):
    topic = log["t"]
    assert log.topics() == ["t"]
    assert topic.end_offsets() == [1, 0]
    assert topic.tail(0, 1)[0].value == b"before"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        struct.pack(">i", -1),
        struct.pack(">i", 0),
        struct.pack(">i", 1 << 30) + b"x" * 100,
        struct.pack(">i", 5) + b"hello",
        struct.pack(">ihhih", 10, 999, 0, 1, -1),
        struct.pack(">ihhih", 10, 0, 99, 1, -1),
        struct.pack(">ihhih", 10, 3, -1, 1, -1),
        struct.pack(">ihhih", 10, 3, 1, 1, 30000),
        struct.pack(">ihhihi", 14, 3, 1, 1, -1, 1 << 30),
        struct.pack(">ihhihi", 4 + 10, 3, 1, 1, -1, 100_001) + bytes(0),
        struct.pack(">ihhihi", (5 << 20) + 14, 3, 1, 1, -1, 0) + bytes(5 << 20),
        struct.pack(">ihhihhhii", 22, 0, 3, 1, -1, -1, -1, 1000, 1 << 30),
        struct.pack(">ihhihhhii", 22, 0, 3, 1, -1, -1, 7, 1000, 0),
    ],
)
def test_what_is_no_request_closes_its_connection(log, data):
    with connect(log) as connection:
        connection.sendall(data)
        assert closed(connection)
    unharmed(log)


def test_a_request_cut_off_by_a_hang_up_changes_nothing(log):
    with connect(log) as connection:
        connection.sendall(struct.pack(">ihhih", 1000, 0, 3, 1, -1) + b"\xff" * 50)
    unharmed(log)


def test_random_frames(log):
    """Every API and version with random bodies; mutations only of what can't be a whole, valid produce or create."""
    rng = random.Random(7)
    deadline = time.monotonic() + 20
    for _ in range(600):
        api = rng.choice([a for a in APIS.values() if a.name not in ("fetch", "delete_topics")])
        version = rng.randint(api.oldest, api.newest)
        body = rng.randbytes(rng.choice([0, 1, 7, 30, 200]))
        frame = (
            struct.pack(">hhih", api.key, version, 1, -1) + (b"\0" if version >= api.flexible else b"") + body
        )
        with connect(log) as connection:
            connection.sendall(struct.pack(">i", len(frame)) + frame)
            connection.shutdown(socket.SHUT_WR)
            assert closed(connection), (api.name, version, body)
        assert time.monotonic() < deadline
    unharmed(log)


def test_idle_connections_do_not_keep_others_out(log):
    idle = [connect(log) for _ in range(50)]
    unharmed(log)
    for connection in idle:
        connection.close()


def test_more_connections_than_the_limit_are_hung_up(tmp_path):
    """The limit is per broker, so this one is its own, with a small limit."""
    import subprocess
    import sys

    code = (
        "import sys; from millstream.log import serve; from millstream.log.node import Limits;"
        "serve(sys.argv[1], limits=Limits(connections=3), on_ready=lambda a: print(a.port, flush=True))"
    )
    server = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    port = int(server.stdout.readline())
    held = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(3)]
    try:
        time.sleep(0.2)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as extra:
            assert closed(extra)
        held.pop().close()
        time.sleep(0.2)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as welcome:
            welcome.sendall(struct.pack(">ihhih", 10, 18, 0, 5, -1))
            assert welcome.recv(100)
    finally:
        for connection in held:
            connection.close()
        server.terminate()
        server.communicate(timeout=20)
