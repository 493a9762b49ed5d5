"""Grouping, regrouping and joining against DuckDB and plain loops, on every engine, to the same bytes."""

from __future__ import annotations

import hashlib
import os
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

import millstream.data as data
from millstream.errors import InputError, SchemaError
from millstream.parallel import (
    Done,
    Engine,
    Fault,
    Inline,
    Processes,
    Shuffled,
    Threads,
    combine_by_key,
    fit,
    join,
    regroup,
)
from millstream.parallel.shuffle import key_hashes

ENGINES = [
    Inline(1, workers=1),
    Inline(2, [Fault(0, 1), Fault(0, 2, "hang")]),
    Threads(1),
    Threads(3),
    Threads(2, faults=[Fault(0, 0, after=2)]),
    Processes(2, faults=[Fault(0, 1)]),
]
RNG = np.random.default_rng(4)
N = 5000


def rides() -> pa.Table:
    zones = np.array(["a", "b", "Zürich", "", None, *map(str, range(300))], dtype=object)
    fare = RNG.standard_normal(N) * 10 ** RNG.uniform(-5, 5, N)
    return pa.table(
        {
            "zone": pa.array(zones[RNG.zipf(1.3, N) % len(zones)]),
            "day": pa.array(RNG.integers(15000, 15010, N).astype("i4"), pa.date32()),
            "row": pa.array(np.arange(N)),
            "fare": pa.array(fare, mask=RNG.random(N) < 0.1),
            "X": pa.FixedSizeListArray.from_arrays(pa.array(RNG.random(2 * N, "f4")), 2),
        }
    )


RIDES = rides()
DATASET = data.from_arrow(RIDES, features=["X"], target="fare", part_rows=[700, 0, 1, 2000, 1299, 1000])
AGGREGATES: dict[str, Any] = {
    "n": (None, "count"),
    "fares": ("fare", "count"),
    "total": ("fare", "sum"),
    "mean": ("fare", "mean"),
    "low": ("fare", "min"),
    "high": ("fare", "max"),
    "last": ("row", "max"),
}


def digest(shuffled: Shuffled) -> str:
    """Of the rows in their order, and where the parts end."""
    table = shuffled.dataset.to_table()
    sizes = [part.n_rows for part in shuffled.dataset.parts]
    return hashlib.sha256(repr((sizes, table.to_pydict())).encode()).hexdigest()


def sql(query: str, **tables: pa.Table) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        for name, table in tables.items():
            connection.register(name, table)
        return connection.execute(query).fetchall()


def by_duckdb(keys: str) -> list[tuple[Any, ...]]:
    return sql(
        f"SELECT {keys}, count(*), count(fare), sum(fare), avg(fare), min(fare), max(fare), max(row) "  # noqa: S608
        f"FROM rides GROUP BY {keys} ORDER BY {keys}",
        rides=RIDES.drop_columns(["X"]),
    )


@pytest.mark.parametrize("keys", ["zone", "day", "zone,day", "row"])
def test_combine_by_key_is_group_by(keys: str) -> None:
    names = keys.split(",")
    result = combine_by_key(DATASET, names, AGGREGATES, engine=Threads(2))
    table = result.dataset.to_table().sort_by([(name, "ascending") for name in names])
    expected = by_duckdb(keys)
    assert table.num_rows == len(expected) == result.report.rows_out
    for i, name in enumerate(table.column_names):
        column = [row[i] for row in expected]
        if pa.types.is_floating(table[name].type):
            assert table[name].is_null().to_pylist() == [value is None for value in column]
            got = np.array(table[name].to_pylist(), "f8")
            np.testing.assert_allclose(got, np.array(column, "f8"), rtol=1e-9, atol=1e-9)
        else:
            assert table[name].to_pylist() == column


def test_it_combines_before_it_shuffles() -> None:
    keys = combine_by_key(DATASET, "day", {"n": (None, "count")}, engine=Inline())
    rows = regroup(DATASET, "day", engine=Inline())
    assert keys.report.rows_in == rows.report.rows_in == rows.report.rows_shuffled == N
    assert keys.report.rows_shuffled <= 10 * 5  # ten days in each of five parts with rows
    assert keys.report.bytes_shuffled < rows.report.bytes_shuffled / 50
    assert "rows shuffled" in str(keys.report)


