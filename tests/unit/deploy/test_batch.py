import errno

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import millstream as ms
from millstream.errors import DeployError, InputError, SchemaError, SignatureError
from millstream.models import compare


def in_parts(table, rows=100):
    return ms.from_arrow(table, part_rows=rows)


def files(sink):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in sink.glob("*.parquet")}


def test_every_row_is_scored_in_order(version, table, expected, tmp_path):
    report = ms.BatchJob(version, in_parts(table), tmp_path / "scored").run()
    found = ms.read_parquet(tmp_path / "scored").to_table()
    assert found.select(table.column_names).equals(table)
    assert compare(expected, found).holds
    assert (report.rows, report.parts, report.scored) == (1000, 10, 10)


def test_finished_parts_are_not_scored_again(version, table, tmp_path):
    job = ms.BatchJob(version, in_parts(table), tmp_path / "scored")
    job.run()
    before = files(tmp_path / "scored")
    (tmp_path / "scored" / "part-00003.parquet").unlink()
    assert job.run().scored == 1
    after = files(tmp_path / "scored")
    assert {name for name in before if before[name] != after[name]} == {"part-00003.parquet"}
    assert before["part-00003.parquet"][0] == after["part-00003.parquet"][0]


def with_hour(table, rows, hour=0):
    """The table with another hour from row `rows` on."""
    hours = table["hour"].to_pylist()[:rows] + [hour] * (table.num_rows - rows)
    return table.set_column(3, "hour", pa.array(hours, pa.int16()))


@pytest.mark.parametrize(
    "another",
    [
        lambda table: in_parts(with_hour(table, 0)),
        lambda table: in_parts(with_hour(table, 950)),
        lambda table: in_parts(table.slice(0, 950)),
        lambda table: in_parts(table, 200),
        lambda table: in_parts(table.drop_columns(["id"])),
        lambda table: in_parts(table.set_column(0, "id", table["id"].cast("int32"))),
    ],
    ids=["first part", "last part", "fewer rows", "other parts", "fewer columns", "other type"],
)
def test_predictions_for_another_source_are_not_overwritten(version, table, tmp_path, another):
    ms.BatchJob(version, in_parts(table), tmp_path / "scored", keep=["hour"]).run()
    before = files(tmp_path / "scored")
    with pytest.raises(
        InputError, match=r"scored holds the predictions for another source.*another directory"
    ):
        ms.BatchJob(version, another(table), tmp_path / "scored", keep=["hour"]).run()
    assert files(tmp_path / "scored") == before
    assert ms.BatchJob(version, in_parts(table), tmp_path / "scored", keep=["hour"]).run().scored == 0


def test_a_killed_job_goes_on_with_its_own_source_only(version, table, tmp_path):
    class Killed(BaseException):
        pass

    def kill(done, rows):
        if done == 500:
            raise Killed

    with pytest.raises(Killed):
        ms.BatchJob(version, in_parts(table), tmp_path / "scored", progress=kill).run()
    with pytest.raises(InputError, match=r"part 3 of this source has other rows"):
        ms.BatchJob(version, in_parts(with_hour(table, 350)), tmp_path / "scored").run()
    assert ms.BatchJob(version, in_parts(table), tmp_path / "scored").run().scored == 5


@pytest.mark.parametrize("place", ["a file", "a file/scored", "/proc/scored"])
def test_a_sink_that_can_not_be_written_is_named(version, table, tmp_path, place):
    (tmp_path / "a file").write_text("mine")
    with pytest.raises(InputError, match=r"scored|a file.*can't be written.*another sink"):
        ms.BatchJob(version, table, tmp_path / place).run()
    assert (tmp_path / "a file").read_text() == "mine"


def test_a_manifest_torn_by_a_kill_is_read_up_to_the_tear(version, table, tmp_path):
    job = ms.BatchJob(version, in_parts(table), tmp_path / "scored")
    job.run()
    manifest = tmp_path / "scored" / "_manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes()[:-20])
    assert job.run().scored == 1
    assert job.run().scored == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[: len(raw) // 2],
        lambda raw: b"",
        lambda raw: raw[:40] + bytes([raw[40] ^ 1]) + raw[41:],
        lambda raw: b"mine",
    ],
    ids=["torn", "empty", "flipped", "overwritten"],
)
def test_a_finished_file_that_was_altered_is_scored_again(version, table, tmp_path, damage):
    job = ms.BatchJob(version, in_parts(table), tmp_path / "scored")
    job.run()
    path = tmp_path / "scored" / "part-00000.parquet"
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert job.run().scored == 1
    assert path.read_bytes() == whole
    assert job.run().scored == 0


@pytest.mark.parametrize(
    ("line", "junk"), [(0, b"junk"), (2, b"{junk"), (2, b"[1]"), (2, b'{"part": 1}'), (2, b"\xff")]
)
def test_a_junk_line_of_the_manifest_is_named(version, table, tmp_path, line, junk):
    job = ms.BatchJob(version, in_parts(table), tmp_path / "scored")
    job.run()
    manifest = tmp_path / "scored" / "_manifest.jsonl"
    lines = manifest.read_bytes().splitlines()
    lines[line] = junk
    manifest.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(InputError, match=rf"line {line + 1} of .*_manifest\.jsonl .*delete the directory"):
        job.run()


