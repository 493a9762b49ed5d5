"""One writer a directory: an advisory lock on ``DIR/lock``, with the owner's pid in it.

The kernel releases the lock with its owner's death, however it died, so a stale file never blocks; the pid is
for the message alone. A clean release also removes the file.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from millstream.errors import LogError, LogLocked

__all__ = ["DirectoryLock", "owner"]


class DirectoryLock:
    """Held from construction to `release`.

    Raises `LogLocked` naming the owner's pid, and `LogError` when the directory can't be written.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "lock"
        self._fd = self._take(directory)

    def _take(self, directory: Path) -> int:
        while True:
            try:
                fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except OSError as fault:
                raise LogError(
                    f"can't write in {directory}: {fault.strerror}; give the log a directory of its own"
                ) from fault
            try:
                _flock_past_probes(fd)
            except BlockingIOError:
                pid = os.pread(fd, 32, 0).decode(errors="replace").strip()
                os.close(fd)
                raise LogLocked(
                    f"{directory} is owned by process {pid or '?'}; open it with millstream.Log, which finds that "
                    "process's broker, or stop it first"
                ) from None
            if self._still_there(fd):
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
                return fd
            os.close(fd)  # the previous owner removed the file between our open and our lock

    def _still_there(self, fd: int) -> bool:
        try:
            return os.stat(self.path).st_ino == os.fstat(fd).st_ino
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Remove the file and let go; may be called twice."""
        if self._fd >= 0:
            self.path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1


def _flock_past_probes(fd: int) -> None:
    """Lock exclusively; a probe by `owner` holds the shared lock for an instant, so try for a tenth of a second."""
    for _ in range(5):
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)
    return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def owner(directory: Path) -> int | None:
    """The pid that holds the lock of `directory` now, or None."""
    try:
        fd = os.open(directory / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, 32, 0).decode(errors="replace").strip()
        return int(text) if text.isdigit() else None
    else:
        return None
    finally:
        os.close(fd)
