import sqlite3
from datetime import timedelta

import pyarrow as pa
import pytest

import millstream as ms
from millstream.errors import DeployError, InputError, SchemaError, SignatureError
from millstream.models import compare

BOTH = pytest.mark.parametrize("as_sql", [False, True])


@pytest.fixture
def database(tmp_path, table):
    connection = sqlite3.connect(tmp_path / "rides.db")
    connection.execute("CREATE TABLE rides (id INTEGER PRIMARY KEY, borough TEXT, fare REAL, hour INTEGER)")
    values = zip(*(table[name].to_pylist() for name in table.column_names), strict=True)
    connection.executemany("INSERT INTO rides VALUES (?, ?, ?, ?)", values)
    connection.commit()
    yield connection
    connection.close()


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'rides.db'}"


def answers(connection, name="answers"):
    found = connection.execute(f"SELECT * FROM {name} ORDER BY 1")  # noqa: S608
    columns = [column[0] for column in found.description]
    return pa.table(dict(zip(columns, map(list, zip(*found, strict=True)), strict=True)))


@BOTH
def test_every_row_is_answered_in_another_table(version, database, url, expected, as_sql):
    report = ms.DatabaseScorer(version, url, table="rides", into="answers", as_sql=as_sql).run()
    found = answers(database)
    assert found.column_names == ["id", "label", "probability", "model"]
    assert found["id"].to_pylist() == list(range(1000))
    assert set(found["model"].to_pylist()) == {"long@1"}
    assert compare(expected, found).holds
    assert report.rows == 1000


@BOTH
def test_a_second_run_replaces_the_first(version, database, url, expected, as_sql):
    scorer = ms.DatabaseScorer(version, url, table="rides", into="answers", as_sql=as_sql)
    scorer.run()
    database.execute("DELETE FROM rides WHERE id >= 10")
    database.commit()
    assert scorer.run().rows == 10
    assert compare(expected.slice(0, 10), answers(database)).holds


@BOTH
def test_nothing_of_the_golden_rows_stays(version, database, url, as_sql):
    scorer = ms.DatabaseScorer(version, url, table="rides", into="answers", as_sql=as_sql)
    assert scorer.verify().holds
    assert [row[0] for row in database.execute("SELECT name FROM sqlite_master")] == ["rides"]


def test_the_sql_is_plain_and_gives_the_answers(version, database, url, expected):
    sql = ms.DatabaseScorer(version, url, table="rides", into="answers").sql()
    database.execute(f"CREATE VIEW live AS {sql}")
    assert compare(expected, answers(database, "live")).holds
    database.execute("UPDATE rides SET fare = 100 WHERE id = 0")
    assert answers(database, "live")["label"][0].as_py() == 1


def test_an_expression_can_stand_in_a_query_of_ones_own(version, database, url, expected):
    import sqlalchemy as sa

    late = ms.DatabaseScorer(version, url, table="rides", into="answers").expression()["probability"]
    query = sa.select(sa.func.count()).where(late > 0.5)
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        assert connection.scalar(query) == sum(expected["label"].to_pylist())
    engine.dispose()


def test_names_and_texts_are_quoted(registry, estimator, tmp_path, table):
    """A column, a table and a category that would end the statement if they were pasted into it."""
    from millstream import learn

    texts = pa.table({'it\'s "it"': ["x'); DROP TABLE rides; --", "b", "c"] * 10})
    model = learn.Pipeline(
        [("hot", learn.OneHotEncoder(handle_unknown="ignore")), ("m", learn.LogisticRegression())]
    )
    quoted = registry.register("quoted", model.fit(texts, [0, 1, 1] * 10), data=texts)
    with sqlite3.connect(tmp_path / "q.db") as connection:
        connection.execute('CREATE TABLE "the ""rides""" (id INTEGER PRIMARY KEY, "it\'s ""it""" TEXT)')
        rows = enumerate(texts.column(0).to_pylist())
        connection.executemany('INSERT INTO "the ""rides""" VALUES (?, ?)', rows)
    url = f"sqlite:///{tmp_path / 'q.db'}"
    ms.DatabaseScorer(quoted, url, table='the "rides"', into="it's", as_sql=True).run()
    assert answers(connection, '"it\'s"')["label"].to_pylist() == [0, 1, 1] * 10
    connection.close()


def test_a_table_without_a_primary_key_goes_by_rowid(version, database, url, expected):
    database.execute("CREATE TABLE plain AS SELECT borough, fare, hour FROM rides ORDER BY id")
    database.commit()
    ms.DatabaseScorer(version, url, table="plain", into="answers").run()
    assert answers(database).column_names[0] == "rowid"
    assert compare(expected, answers(database)).holds


def test_a_text_key_orders_the_rows(version, database, url, expected):
    database.execute("CREATE TABLE named (name TEXT PRIMARY KEY, borough TEXT, fare REAL, hour INTEGER)")
    database.execute("INSERT INTO named SELECT printf('r%04d', id), borough, fare, hour FROM rides")
    database.commit()
    ms.DatabaseScorer(version, url, table="named", into="answers").run()
    assert compare(expected, answers(database)).holds


def test_progress_counts_rows(version, database, url):
    seen = []
    scorer = ms.DatabaseScorer(
        version, url, table="rides", into="a", progress=lambda *rows: seen.append(rows)
    )
    scorer.run()
    assert seen[-1] == (1000, 1000)


