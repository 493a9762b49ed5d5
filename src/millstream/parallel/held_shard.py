"""A shard server among threads: a lock around it, and a place where waiting readers find their answers."""

from __future__ import annotations

import threading
from datetime import timedelta
from time import monotonic

from millstream.errors import DeadlineExceeded, TrainingError
from millstream.parallel.backup import Backup
from millstream.parallel.shard_messages import Clock, Pull, Push, Pushed, Reply, Unchanged, Values
from millstream.parallel.shard_server import ShardServer

__all__ = ["HeldShard"]


class HeldShard:
    """Messages from several threads, one at a time."""

    def __init__(self, server: ShardServer, backup: Backup | None) -> None:
        self._changed = threading.Condition()
        # guarded by _changed
        self._server, self._backup = server, backup
        self._answers: dict[tuple[int, int], list[Reply]] = {}

    @property
    def slowest(self) -> int:
        """Rounds that every source has finished."""
        with self._changed:
            return self._server.slowest

    def check(self, push: Push) -> None:
        """Raise what `push` would raise for a delta that doesn't fit."""
        self._server.check(push.delta)

    def push(self, push: Push) -> bool:
        """True if the delta was new."""
        with self._changed:
            replies = self._server.handle(push)
            self._record(push)
            return any(isinstance(reply, Pushed) and reply.fresh for reply in replies)

    def clock(self, clock: Clock) -> None:
        """End a round of a source; wakes the readers that waited for it."""
        with self._changed:
            replies = self._server.handle(clock)
            self._record(clock)
            for reply in replies:
                self._answers.setdefault((reply.source, reply.clock), []).append(reply)
            if replies:
                self._changed.notify_all()

    def pull(self, pull: Pull, deadline: timedelta) -> tuple[Values | Unchanged, float]:
        """The answer, and the seconds waited for it. Raises `DeadlineExceeded` after the deadline."""
        started = monotonic()
        who = (pull.source, pull.clock)
        with self._changed:
            replies = self._server.handle(pull)
            if not replies and not self._changed.wait_for(
                lambda: who in self._answers, deadline.total_seconds()
            ):
                raise DeadlineExceeded(
                    f"source {pull.source} at clock {pull.clock} waited {deadline} for the slowest, which has finished "
                    f"{self._server.slowest} rounds; see that every source calls clock()"
                )
            answer = replies[0] if replies else self._find(who)
        assert isinstance(answer, Values | Unchanged)
        return answer, 0.0 if replies else monotonic() - started

    def read(self) -> Values:
        """Everything, as it is now."""
        with self._changed:
            return self._server.read()

    def recover(self) -> None:
        """Put what the backup has in the place of the server."""
        with self._changed:
            if self._backup is None:
                raise TrainingError(
                    'a shard was lost and has no backup; make the server with backup="replica" or "journal"'
                )
            self._server = self._backup.recover()

    def _find(self, who: tuple[int, int]) -> Reply:
        found = self._answers[who]
        answer = found.pop()
        if not found:
            del self._answers[who]
        return answer

    def _record(self, message: Push | Clock) -> None:
        if self._backup is not None:
            self._backup.record(message, self._server)
