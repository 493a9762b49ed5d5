"""How a broker begins and ends: it never outlives its starter, and leaves no lock behind."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from millstream.errors import AddressInUse, BrokerUnavailable, InputError, LogError
from millstream.log import Log, broker_of, serve
from millstream.log.store import Store

STARTER = """
import sys, time
from millstream.log import Log
log = Log(sys.argv[1])
print(log.broker.pid, flush=True)
time.sleep(60)
"""


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


def gone(pid, seconds=15):
    deadline = time.monotonic() + seconds
    while alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def starter(tmp_path):
    """A program that has started a broker, and that broker's pid."""
    process = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    pid = int(process.stdout.readline())
    yield process, pid
    process.kill()
    process.communicate()


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
def test_the_broker_ends_with_its_starter(tmp_path, starter, ending):
    process, broker = starter
    assert alive(broker)
    os.killpg(process.pid, ending)  # as a terminal's Ctrl-C goes to the whole group
    process.wait(20)
    assert gone(broker)
    assert not (tmp_path / "lock").exists()
    assert broker_of(tmp_path) is None
    Store(tmp_path).close()


@pytest.mark.parametrize("moment", [0.15, 0.3, 0.45, 0.6, 0.8, 1.1])
def test_ctrl_c_while_it_starts_leaves_no_orphan(tmp_path, moment):
    process = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(moment)
    os.killpg(process.pid, signal.SIGINT)
    process.wait(20)
    deadline = time.monotonic() + 15
    while serving(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    Store(tmp_path).close()


def serving(directory):
    """Broker processes of `directory`, whoever started them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue  # it ended while we looked
        if b"millstream.log.broker" in words and str(directory).encode() in words:
            found.append(int(path.parent.name))
    return found


def test_a_killed_broker_leaves_no_lock_and_is_started_again(tmp_path):
    with Log(tmp_path) as log:
        log.create_topic("t", format="bytes").publish(0, [b"a"])
        os.kill(log.broker.pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while log.broker is not None:
            assert time.monotonic() < deadline
        with Log(tmp_path) as again:
            assert again["t"].end_offsets() == [1]


def test_without_a_broker_calls_fail_within_their_deadline(tmp_path):
    with Log(tmp_path) as log:
        topic = log.create_topic("t", format="bytes")
        os.kill(log.broker.pid, signal.SIGKILL)
        with topic.consumer({0: 0}) as consumer, pytest.raises(BrokerUnavailable, match="is it running"):
            poll_until_error(consumer)
        with pytest.raises(BrokerUnavailable, match="no answer from the broker"):
            topic.publish(0, [b"a"])


def poll_until_error(consumer):
    from datetime import timedelta

    for _ in range(20):
        consumer.poll(10, timedelta(seconds=1))


def test_four_programs_at_once_share_one_broker(tmp_path):
    code = (
        "import sys, time; from millstream.log import Log; log = Log(sys.argv[1]); print(log.broker.pid, flush=True);"
        "sys.stdin.read()"
    )
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    try:
        assert len({p.stdout.readline() for p in programs}) == 1
    finally:
        for program in programs:
            program.communicate(timeout=30)
    assert broker_of(tmp_path) is None


def test_a_taken_port_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressInUse, match=f"port {port} .* taken"):
            Log(tmp_path, port=port)
        with pytest.raises(AddressInUse):
            serve(tmp_path, port=port)
    assert not (tmp_path / "lock").exists()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.org", "::"])
def test_only_loopback_is_served(tmp_path, host):
    with pytest.raises(InputError, match="neither TLS nor authentication"):
        serve(tmp_path, host)


def test_a_directory_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LogError, match="can't make the directory"):
        Log(tmp_path / "file")


def test_a_directory_not_writable_is_refused():
    code = """
import os, sys
from millstream.log.store import Store
if os.geteuid() == 0:
    os.seteuid(65534)
Store(sys.argv[1])
"""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chmod(directory, 0o555)
        refused = subprocess.run(
            [sys.executable, "-c", code, directory], capture_output=True, text=True, timeout=60, check=False
        )
        assert "millstream.errors.LogError: can't write in" in refused.stderr
        assert not os.listdir(directory)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
def test_serving_in_the_foreground_ends_cleanly(tmp_path, ending):
    code = (
        "import sys; from millstream.log import serve;"
        "serve(sys.argv[1], on_ready=lambda a: print(a.bootstrap, flush=True)); print('ended')"
    )
    server = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    bootstrap = server.stdout.readline().strip()
    with Log(tmp_path) as log:
        assert (log.bootstrap, log.broker.pid) == (bootstrap, server.pid)
        log.create_topic("t", format="bytes").publish(0, [b"a"])
        server.send_signal(ending)
        assert server.communicate(timeout=20)[0] == "ended\n"
    assert server.returncode == 0
    assert not (tmp_path / "lock").exists()
