"""The tables of the registry, and how its database is opened.

::

    versions       (model, number) -> digest of the bundle, time, metrics
    alias_changes  append-only: (model, alias) pointed to `number` from `at` on; the last row counts
    parity_reports a check of golden rows on a target
    deployments    a version went live on a target

Times are int64 microseconds since 1970 UTC. History is never rewritten: on SQLite triggers refuse UPDATE and
DELETE on every table. SQLite runs in WAL mode with a busy timeout, and a writing transaction begins
IMMEDIATE, so that what it reads can't change before it writes.
"""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

__all__ = ["alias_changes", "deployments", "open_engine", "parity_reports", "versions", "writing"]

BUSY_TIMEOUT = timedelta(seconds=20)

_metadata = sa.MetaData()

versions = sa.Table(
    "versions",
    _metadata,
    sa.Column("model", sa.String, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("digest", sa.String, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("metrics", sa.JSON, nullable=False),
)

alias_changes = sa.Table(
    "alias_changes",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("model", sa.String, nullable=False),
    sa.Column("alias", sa.String, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("previous", sa.Integer),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.ForeignKeyConstraint(["model", "number"], ["versions.model", "versions.number"]),
    sa.Index("alias_changes_by_alias", "model", "alias", "id"),
)

parity_reports = sa.Table(
    "parity_reports",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("model", sa.String, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("target", sa.String, nullable=False),
    sa.Column("rows", sa.Integer, nullable=False),
    sa.Column("largest_absolute", sa.Double, nullable=False),
    sa.Column("largest_relative", sa.Double, nullable=False),
    sa.Column("label_flips", sa.Integer, nullable=False),
    sa.Column("ties", sa.Integer, nullable=False),
    sa.Column("holds", sa.Boolean, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.ForeignKeyConstraint(["model", "number"], ["versions.model", "versions.number"]),
)

deployments = sa.Table(
    "deployments",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("model", sa.String, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("target", sa.String, nullable=False),
    sa.Column("location", sa.String, nullable=False),
    sa.Column("measured", sa.JSON, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.ForeignKeyConstraint(["model", "number"], ["versions.model", "versions.number"]),
)


def _append_only(table: sa.Table) -> None:
    for verb in ("UPDATE", "DELETE"):
        trigger = sa.DDL(  # type: ignore[no-untyped-call]
            f"CREATE TRIGGER IF NOT EXISTS {table.name}_no_{verb.lower()} BEFORE {verb} ON {table.name} "
            f"BEGIN SELECT RAISE(ABORT, '{table.name} is append-only'); END"
        )
        event.listen(table, "after_create", trigger.execute_if(dialect="sqlite"))


for _table in _metadata.sorted_tables:
    _append_only(_table)


def open_engine(path: Path) -> sa.Engine:
    """The engine of the registry at `path`, its tables in place; connections are opened per use."""
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.NullPool)

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, record: Any) -> None:
        connection.isolation_level = None  # BEGIN is ours, below
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT // timedelta(milliseconds=1)}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))

    with writing(engine).begin() as connection:
        _metadata.create_all(connection)
    return engine


def writing(engine: sa.Engine) -> sa.Engine:
    """The same engine for transactions that write: they take the write lock when they begin."""
    return engine.execution_options(begin="BEGIN IMMEDIATE")