@BOTH
@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("fare = 'abc'", "column 'fare'.*abc"),
        ("fare = x'00'", "column 'fare'"),
        ("hour = 'noon'", "column 'hour'"),
        ("hour = 3.5", "column 'hour'"),
        ("hour = NULL", "column 'hour'"),
        ("borough = x'00'", "column 'borough'"),
    ],
)
def test_a_value_of_another_type_is_refused_before_a_row_is_written(
    version, database, url, as_sql, change, text
):
    scorer = ms.DatabaseScorer(version, url, table="rides", into="answers", as_sql=as_sql)
    scorer.run()
    before = answers(database)
    database.execute(f"UPDATE rides SET {change} WHERE id = 900")  # noqa: S608
    database.commit()
    with pytest.raises(SignatureError, match=text):
        scorer.run()
    assert answers(database).equals(before)


@pytest.mark.parametrize(
    ("where", "error", "text"),
    [
        ("nonsense", InputError, r"'nonsense' is no database URL.*sqlite:///"),
        ("nosuch://host/x", InputError, r"'nosuch://host/x' is no database URL"),
        ("sqlite+nosuch:///x", InputError, r"is no database URL"),
        ("postgresql://me:secret@127.0.0.1:1/x", DeployError, r"me:\*\*\*@.*'psycopg.*' ?.*not installed"),
        ("mysql://me@127.0.0.1:1/x", DeployError, r"'MySQLdb', which is not installed.*mysql\+DRIVER"),
        ("sqlite:///{folder}", InputError, "no database file"),
        ("sqlite:///{folder}/text.db", InputError, r"text.db can't be read as a SQLite database: .*'rides'"),
    ],
)
def test_a_database_that_can_not_be_opened_is_named(version, tmp_path, where, error, text):
    (tmp_path / "text.db").write_text(
        "not a database, but long enough to have a header of a hundred bytes" * 9
    )
    scorer = ms.DatabaseScorer(version, where.format(folder=tmp_path), table="rides", into="answers")
    for use in (scorer.run, scorer.verify, scorer.sql):
        with pytest.raises(error, match=text) as raised:
            use()
        assert "secret" not in str(raised.value)


def test_bad_input_is_named_and_changes_nothing(version, database, url, tmp_path):
    def run(table="rides", into="answers", where=url):
        ms.DatabaseScorer(version, where, table=table, into=into).run()

    database.execute("CREATE TABLE short (id INTEGER PRIMARY KEY, borough TEXT)")
    database.execute("UPDATE rides SET fare = 'a lot' WHERE id = 900")
    database.commit()
    with pytest.raises(InputError, match=r"no table 'trips'.*rides"):
        run(table="trips")
    with pytest.raises(SchemaError, match="lacks column 'fare'"):
        run(table="short")
    with pytest.raises(SchemaError, match="'short' has the columns"):
        run(into="short")
    with pytest.raises(InputError, match="no database file"):
        run(where=f"sqlite:///{tmp_path / 'none.db'}")
    with pytest.raises(SignatureError, match="column 'fare'"):
        run()
    assert not (tmp_path / "none.db").exists()
    assert sorted(row[0] for row in database.execute("SELECT name FROM sqlite_master")) == ["rides", "short"]


def test_a_locked_file_is_named_with_the_next_step(version, database, url, monkeypatch):
    monkeypatch.setattr("millstream.models.transactional.BUSY_TIMEOUT", timedelta(milliseconds=200))
    database.execute("BEGIN IMMEDIATE")
    with pytest.raises(
        DeployError, match=r"rides.db' fails: database is locked; another process .*try again"
    ):
        ms.DatabaseScorer(version, url, table="rides", into="answers").run()
    database.rollback()
    database.execute("BEGIN EXCLUSIVE")
    with pytest.raises(
        DeployError, match=r"rides.db' fails: database is locked; another process .*try again"
    ):
        ms.DatabaseScorer(version, url, table="rides", into="answers").run()
    database.rollback()
    assert ms.DatabaseScorer(version, url, table="rides", into="answers").run().rows == 1000


@BOTH
def test_a_view_has_no_key(version, database, url, as_sql):
    database.execute("CREATE VIEW some AS SELECT * FROM rides WHERE id < 10")
    with pytest.raises(InputError, match=r"'some' has no primary key .*view, copy its rows into a table"):
        ms.DatabaseScorer(version, url, table="some", into="answers", as_sql=as_sql).run()


@BOTH
def test_a_null_key_is_refused(version, database, url, as_sql):
    database.execute("CREATE TABLE named (id TEXT PRIMARY KEY, borough TEXT, fare REAL, hour INTEGER)")
    database.execute(
        "INSERT INTO named VALUES ('a', 'Bronx', 1, 1), (NULL, 'Bronx', 1, 1), (NULL, 'Bronx', 1, 1)"
    )
    database.commit()
    with pytest.raises(
        InputError, match=r"2 rows of table 'named' have null as their primary key 'id'.*run again"
    ):
        ms.DatabaseScorer(version, url, table="named", into="answers", as_sql=as_sql).run()


def test_a_damaged_file_is_named_with_the_next_step(version, database, url, tmp_path):
    database.close()
    path = tmp_path / "rides.db"
    raw = path.read_bytes()
    path.write_bytes(raw[:4096] + b"\xff" * (len(raw) - 4096))
    with pytest.raises(DeployError, match=r"rides.db' fails: .*malformed; the file is damaged: restore it"):
        ms.DatabaseScorer(version, url, table="rides", into="answers").run()