def test_a_full_disk_is_named_and_the_job_goes_on_later(version, table, tmp_path, monkeypatch):
    job = ms.BatchJob(version, in_parts(table), tmp_path / "scored")
    written = []

    def write(table, file, room=3, write=pq.write_table):
        file.write(b"half")
        if len(written) == room:
            raise OSError(errno.ENOSPC, "No space left on device")
        file.seek(0)
        written.append(write(table, file))

    job.verify()
    monkeypatch.setattr(job, "verify", lambda: None)
    with monkeypatch.context() as patch:
        patch.setattr("millstream.deploy.batch.pq.write_table", write)
        with pytest.raises(
            DeployError, match=r"part-00003\.parquet can't be written: No space left.*run the job"
        ):
            job.run()
    names = [f"part-0000{i}.parquet" for i in range(3)]
    assert sorted(path.name for path in (tmp_path / "scored").iterdir()) == ["_manifest.jsonl", *names]
    assert job.run().scored == 7


def test_keep_chooses_columns(version, table, tmp_path):
    ms.BatchJob(version, table, tmp_path / "scored", keep=["id"]).run()
    assert ms.read_parquet(tmp_path / "scored").schema.names == ("id", "label", "probability")


def test_a_stream_is_collected(version, table, expected, tmp_path):
    ms.BatchJob(version, ms.as_stream(table, event_time="id"), tmp_path / "scored").run()
    assert compare(expected, ms.read_parquet(tmp_path / "scored").to_table()).holds


def test_progress_counts_rows(version, table, tmp_path):
    seen = []
    ms.BatchJob(version, in_parts(table, 400), tmp_path / "s", progress=lambda *rows: seen.append(rows)).run()
    assert seen == [(400, 1000), (800, 1000), (1000, 1000)]


def test_the_run_is_recorded(version, registry, table, tmp_path):
    ms.BatchJob(version, table, tmp_path / "scored").run()
    deployment = registry.deployments("long", 1)[-1]
    assert (deployment.target, deployment.location) == ("batch", str(tmp_path / "scored"))
    assert registry.parity("long", 1)[-1].parity.holds


def test_the_predictions_of_two_versions_do_not_mix(version, registry, estimator, table, tmp_path):
    ms.BatchJob(version, in_parts(table), tmp_path / "scored").run()
    other = registry.register("other", estimator, data=table.select(["borough", "fare", "hour"]))
    with pytest.raises(InputError, match=r"another job.*long@1"):
        ms.BatchJob(other, in_parts(table), tmp_path / "scored").run()


def test_two_jobs_do_not_write_into_one_sink(version, table, tmp_path):
    second = ms.BatchJob(version, in_parts(table), tmp_path / "scored")
    refused = []

    def again(done, rows):
        with pytest.raises(DeployError, match="another job"):
            second.run()
        refused.append(done)

    ms.BatchJob(version, in_parts(table, 500), tmp_path / "scored", progress=again).run()
    assert refused == [500, 1000]


def test_files_of_others_are_left_alone(version, table, tmp_path):
    (tmp_path / "scored").mkdir()
    pq.write_table(table, tmp_path / "scored" / "mine.parquet")
    with pytest.raises(InputError, match="no batch job"):
        ms.BatchJob(version, table, tmp_path / "scored").run()


def test_rows_that_do_not_match_are_named(version, table, tmp_path):
    with pytest.raises(SignatureError, match="column 'fare' is string: expected double"):
        ms.BatchJob(version, table.set_column(2, "fare", table["borough"]), tmp_path / "a").run()
    with pytest.raises(SchemaError, match="label"):
        ms.BatchJob(version, table.append_column("label", table["id"]), tmp_path / "b").run()
    with pytest.raises(InputError, match="str"):
        ms.BatchJob(version, "rides.parquet", tmp_path / "c").run()


def test_a_data_frame_is_scored(version, table, expected, tmp_path):
    ms.BatchJob(version, table.to_pandas(), tmp_path / "scored").run()
    assert compare(expected, ms.read_parquet(tmp_path / "scored").to_table()).holds


@pytest.mark.parametrize(
    "target",
    [
        lambda version: ms.BatchJob(version, pa.table({}), "scored"),
        lambda version: ms.DatabaseScorer(version, "sqlite://", table="a", into="b"),
        lambda version: ms.StreamJob(version, ms.as_stream(pa.table({"at": [1]}), event_time="at"), "scored"),
        ms.ModelServer,
        ms.EdgeBundle,
    ],
    ids=["batch", "database", "stream", "server", "edge"],
)
@pytest.mark.parametrize("value", ["long@1", None])
def test_what_is_no_version_is_named(target, value):
    with pytest.raises(
        InputError, match=r"version is ('long@1'|None), .*expected a Version: Registry\(path\).get"
    ):
        target(value)
