"""Files and folders that are either there, whole and on the disk, or not there.

What is written goes under another name beside its place, is synced, and takes its name in one rename; then
the directory that holds the name is synced too. What a killed writer leaves behind begins with a dot, ends in
``.unfinished`` and can be deleted. https://man7.org/linux/man-pages/man2/fsync.2.html
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

__all__ = ["durable_file", "durable_folder"]


@contextmanager
def durable_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write; when the block ends it is at `path`, in place of what was there.

    Where the block raises, `path` is as it was.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / "answer"
    >>> with durable_file(place) as file:
    ...     _ = file.write(b"42")
    ...     place.exists()
    False
    >>> place.read_bytes()
    b'42'
    """
    unfinished = _beside(path)
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    _sync(path.parent)


@contextmanager
def durable_folder(path: Path) -> Iterator[Path]:
    """An empty folder to write files into; when the block ends it is at `path`, its files synced.

    Where the block raises, or `path` is a folder with something in it already (OSError), nothing of it stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _beside(path)
    unfinished.mkdir()
    try:
        yield unfinished
        for written in unfinished.iterdir():
            _sync(written)
        _sync(unfinished)
        unfinished.rename(path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)  # gone already if the rename happened
    _sync(path.parent)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.unfinished")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
