"""SQLite with the transactions the SQL standard means.

Python's driver commits before some statements and begins late; here BEGIN is explicit, so that everything
between begin and commit, CREATE TABLE included, is one transaction. A busy timeout makes writers wait for
each other; a writing transaction begins IMMEDIATE, so that what it has read can't change before it writes.
Other databases are left as they are. https://www.sqlite.org/lang_transaction.html
"""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from millstream.errors import MillstreamError

__all__ = ["BUSY_TIMEOUT", "failure", "naming", "transactional", "writing"]

BUSY_TIMEOUT = timedelta(seconds=20)


def transactional(engine: sa.Engine) -> sa.Engine:
    """The same engine, prepared."""
    if engine.dialect.name != "sqlite":
        return engine

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, record: Any) -> None:
        connection.isolation_level = None  # BEGIN is ours, below
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT // timedelta(milliseconds=1)}")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))

    return engine


def naming(engine: sa.Engine, place: str, kind: type[MillstreamError]) -> sa.Engine:
    """The same engine; where the database itself fails, what is raised is a `kind` that names `place`.

    What a statement did wrong, a constraint it broke say, is raised as it was.
    """

    @event.listens_for(engine, "handle_error")
    def tell(context: sa.engine.ExceptionContext) -> None:
        told = failure(context.original_exception, place, kind, opened=True)
        if told is not None:
            raise told from context.original_exception

    return engine


def failure(
    error: BaseException | None, place: str, kind: type[MillstreamError], *, opened: bool
) -> MillstreamError | None:
    """What to raise for a failure of SQLite itself, or None where `error` is none.

    opened: the database has been read before; that a file is none, or can't be opened, is a failure only then.
    """
    step = _next_step(error, opened)
    return None if step is None else kind(f"{place} fails: {error}; {step}")


def _next_step(error: BaseException | None, opened: bool) -> str | None:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF  # without its extension
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return (
            f"another process kept it locked for {BUSY_TIMEOUT.total_seconds():g} seconds, nothing was written: wait "
            "until that one is done, or end it, and try again"
        )
    if code == sqlite3.SQLITE_CORRUPT or (opened and code == sqlite3.SQLITE_NOTADB):
        return "the file is damaged: restore it from a copy"
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return "nothing was written: make room on its disk, and try again"
    if opened and code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return "nothing was written: make the file and its folder readable and writable, and try again"
    return None


def writing(engine: sa.Engine) -> sa.Engine:
    """The same engine for transactions that write: on SQLite they take the write lock when they begin."""
    return engine.execution_options(begin="BEGIN IMMEDIATE")
