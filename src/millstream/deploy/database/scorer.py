"""Predictions inside a database, all of them or none.

Rows are read in the order of their key and predictions written into another table of the same database, in
one transaction: whoever reads the table sees the predictions from before the run or those from after it,
whenever the run is killed. With ``as_sql=True`` no row leaves the database: the model itself runs there, as
one plain INSERT of a SELECT (see `expression`), once `types` has counted no row that the Scorer would refuse. The
query of `sql` and the expressions of `expression` have no such guard: there the database converts, text to 0 on SQLite.

The target table has the key, the flat outputs (see `models.outputs`) and ``model``, the version that
answered.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import onnx
import pyarrow as pa
import sqlalchemy as sa

from millstream.deploy.database.connect import open_database
from millstream.deploy.database.expression import compile_graph
from millstream.deploy.database.types import refuse_other_types
from millstream.deploy.progress import Progress
from millstream.deploy.target import MODEL_COLUMN, Target
from millstream.errors import InputError, SchemaError
from millstream.models import Signature, Version, flat, flat_schema
from millstream.models.feeds import flat_rows
from millstream.models.transactional import writing

__all__ = ["DatabaseReport", "DatabaseScorer"]

BATCH_ROWS = 8192


@dataclass(frozen=True)
class DatabaseReport:
    """What a run did."""

    table: str
    rows: int
    seconds: float


class DatabaseScorer(Target):
    """Scores `table` of the database at `url` (an SQLAlchemy URL) into the table `into`.

    `table` needs the model's columns and a primary key of one column; on SQLite its rowid will do. `into` is
    made if it is not there; if it is, it must have the columns of a former run, whose rows are replaced.

    as_sql: let the database compute the model itself; Refused if an operator has no form in SQL. Rows that don't
    match the signature are refused as they are without it, before the first is written.

    Raises InputError where `url` is no SQLAlchemy URL or names no database file, or `table` is a view or has null as a
    key; DeployError where the database or its driver can't be reached, or a SQLite file is locked by another process,
    damaged, or out of room.

    >>> import sqlite3, tempfile, numpy as np
    >>> from millstream.learn import KMeans
    >>> from millstream.models import Registry
    >>> X = np.array([[0.0, 0.0], [0.0, 1.0], [9.0, 9.0], [9.0, 8.0]])
    >>> folder = tempfile.mkdtemp()
    >>> version = Registry(folder + "/models").register("zones", KMeans(2, random_state=7).fit(X), data=X)
    >>> with sqlite3.connect(folder + "/rides.db") as rides:
    ...     _ = rides.execute("CREATE TABLE rides (id INTEGER PRIMARY KEY, x0 REAL, x1 REAL)")
    ...     _ = rides.execute("INSERT INTO rides VALUES (1, 0.0, 0.5), (2, 9.0, 8.5)")
    >>> rides.close()
    >>> DatabaseScorer(version, f"sqlite:///{folder}/rides.db", table="rides", into="zones").run().rows
    2
    """

    target = "database"

    def __init__(
        self,
        version: Version,
        url: str,
        *,
        table: str,
        into: str,
        as_sql: bool = False,
        progress: Progress | None = None,
    ) -> None:
        super().__init__(version)
        self.url = url
        self.table = table
        self.into = into
        self.as_sql = as_sql
        self._progress = progress

    def run(self) -> DatabaseReport:
        """Check the golden rows in the database, then write all predictions in one transaction."""
        began = time.monotonic()
        self.verify()
        with writing(self._engine()).begin() as connection:
            source = self._source(connection)
            _require_keys(connection, source)
            rows = self._score(connection, source, self._destination(connection, _key(source)))
        report = DatabaseReport(self.into, rows, time.monotonic() - began)
        location = sa.make_url(self.url).render_as_string(hide_password=True)
        self._went_live(f"{location}#{self.into}", rows=rows, seconds=report.seconds)
        return report

    def golden_answers(self) -> pa.Table:
        """Golden rows in a temporary table of the database, scored there as all others are; nothing stays."""
        rows = flat_rows(self.version.signature, self.version.golden.inputs)
        name = f"millstream_golden_{uuid4().hex}"
        source = _temporary(name, sa.Column("golden_row", sa.Integer, primary_key=True), rows.schema)
        into = _temporary(
            f"{name}_answers", sa.Column("golden_row", sa.Integer, primary_key=True), self._outputs()
        )
        into.append_column(sa.Column(MODEL_COLUMN, sa.String))
        with self._engine().connect() as connection, connection.begin() as transaction:
            source.create(connection)
            into.create(connection)
            records = [{"golden_row": i, **row} for i, row in enumerate(rows.to_pylist())]
            connection.execute(source.insert(), records)
            self._score(connection, source, into)
            found = connection.execute(
                sa.select(*_columns(into, self._outputs().names)).order_by(into.c.golden_row)
            )
            answers = _to_table([tuple(row) for row in found], self._outputs())
            transaction.rollback()
        return answers

    def expression(self) -> dict[str, sa.ColumnElement[Any]]:
        """Every flat output as an SQLAlchemy expression over the columns of `table`."""
        table = sa.table(self.table)
        return self._expressions(lambda name: sa.column(name, _selectable=table))

    def sql(self) -> str:
        """The model as one plain SELECT over `table`: its key, then every flat output under its name."""
        engine = self._engine()
        with engine.connect() as connection:
            source = self._source(connection)
        query = self._select(source)
        return str(query.compile(dialect=engine.dialect, compile_kwargs={"literal_binds": True}))

    def _engine(self) -> sa.Engine:
        return open_database(self.url, self.table)

    def _outputs(self) -> pa.Schema:
        return flat_schema(self.version.signature.output_schema)

    def _source(self, connection: sa.Connection) -> sa.Table:
        """The table that is scored, as it is in the database."""
        metadata = sa.MetaData()
        try:
            source = sa.Table(self.table, metadata, autoload_with=connection)
        except sa.exc.NoSuchTableError as error:
            known = sorted(sa.inspect(connection).get_table_names())
            raise InputError(f"no table {self.table!r} in the database; it has {known}") from error
        for name in self.version.signature.flat_columns:
            if name not in source.c:
                raise SchemaError(f"table {self.table!r} lacks column {name!r}; it has {source.c.keys()}")
        if len(source.primary_key) != 1 and not _has_rowid(connection, source):
            raise _no_key(source)
        return source

    def _destination(self, connection: sa.Connection, key: sa.ColumnElement[Any]) -> sa.Table:
        """The table of predictions, empty."""
        name = str(key.name) if isinstance(key, sa.ColumnClause) else "rowid"
        expected = [name, *self._outputs().names, MODEL_COLUMN]
        if len(set(expected)) != len(expected):
            raise SchemaError(f"the key {name!r} has the name of a prediction; rename it")
        metadata = sa.MetaData()
        if sa.inspect(connection).has_table(self.into):
            found = sa.Table(self.into, metadata, autoload_with=connection)
            if found.c.keys() != expected:
                raise SchemaError(
                    f"table {self.into!r} has the columns {found.c.keys()}, expected {expected}; choose another name"
                )
            connection.execute(sa.delete(found))
            return found
        kind = sa.BigInteger if isinstance(key.type, sa.types.NullType) else key.type
        into = sa.Table(
            self.into,
            metadata,
            sa.Column(name, kind, primary_key=True, autoincrement=False),
            *_sql_columns(self._outputs()),
            sa.Column(MODEL_COLUMN, sa.String, nullable=False),
        )
        into.create(connection)
        return into

    def _score(self, connection: sa.Connection, source: sa.Table, into: sa.Table) -> int:
        if self.as_sql:
            refuse_other_types(connection, source, self.version.signature)
            query = self._select(source).add_columns(sa.literal(str(self.version)))
            return connection.execute(into.insert().from_select(into.c.keys(), query)).rowcount
        rows = 0
        every = connection.execute(sa.select(sa.func.count()).select_from(source)).scalar_one()
        for keys, columns in _batches(connection, source, self.version.signature):
            predictions = flat(self._scorer.predict(columns))
            _insert(connection, into, keys, predictions, str(self.version))
            rows += len(keys)
            if self._progress is not None:
                self._progress(rows, every)
        return rows

    @property
    def _scorer(self) -> Any:
        if not hasattr(self, "_loaded"):
            self._loaded = self.version.scorer()
        return self._loaded

    def _select(self, source: sa.Table) -> sa.Select[Any]:
        outputs = self._expressions(lambda name: source.c[name])
        return sa.select(_key(source), *(value.label(name) for name, value in outputs.items()))

    def _expressions(self, column: Any) -> dict[str, sa.ColumnElement[Any]]:
        model = onnx.load_model_from_string(self.version.bundle.read("model.onnx"))
        return compile_graph(model, self.version.signature, column)


def _key(source: sa.Table) -> sa.ColumnElement[Any]:
    """The column that orders and names the rows."""
    primary = list(source.primary_key.columns)
    if len(primary) == 1:
        return primary[0]
    if source.dialect_options["sqlite"].get("with_rowid", True) and "rowid" not in source.c:
        return sa.column("rowid", sa.BigInteger, _selectable=source)
    raise _no_key(source)


def _has_rowid(connection: sa.Connection, source: sa.Table) -> bool:
    views = sa.inspect(connection).get_view_names()
    return connection.dialect.name == "sqlite" and source.name not in views


def _no_key(source: sa.Table) -> InputError:
    return InputError(
        f"table {source.name!r} has no primary key of one column, which names the rows; add one, or, if it is a view, "
        "copy its rows into a table that has one"
    )


def _require_keys(connection: sa.Connection, source: sa.Table) -> None:
    """Refuse nulls, which SQLite lets into a primary key that is no INTEGER."""
    key = _key(source)
    nulls = connection.scalar(sa.select(sa.func.count()).select_from(source).where(key.is_(None)))
    if nulls:
        raise InputError(
            f"{nulls} rows of table {source.name!r} have null as their primary key {key.name!r}; expected a value that "
            "names the row: give them one, or delete them, and run again"
        )


def _batches(
    connection: sa.Connection, source: sa.Table, signature: Signature
) -> Iterator[tuple[list[Any], dict[str, list[Any]]]]:
    """Keys and input columns, `BATCH_ROWS` rows at a time in the order of the key."""
    key = _key(source)
    names = signature.flat_columns
    query = sa.select(key, *(source.c[name] for name in names)).order_by(key).limit(BATCH_ROWS)
    found = connection.execute(query).all()
    while found:
        columns = list(zip(*found, strict=True))
        yield list(columns[0]), {name: list(column) for name, column in zip(names, columns[1:], strict=True)}
        found = connection.execute(query.where(key > found[-1][0])).all()


def _insert(
    connection: sa.Connection, into: sa.Table, keys: list[Any], predictions: pa.RecordBatch, model: str
) -> None:
    key_name = next(iter(into.primary_key.columns)).name
    records = predictions.to_pylist()
    for key, record in zip(keys, records, strict=True):
        record[key_name] = key
        record[MODEL_COLUMN] = model
    connection.execute(into.insert(), records)


def _sql_columns(schema: pa.Schema) -> list[sa.Column[Any]]:
    return [sa.Column(field.name, _sql_type(field.type)) for field in schema]


def _sql_type(kind: pa.DataType) -> Any:
    if pa.types.is_floating(kind):
        return sa.Double
    if pa.types.is_boolean(kind):
        return sa.Boolean
    if pa.types.is_integer(kind):
        return sa.BigInteger
    return sa.String


def _temporary(name: str, key: sa.Column[Any], schema: pa.Schema) -> sa.Table:
    return sa.Table(name, sa.MetaData(), key, *_sql_columns(schema), prefixes=["TEMPORARY"])


def _columns(table: sa.Table, names: list[str]) -> list[sa.Column[Any]]:
    return [table.c[name] for name in names]


def _to_table(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)