@pytest.mark.parametrize("keys", ["zone", "day", ["zone", "day"]], ids=str)
@pytest.mark.parametrize("n_parts", [None, 1, 7, 300])
def test_regroup_keeps_rows_and_order_and_brings_keys_together(keys: Any, n_parts: int | None) -> None:
    dataset = regroup(DATASET, keys, engine=Threads(2), n_parts=n_parts).dataset
    assert dataset.schema == DATASET.schema
    assert n_parts is None or len(dataset.parts) == n_parts
    names = [keys] if isinstance(keys, str) else keys
    home: dict[tuple[Any, ...], int] = {}
    for part in dataset.parts:
        table = part.to_table()
        rows: dict[tuple[Any, ...], list[int]] = {}
        for *key, row in zip(*(table[name].to_pylist() for name in [*names, "row"]), strict=True):
            rows.setdefault(tuple(key), []).append(row)
        assert all(at == sorted(at) for at in rows.values())
        assert all(home.setdefault(key, part.index) == part.index for key in rows)
    assert dataset.to_table().sort_by("row").to_pydict() == RIDES.to_pydict()
    assert [part.first_row for part in dataset.parts] == np.cumsum([0, *(p.n_rows for p in dataset.parts)])[
        :-1
    ].tolist()


CITIES = pa.table(
    {
        "zone": ["a", "b", "b", "Zürich", None, "nowhere", "17"],
        "city": pa.array(["Ayr", "Bonn", "Brno", "Zürich", "?", "-", None]),
        "id": pa.array(range(7), pa.int32()),
    }
)


@pytest.mark.parametrize("how", ["inner", "left"])
def test_join_is_sqls(how: Any) -> None:
    cities = data.from_arrow(CITIES, part_rows=3)
    dataset = join(DATASET, cities, "zone", how=how, engine=Threads(2)).dataset
    expected = sql(
        f"SELECT rides.row, city, id FROM rides {how} JOIN cities USING (zone) ORDER BY rides.row, id",  # noqa: S608
        rides=RIDES.drop_columns(["X"]),
        cities=CITIES,
    )
    table = dataset.to_table()
    assert table.column_names == [*RIDES.column_names, "city", "id"]
    got = list(zip(*(table[name].to_pylist() for name in ("row", "city", "id")), strict=True))
    assert sorted(got, key=lambda row: (row[0], -1 if row[2] is None else row[2])) == expected
    for zone in CITIES["zone"].to_pylist():
        of_zone = [(row["row"], row["id"]) for row in table.to_pylist() if row["zone"] == zone]
        assert of_zone == sorted(of_zone, key=lambda pair: (pair[0], pair[1] or 0))
    for row in table.slice(0, 50).to_pylist():  # the other columns came along, lists too
        assert row["X"] == RIDES["X"][row["row"]].as_py()


def two_columns(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.select(["zone", "fare"])


def everything(engine: Engine) -> list[str]:
    cities = data.from_arrow(CITIES, part_rows=2)
    return [
        digest(combine_by_key(DATASET, ["zone", "day"], AGGREGATES, engine=engine)),
        digest(regroup(DATASET, "zone", engine=engine)),
        digest(join(DATASET, cities, "zone", engine=engine)),
        digest(regroup(DATASET.map_batches(two_columns), "zone", n_parts=5, engine=engine)),
    ]


@pytest.fixture(scope="module")
def on_one_worker() -> list[str]:
    return everything(Inline(workers=1))


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: f"{e!r} {len(e.faults)} faults")
def test_the_same_bytes_on_every_engine(engine: Engine, on_one_worker: list[str]) -> None:
    assert everything(engine) == on_one_worker


