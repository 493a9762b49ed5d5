"""The store: the topics of one directory, opened by one process at a time. No sockets, no threads.

::

    DIR/lock                            flock, with the owner's pid
    DIR/store.json                      {"id", "leader_epoch", "clean"}
    DIR/topics/NAME/topic.json          {"id", "partitions"}
    DIR/topics/NAME/P/OFFSET.log        segments of partition P, see :mod:`millstream.log.segment`
    DIR/staging/                        topics being made or removed; emptied on open

A topic appears and disappears by one rename, so a crash leaves it whole or absent. After an unclean stop every
partition starts a new leader epoch and may have a torn tail to cut; "clean" is true from a clean stop until every
partition is open again, so an open that fails changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from millstream.errors import CorruptBatch, InputError, LogError, LogFull, TopicExists, UnknownTopic
from millstream.log.lock import DirectoryLock
from millstream.log.partition import NO_ROOM, SEGMENT_BYTES, Partition
from millstream.log.segment import sync_directory
from millstream.log.topic_name import check_topic_name

__all__ = ["MAX_PARTITIONS", "Store", "TopicFiles", "partition_directory"]

MAX_PARTITIONS = 4096

T = TypeVar("T", bound=msgspec.Struct)


class _Identity(msgspec.Struct):
    id: str
    leader_epoch: int
    clean: bool


class _TopicMeta(msgspec.Struct):
    id: str
    partitions: int


class TopicFiles(NamedTuple):
    """An open topic: its name, its id and its partitions by number."""

    name: str
    id: uuid.UUID
    partitions: list[Partition]


def partition_directory(directory: Path, topic: str, partition: int) -> Path:
    """Where the segments of a partition lie."""
    return directory / "topics" / topic / str(partition)


class Store:
    """Every topic of `directory`, which is created if absent. `with`, or `close` it.

    Raises `LogLocked` when another process has it open and `LogError` when it can't be written.

    >>> import tempfile
    >>> from millstream.log.record_batch import Record, decode, encode
    >>> with tempfile.TemporaryDirectory() as directory, Store(directory) as store:
    ...     clicks = store.create_topic("clicks", partitions=2).partitions[0]
    ...     clicks.append(memoryview(encode([Record(0, 1, None, b"one"), Record(0, 2, None, b"two")])))
    ...     clicks.high_watermark, clicks.flush()
    ...     [r.value for batch in clicks.batches() for r in decode(batch)]
    0
    (0, 2)
    [b'one', b'two']
    """

    def __init__(self, directory: str | os.PathLike[str], *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.directory = Path(directory)
        self.segment_bytes = segment_bytes
        self.topics: dict[str, TopicFiles] = {}
        self._closed = False
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise LogError(f"can't make the directory {self.directory}: {fault.strerror}") from fault
        self._lock = DirectoryLock(self.directory)
        try:
            self._open()
        except OSError as fault:
            self._release()
            raise LogError(f"can't open the log in {self.directory}: {fault}") from fault
        except LogError:
            self._release()
            raise

    def _open(self) -> None:
        self._identity = self._start_epoch()
        (self.directory / "topics").mkdir(exist_ok=True)
        self._staging = self.directory / "staging"
        shutil.rmtree(self._staging, ignore_errors=True)
        self._staging.mkdir(exist_ok=True)
        for path in sorted((self.directory / "topics").iterdir()):
            self.topics[path.name] = self._open_topic(path.name)
        self._identity.clean = False
        _write(self.directory / "store.json", self._identity)

    def _start_epoch(self) -> _Identity:
        path = self.directory / "store.json"
        if not path.exists():
            return _Identity(uuid.uuid4().hex, 0, False)
        identity = _read(path, _Identity)
        identity.leader_epoch += 0 if identity.clean else 1
        return identity

    @property
    def id(self) -> str:
        """Names this store in Metadata replies as the cluster's id."""
        return self._identity.id

    @property
    def leader_epoch(self) -> int:
        return self._identity.leader_epoch

    def _open_topic(self, name: str) -> TopicFiles:
        meta = _read(self.directory / "topics" / name / "topic.json", _TopicMeta)
        partitions = [
            Partition(
                partition_directory(self.directory, name, number),
                segment_bytes=self.segment_bytes,
                leader_epoch=self.leader_epoch,
                clean=self._identity.clean,
            )
            for number in range(meta.partitions)
        ]
        return TopicFiles(name, uuid.UUID(meta.id), partitions)

    def create_topic(self, name: str, partitions: int = 1) -> TopicFiles:
        """Create and open; raises `InputError`, `TopicExists`, `LogFull` or `LogError`, and then nothing is there."""
        check_topic_name(name)
        if not 1 <= partitions <= MAX_PARTITIONS:
            raise InputError(f"topic {name!r}: {partitions} partitions; expected 1 to {MAX_PARTITIONS}")
        if name in self.topics:
            raise TopicExists(
                f"topic {name!r} is already there with {len(self.topics[name].partitions)} partitions"
            )
        staged = self._staging / uuid.uuid4().hex
        try:
            for number in range(partitions):
                (staged / str(number)).mkdir(parents=True)
            _write(staged / "topic.json", _TopicMeta(uuid.uuid4().hex, partitions))
            staged.rename(self.directory / "topics" / name)
            sync_directory(self.directory / "topics")
            self.topics[name] = self._open_topic(name)
        except OSError as fault:
            shutil.rmtree(staged, ignore_errors=True)
            shutil.rmtree(self.directory / "topics" / name, ignore_errors=True)
            kind = LogFull if fault.errno in NO_ROOM else LogError
            raise kind(f"can't create topic {name!r} in {self.directory}: {fault.strerror}") from fault
        return self.topics[name]

    def delete_topic(self, name: str) -> None:
        """Remove a topic and its records; raises `UnknownTopic`."""
        topic = self.topic(name)
        doomed = self._staging / uuid.uuid4().hex
        (self.directory / "topics" / name).rename(doomed)
        sync_directory(self.directory / "topics")
        del self.topics[name]
        for partition in topic.partitions:
            partition.close()
        shutil.rmtree(doomed, ignore_errors=True)

    def topic(self, name: str) -> TopicFiles:
        """The open topic `name`; raises `UnknownTopic`."""
        try:
            return self.topics[name]
        except KeyError:
            known = ", ".join(sorted(self.topics)) or "none"
            raise UnknownTopic(f"no topic {name!r} in {self.directory}; there are: {known}") from None

    def partitions(self) -> Iterator[Partition]:
        for topic in self.topics.values():
            yield from topic.partitions

    def close(self) -> None:
        """Flush, mark the stop as clean and let go of the directory; may be called twice."""
        if self._closed:
            return
        self._closed = True
        clean = True
        for partition in self.partitions():
            try:
                partition.flush()
            except LogError:
                clean = False
            clean = clean and partition.broken is None
        if clean:
            self._identity.clean = True
            with contextlib.suppress(
                FileNotFoundError
            ):  # the directory was removed: there is nothing to mark
                _write(self.directory / "store.json", self._identity)
        self._release()

    def _release(self) -> None:
        """The way out of a failed open: nothing stays open or locked."""
        for partition in self.partitions():
            partition.close()
        self.topics.clear()
        self._lock.release()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _read(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, msgspec.DecodeError) as fault:
        raise CorruptBatch(f"{path} is damaged ({fault}); restore it from a copy") from fault


def _write(path: Path, value: msgspec.Struct) -> None:
    """Replace `path` by one rename, on disk before it returns."""
    fresh = path.with_suffix(".new")
    with open(fresh, "wb") as file:
        file.write(msgspec.json.encode(value))
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    sync_directory(path.parent)
