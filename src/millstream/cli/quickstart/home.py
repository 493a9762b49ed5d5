"""The folder of a quick start: claimed by one run at a time, cleared of what an earlier run left."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from millstream.errors import InputError, JobRunning

__all__ = ["claim"]

MARK = ".millstream-quickstart"


@contextmanager
def claim(home: Path) -> Iterator[Path]:
    """An empty folder at `home`, locked while the context lasts.

    A folder that holds anything but an earlier quick start is refused, so no user's file is ever removed.

    Raises:
        InputError: `home` is not empty and not an earlier quick start, or can't be written.
        JobRunning: another process runs a quick start there.
    """
    mark = home / MARK
    if home.exists() and not mark.exists() and (not home.is_dir() or any(home.iterdir())):
        raise InputError(
            f"{home} is not empty and no earlier quick start; choose another folder: --output DIR"
        )
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = os.open(mark, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(
            f"can't write to {home}: {error.strerror}; choose another folder: --output DIR"
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(lock, 32).decode() or "unknown"
            raise JobRunning(
                f"a quick start already runs in {home} (pid {owner}); wait for it, or choose --output DIR"
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        for entry in home.iterdir():
            if entry != mark:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        yield home
    finally:
        os.close(lock)