def test_nothing_is_left_on_the_disk(tmp_path: Path) -> None:
    result = regroup(DATASET, "zone", engine=Threads(2), directory=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert result.dataset.n_rows == N  # the rows are mapped, and have no name
    before = len(os.listdir("/proc/self/fd"))
    del result
    assert len(os.listdir("/proc/self/fd")) < before


def test_small_buckets_become_one_part_and_large_ones_stay() -> None:
    wide = pa.table({"key": np.arange(400) % 4, "text": ["x" * 50_000] * 400})  # 5 MB a key
    dataset = regroup(data.from_arrow(wide, features=[], part_rows=40), "key", engine=Inline()).dataset
    keys = [set(part.to_table()["key"].to_pylist()) for part in dataset.parts if part.n_rows]
    assert sorted(len(k) for k in keys) == [1] * 4 or max(len(k) for k in keys) <= 2
    assert len(regroup(DATASET, "zone", engine=Inline()).dataset.parts) == 1


class Means:
    """Trains on what was regrouped."""

    def init(self, meta, rng):
        return {"sum": np.zeros(meta.n_features)}

    def local(self, params, part, ctx):
        return {"sum": sum((block.X.sum(axis=0, dtype="f8") for block in part.blocks()), params["sum"] * 0)}

    def update(self, state, statistic):
        return Done(dict(statistic))


def test_a_fit_over_regrouped_rows() -> None:
    dataset = regroup(DATASET, "zone", n_parts=5, engine=Threads(2)).dataset
    total = fit(Means(), dataset, engine=Threads(2)).params["sum"]
    np.testing.assert_allclose(total, np.array(RIDES["X"].to_pylist(), "f8").sum(axis=0), rtol=1e-6)


KEYS = {
    "int8": pa.array([1, 2, -3, None], pa.int8()),
    "uint64": pa.array([2**64 - 1, 0, 5, None], pa.uint64()),
    "bool": pa.array([True, False, None, True]),
    "date": pa.array([date(2013, 1, 1), date(1969, 1, 1), None, date(2013, 1, 1)]),
    "time": pa.array(
        [datetime(2013, 1, 1), datetime(1969, 1, 1), None, datetime(2013, 1, 2)], pa.timestamp("us", "UTC")
    ),
    "duration": pa.array([timedelta(seconds=1), None, timedelta(0), timedelta(seconds=1)]),
    "string": pa.array(["a", "", None, "aa"]),
    "large": pa.array(["a", "", None, "aa"], pa.large_string()),
    "bytes": pa.array([b"a", b"\0", None, b""]),
    "words": pa.array(["a", "b", None, "a"]).dictionary_encode(),
}


@pytest.mark.parametrize("kind", KEYS)
def test_keys_of_every_kind(kind: str) -> None:
    column = KEYS[kind]
    table = pa.table({"key": pa.chunked_array([column, column.slice(1)]), "value": np.arange(7.0)})
    result = combine_by_key(
        data.from_arrow(table, part_rows=2), "key", {"n": (None, "count")}, engine=Inline()
    )
    counts = dict(zip(*(result.dataset.to_table()[c].to_pylist() for c in ("key", "n")), strict=True))
    values = table["key"].to_pylist()
    assert counts == {value: values.count(value) for value in values}
    assert result.dataset.schema["key"].type == column.type
    other = table.rename_columns(["key", "other"])
    joined = join(
        data.from_arrow(table, part_rows=3), data.from_arrow(other, part_rows=2), "key", engine=Inline()
    )
    assert joined.dataset.n_rows == sum(values.count(v) ** 2 for v in set(values) - {None})


def fnv1a_mixed(text: bytes) -> int:
    """FNV-1a and the mixer of splitmix64, in Python's own integers."""
    x = 0xCBF29CE484222325
    for byte in text:
        x = (x ^ byte) * 0x100000001B3 % 2**64
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ x >> shift) * factor % 2**64
    return x ^ x >> 31


def test_hashes_are_of_the_value_and_not_of_its_place_or_width() -> None:
    small, wide = pa.array([7, -1, 40], pa.int8()), pa.array([0, 7, -1, 40], pa.int64()).slice(1)
    hashes = [key_hashes(pa.record_batch({"k": column}), ["k"]).tolist() for column in (small, wide)]
    assert hashes[0] == hashes[1]
    known = key_hashes(pa.record_batch({"k": ["", "7", "müde"]}), ["k"]).tolist()
    assert known == [fnv1a_mixed(text.encode()) for text in ("", "7", "müde")]
    sliced = pa.array(["xx", "", "7", "müde"]).slice(1)
    assert key_hashes(pa.record_batch({"k": sliced}), ["k"]).tolist() == known
    assert len(set(key_hashes(pa.record_batch({"k": pa.array([0, None, 1])}), ["k"]).tolist())) == 3
    many = key_hashes(pa.record_batch({"k": np.arange(64_000)}), ["k"]) % np.uint64(64)
    assert 800 < np.bincount(many.astype(int)).min() < 1000 < np.bincount(many.astype(int)).max() < 1200


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda: regroup(DATASET, "fare"), SchemaError, "key 'fare' is of type double"),
        (lambda: regroup(DATASET, "no"), SchemaError, "no column 'no'"),
        (lambda: regroup(DATASET, []), InputError, "no keys"),
        (lambda: regroup(DATASET, "zone", n_parts=0), InputError, "n_parts=0; expected 1 to 512"),
        (lambda: combine_by_key(DATASET, "zone", {}), InputError, "no aggregates"),
        (
            lambda: combine_by_key(DATASET, "zone", {"m": ("fare", "median")}),
            InputError,
            "'median' is no function",
        ),
        (lambda: combine_by_key(DATASET, "zone", {"m": (None, "sum")}), InputError, "sum needs a column"),
        (lambda: combine_by_key(DATASET, "zone", {"m": ("no", "sum")}), SchemaError, "no column 'no'"),
        (lambda: combine_by_key(DATASET, "zone", {"zone": (None, "count")}), InputError, "another name"),
        (lambda: join(DATASET, DATASET, "zone"), SchemaError, "are on both sides"),
        (
            lambda: join(DATASET, data.from_arrow(CITIES), "zone", how="outer"),
            InputError,
            "'inner' or 'left'",
        ),
        (
            lambda: join(DATASET, data.from_arrow(pa.table({"zone": [1]})), "zone"),
            SchemaError,
            "string on the left",
        ),
    ],
)
def test_refused_with_the_reason(call: Any, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        call()
