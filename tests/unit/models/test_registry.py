import contextlib
import sqlite3
import threading
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow.compute as pc
import pytest
import sqlalchemy as sa

from millstream.errors import InputError, ModelError, ParityError, PromotionConflict, UnknownModel
from millstream.models import Registry
from millstream.models.outputs import to_batch

SECOND = timedelta(seconds=1)


def test_versions_count_from_one(registry, write):
    first = registry.add("late", write(), metrics={"auc": 0.72})
    second = registry.add("late", write(note="b"))
    assert [v.number for v in registry.versions("late")] == [first.number, second.number] == [1, 2]
    assert registry.models() == ["late"]
    assert registry.get("late", 1).metrics == {"auc": 0.72}
    assert registry.get("late@2").digest == second.digest


def test_another_registry_on_the_folder_sees_them(registry, write):
    registry.add("late", write())
    assert Registry(registry.path).get("late", 1).number == 1


def test_an_alias_has_a_history(registry, write, clock):
    for note in "abc":
        registry.add("late", write(note=note))
    moments = []
    for number in (1, 3, 2):
        clock.advance(SECOND)
        registry.promote("late", number)
        moments.append(datetime.fromtimestamp(clock.now() / 1e6, UTC))
    assert registry.get("late@production").number == 2
    assert [(c.number, c.previous) for c in registry.history("late")] == [(1, None), (3, 1), (2, 3)]
    assert [registry.at("late", "production", t).number for t in moments] == [1, 3, 2]
    assert registry.at("late", "production", moments[1] - timedelta(microseconds=1)).number == 1
    with pytest.raises(UnknownModel, match="production"):
        registry.at("late", "production", moments[0] - SECOND)


def test_what_is_unknown_says_what_there_is_and_how_to_promote(registry, write):
    registry.add("late", write())
    for ask in (registry.history, registry.aliases, registry.versions):
        with pytest.raises(UnknownModel, match=r"no model 'nope'.*\['late'\]"):
            ask("nope")
    assert registry.history("late") == []
    with pytest.raises(UnknownModel, match=r"no alias 'production'.*promote"):
        registry.get("late@production")


@pytest.mark.parametrize("place", ["in.csv", "in.csv/models", "/proc/models"])
def test_a_registry_on_a_place_that_can_not_be_a_folder_is_refused(tmp_path, place):
    (tmp_path / "in.csv").write_text("a,b")
    with pytest.raises(InputError, match=r"can't hold a registry.*expected a folder"):
        Registry(tmp_path / place)
    assert (tmp_path / "in.csv").read_text() == "a,b"


def test_a_registry_whose_database_is_none_is_refused(tmp_path):
    (tmp_path / "registry.db").write_text(
        "not a database, but long enough to have a header of a hundred bytes" * 9
    )
    with pytest.raises(InputError, match=r"registry.db is not the database of a registry: .*not a database"):
        Registry(tmp_path)


def test_history_is_append_only(registry, write):
    registry.add("late", write())
    registry.promote("late", 1)
    engine = sa.create_engine(f"sqlite:///{registry.path / 'registry.db'}")
    for statement in ("UPDATE alias_changes SET number = 9", "DELETE FROM versions"):
        with pytest.raises(sa.exc.IntegrityError, match="append-only"), engine.begin() as connection:
            connection.exec_driver_sql(statement)
    engine.dispose()


def test_promotion_compares_and_sets(registry, write):
    for note in "ab":
        registry.add("late", write(note=note))
    registry.promote("late", 1, expect=None)
    with pytest.raises(PromotionConflict, match="points to version 1, expected no version"):
        registry.promote("late", 2, expect=None)
    assert registry.get("late@production").number == 1
    registry.promote("late", 2, expect=1)
    assert registry.get("late@production").number == 2


