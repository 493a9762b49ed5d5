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

__all__ = ["BUSY_TIMEOUT", "transactional", "writing"]

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


def writing(engine: sa.Engine) -> sa.Engine:
    """The same engine for transactions that write: on SQLite they take the write lock when they begin."""
    return engine.execution_options(begin="BEGIN IMMEDIATE")
