"""A broker as a child process: started when a directory has none, ended with its starter."""

from __future__ import annotations

import atexit
import os
import select
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from millstream import errors
from millstream.errors import BrokerUnavailable, LogError, LogLocked
from millstream.log.address import Address, find
from millstream.log.broker import Ready

__all__ = ["Child", "find_or_start"]

START_SECONDS = 60.0
STOP_SECONDS = 20.0


class Child:
    """A broker process of ours. `stop` ends it cleanly; so does the end of this process, whatever ends it."""

    def __init__(self, process: subprocess.Popen[bytes], address: Address) -> None:
        self._process = process
        self._owner = os.getpid()
        self.address = address
        atexit.register(self.stop)

    @classmethod
    def start(cls, directory: Path, port: int) -> Child:
        """Start and wait until it serves; raises what the broker could not do (`LogLocked`, `AddressInUse`, ...)."""
        command = [sys.executable, "-m", "millstream.log.broker"]
        process = subprocess.Popen(
            [*command, "--dir", str(directory), "--port", str(port), "--parent", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in our terminal is for us; we then stop the broker
        )
        ready = _read_ready(process)
        if ready.address is None:
            process.wait()
            raise getattr(errors, ready.error)(ready.message)
        return cls(process, ready.address)

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after `STOP_SECONDS`; may be called twice. In a fork of the starter it does nothing."""
        if os.getpid() != self._owner:
            return
        atexit.unregister(self.stop)
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def _read_ready(process: subprocess.Popen[bytes]) -> Ready:
    assert process.stdout is not None
    try:
        with process.stdout as pipe:
            if select.select([pipe], [], [], START_SECONDS)[0] and (line := pipe.readline()):
                return msgspec.json.decode(line, type=Ready)
    except BaseException:  # Ctrl-C while the broker starts: no orphan
        process.kill()
        process.wait()
        raise
    process.kill()
    code = process.wait()
    raise BrokerUnavailable(
        f"the broker process ended with code {code} before it served; its message stands on standard error"
    )


def find_or_start(directory: Path, port: int) -> tuple[Address, Child | None]:
    """The address of the directory's broker, and the child if it was started here.

    Of several processes that open a directory at once, one starts the broker and the others find it.
    """
    deadline = time.monotonic() + START_SECONDS
    while True:
        address = find(directory)
        if address is not None:
            if port not in (0, address.port):
                raise LogError(
                    f"the broker of {directory} (pid {address.pid}) listens on port {address.port}, not {port}"
                )
            return address, None
        try:
            child = Child.start(directory, port)
        except LogLocked:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)  # another process has the lock and is about to publish its address
        else:
            return child.address, child
