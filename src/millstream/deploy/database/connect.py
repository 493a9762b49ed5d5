"""Opening the database a user named: what can be wrong with the name is said before anything is read or written."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from millstream.errors import DeployError, InputError
from millstream.models.transactional import failure, naming, transactional

__all__ = ["open_database"]


def open_database(url: str, table: str) -> sa.Engine:
    """The engine of the database at `url`, which has been asked for its tables once.

    Raises InputError where `url` is no SQLAlchemy URL, or a SQLite file is missing or is none; DeployError where the
    driver is not installed, or the database does not answer; and, here and whenever the engine is used, where a SQLite
    file is locked or damaged, or its disk is full.
    """
    parsed = _parsed(url)
    shown = parsed.render_as_string(hide_password=True)
    place = f"the database {shown!r}"
    file = parsed.database if parsed.get_backend_name() == "sqlite" else None
    if file not in (None, "", ":memory:") and not Path(str(file)).is_file():
        raise InputError(f"no database file {file}; expected one with the table {table!r}")
    try:
        engine = sa.create_engine(parsed, poolclass=sa.NullPool)
    except ModuleNotFoundError as error:
        raise DeployError(
            f"{shown!r} needs the Python package {error.name!r}, which is not installed: install it, or name another "
            f"driver in the URL, '{parsed.get_backend_name()}+DRIVER://...'"
        ) from error
    except sa.exc.ArgumentError as error:
        raise InputError(f"{shown!r} is no database SQLAlchemy knows: {error}; check the URL") from error
    engine = transactional(engine)
    try:
        with engine.connect() as connection:
            sa.inspect(connection).get_table_names()
    except sa.exc.DBAPIError as error:
        failed = failure(error.orig, place, DeployError, opened=False)
        if failed is not None:
            raise failed from error
        if file is not None:
            raise InputError(
                f"{file} can't be read as a SQLite database: {error.orig}; expected one with the table {table!r}: "
                "check the path"
            ) from error
        raise DeployError(
            f"the database {shown!r} does not answer: {error.orig}; check that it runs, and the URL"
        ) from error
    return naming(engine, place, DeployError)


def _parsed(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
        parsed.get_dialect()
    except (sa.exc.ArgumentError, ValueError) as error:
        raise InputError(
            f"{url!r} is no database URL ({error}); expected an SQLAlchemy URL such as 'sqlite:///rides.db' or "
            "'postgresql+psycopg://user@host/rides'"
        ) from error
    return parsed
