"""The tables of the registry, and how its database is opened.

::

    versions       (model, number) -> digest of the bundle, time, metrics
    alias_changes  append-only: (model, alias) pointed to `number` from `at` on; the last row counts
    parity_reports a check of golden rows on a target
    deployments    a version went live on a target

Times are int64 microseconds since 1970 UTC. History is never rewritten: on SQLite triggers refuse UPDATE and
DELETE on every table.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import event

from millstream.errors import InputError, MillstreamError, ModelError
from millstream.models.transactional import failure, naming, transactional, writing

__all__ = ["alias_changes", "deployments", "open_engine", "parity_reports", "versions"]

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
    """The engine of the registry at `path`, its tables in place; connections are opened per use.

    Raises InputError if what is at `path` is no SQLite database, or can't be written; ModelError if another process
    keeps it locked, and, here and whenever the engine is used, if it is damaged or its disk is full.
    """
    try:
        return naming(_opened(path), f"the registry's database {path}", ModelError)
    except sa.exc.DBAPIError as error:
        raise _unusable(path, error.orig) from error
    except sqlite3.Error as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, reason: BaseException | None) -> MillstreamError:
    failed = failure(reason, f"the registry's database {path}", ModelError, opened=False)
    return failed or InputError(
        f"{path} is not the database of a registry: {reason}; expected a SQLite file that can be written, or none: "
        "take another folder"
    )


def _opened(path: Path) -> sa.Engine:
    engine = transactional(sa.create_engine(f"sqlite:///{path}", poolclass=sa.NullPool))
    raw = engine.raw_connection()
    try:
        raw.cursor().execute("PRAGMA journal_mode = WAL")  # kept by the file; not possible in a transaction
    finally:
        raw.close()
    with writing(engine).begin() as connection:
        _metadata.create_all(connection)
    return engine