def test_of_many_who_promote_at_once_one_wins(registry, write):
    for i in range(4):
        registry.add("late", write(note=str(i)))
    registry.promote("late", 1)
    won, lost = [], []

    def promote(number):
        try:
            Registry(registry.path).promote("late", number, expect=1)
            won.append(number)
        except PromotionConflict:
            lost.append(number)

    threads = [threading.Thread(target=promote, args=(n,)) for n in (2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(won) == 1
    assert len(lost) == 2
    assert registry.get("late@production").number == won[0]


def test_numbers_are_unique_among_writers(registry, write):
    bundles = [write(note=str(i)) for i in range(6)]
    numbers = []
    threads = [
        threading.Thread(target=lambda b=b: numbers.append(Registry(registry.path).add("late", b).number))
        for b in bundles
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(numbers) == [1, 2, 3, 4, 5, 6]


def test_follow_moves_only_on_refresh(registry, write):
    for note in "ab":
        registry.add("late", write(note=note))
    registry.promote("late", 1)
    followed = registry.follow("late@production")
    registry.promote("late", 2)
    assert followed.version.number == 1
    assert followed.refresh()
    assert followed.version.number == 2
    assert not followed.refresh()


def test_a_model_that_answers_otherwise_is_refused(registry, write, answers):
    probability = np.array(answers.column("probability").to_pylist())
    probability[3] += [1e-4, -1e-4]
    tampered = to_batch({"label": answers.column("label").to_numpy(), "probability": probability})
    with pytest.raises(ParityError, match=r"0\.0001"):
        registry.add("late", write(outputs=tampered))
    assert registry.models() == []


def test_parity_and_deployments_are_kept(registry, write, answers):
    version = registry.add("late", write())
    version.check("batch", answers)
    registry.record_deployment(version, "batch", "scored/", {"seconds": 1.5})
    flipped = answers.set_column(0, "label", pc.subtract(1, answers.column(0)))
    with pytest.raises(ParityError, match="50 labels of 50 rows"):
        version.check("server", flipped)
    reports = registry.parity("late")
    assert [(r.target, r.parity.holds) for r in reports] == [
        ("scorer", True),
        ("batch", True),
        ("server", False),
    ]
    assert registry.deployments("late", 1)[0].measured == {"seconds": 1.5}


@pytest.mark.parametrize("name", ["../late", "a/b", "", "a..b", ".a", "late@1", "a" * 200, "ä"])
def test_names_stay_in_the_folder(registry, write, name):
    with pytest.raises(InputError, match="no model name"):
        registry.add(name, write())


@pytest.mark.parametrize("reference", ["late", "late@", "late@../x", "late@7", "late@staging", "early@1"])
def test_a_reference_to_nothing_says_what_there_is(registry, write, reference):
    registry.add("late", write())
    with pytest.raises((InputError, UnknownModel)):
        registry.get(reference)


def test_a_damaged_database_is_named_with_the_next_step(registry, write):
    registry.add("late", write())
    path = registry.path / "registry.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw = path.read_bytes()
    path.write_bytes(raw[:4096] + b"\xff" * (len(raw) - 4096))
    for use in (registry.models, lambda: registry.get("late@1"), lambda: registry.promote("late", 1)):
        with pytest.raises(ModelError, match=r"registry.db fails: .*malformed; .*restore it from a copy"):
            use()
    path.write_bytes(raw[:100] + b"\xff" * (len(raw) - 100))
    with pytest.raises(ModelError, match=r"registry.db fails: .*malformed; .*restore it from a copy"):
        Registry(registry.path)
    path.write_bytes(b"\xff" * len(raw))
    with pytest.raises(ModelError, match=r"registry.db fails: .*not a database; .*restore it from a copy"):
        registry.models()


def test_a_locked_database_is_named_with_the_next_step(registry, write, monkeypatch):
    registry.add("late", write())
    monkeypatch.setattr("millstream.models.transactional.BUSY_TIMEOUT", timedelta(milliseconds=200))
    with contextlib.closing(sqlite3.connect(registry.path / "registry.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for use in (lambda: registry.promote("late", 1), lambda: Registry(registry.path)):
            with pytest.raises(ModelError, match=r"registry.db fails: database is locked; another process"):
                use()
