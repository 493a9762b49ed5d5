import csv
import errno
import io
import json
import subprocess
import sys
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

import millstream as ms
from millstream.deploy.edge import bundle as edge_bundle
from millstream.errors import DeployError, InputError
from millstream.models import compare


@pytest.fixture(scope="module")
def folder(version, tmp_path_factory):
    return ms.EdgeBundle(version).write(tmp_path_factory.mktemp("edge") / "long").path


def predict(folder, text, *arguments):
    program = [sys.executable, "-I", str(folder / "predict.py"), *arguments]
    return subprocess.run(program, input=text, capture_output=True, text=True, timeout=60, check=False)


def test_json_lines_in_and_out(folder, table, expected):
    ended = predict(folder, "".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    found = pa.Table.from_pylist([json.loads(line) for line in ended.stdout.splitlines()])
    assert compare(expected, found).holds


def test_csv_in_and_out(folder, table, expected):
    text = io.StringIO()
    writer = csv.DictWriter(text, table.column_names)
    writer.writeheader()
    writer.writerows(table.to_pylist())
    ended = predict(folder, text.getvalue(), "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(ended.stdout)))
    found = {"label": [int(r["label"]) for r in rows], "probability": [float(r["probability"]) for r in rows]}
    assert compare(expected, pa.table(found)).holds


def test_as_a_module(folder, table, expected):
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1]); from predict import Model; "
        "rows = json.load(sys.stdin); found = Model(sys.argv[1]).predict(rows); "
        "print(json.dumps({name: array.tolist() for name, array in found.items()}))"
    )
    program = [sys.executable, "-I", "-c", code, str(folder)]
    columns = json.dumps(table.to_pydict())
    ended = subprocess.run(program, input=columns, capture_output=True, text=True, timeout=60, check=True)
    assert compare(expected, pa.table(json.loads(ended.stdout))).holds


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"borough": "Queens", "hour": 3}, "row 0: column 'fare' is missing: expected double"),
        ({"borough": "Queens", "fare": "much", "hour": 3}, "column 'fare' is 'much': expected double"),
        ({"borough": 4, "fare": 1.0, "hour": 3}, "column 'borough' is 4: expected string"),
        ({"borough": "Queens", "fare": 1.0, "hour": 3.5}, "column 'hour' is 3.5: expected int64"),
        ({"borough": "Queens", "fare": 1.0, "hour": None}, "column 'hour' is None: expected int64"),
        ({"borough": True, "fare": 1.0, "hour": 3}, "column 'borough' is True: expected string"),
        ([1, 2], "expected a JSON object"),
    ],
)
def test_a_row_that_does_not_match_ends_it_with_its_name(folder, row, text):
    ended = predict(folder, json.dumps(row))
    assert ended.returncode == 1
    assert text in ended.stderr
    assert "Traceback" not in ended.stderr


def test_true_and_false_are_numbers_as_they_are_to_every_target(folder, version):
    row = {"borough": "Queens", "fare": 1.0, "hour": True}
    expected = version.scorer().predict({name: [value] for name, value in row.items()})
    from_json = json.loads(predict(folder, json.dumps(row)).stdout)
    from_csv = predict(folder, "borough,fare,hour\nQueens,1.0,True\n", "--format", "csv").stdout.splitlines()
    assert compare(expected, pa.Table.from_pylist([from_json])).holds
    assert [float(cell) for cell in from_csv[1].split(",")] == list(from_json.values())


def test_a_cell_of_csv_that_does_not_match_is_named(folder):
    ended = predict(folder, "borough,fare,hour\nQueens,2.5,three\n", "--format", "csv")
    assert (ended.returncode, "row 0: column 'hour' is 'three'" in ended.stderr) == (1, True)


def test_an_altered_model_is_not_run(version, tmp_path):
    path = ms.EdgeBundle(version).write(tmp_path / "edge").path
    (path / "model.onnx").write_bytes((path / "model.onnx").read_bytes()[:-1] + b"x")
    ended = predict(path, '{"borough": "Queens", "fare": 1.0, "hour": 3}')
    assert (ended.returncode, "model.onnx is not the file" in ended.stderr) == (1, True)


def test_millstream_and_arrow_are_out_of_reach_in_the_check(folder, monkeypatch):
    source = (folder / "predict.py").read_text()
    try:
        for package in ("millstream", "pyarrow"):
            (folder / "predict.py").write_text(f"import {package}\n")
            with pytest.raises(DeployError, match=f"{package} is out of reach"):
                edge_bundle._isolated(folder)
    finally:
        (folder / "predict.py").write_text(source)


def test_the_budget_is_checked_and_leaves_nothing(version, tmp_path):
    with pytest.raises(DeployError, match="bytes at the edge; the budget is 1000"):
        ms.EdgeBundle(version, max_bytes=1000).write(tmp_path / "a")
    with pytest.raises(DeployError, match="µs a row at the edge; the budget is 1 µs"):
        ms.EdgeBundle(version, max_latency=timedelta(microseconds=1)).write(tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_size_and_latency_are_recorded(version, registry, tmp_path):
    report = ms.EdgeBundle(version).write(tmp_path / "edge")
    measured = registry.deployments("long")[-1].measured
    assert measured["size"] == report.size == sum(f.stat().st_size for f in (tmp_path / "edge").iterdir())
    assert 0 < measured["row_median"] <= measured["row_p99"]


def test_a_full_disk_is_named_and_leaves_nothing(version, tmp_path, monkeypatch):
    def write(path, data):
        with path.open("wb") as file:
            file.write(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    edge = ms.EdgeBundle(version)
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_bytes", write)
        with pytest.raises(
            DeployError, match=r"edge can't be written: No space left.*make room.*write it again"
        ):
            edge.write(tmp_path / "edge")
    assert list(tmp_path.iterdir()) == []


def test_what_stands_there_is_left_alone(version, tmp_path):
    (tmp_path / "edge").mkdir()
    with pytest.raises(InputError, match="exists already"):
        ms.EdgeBundle(version).write(tmp_path / "edge")


def test_an_array_model_reads_flat_columns(registry, tmp_path):
    from millstream import learn

    X = np.array([[0.0, 0.0], [0.0, 1.0], [9.0, 9.0], [9.0, 8.0]])
    zones = registry.register("zones", learn.KMeans(2, random_state=7).fit(X), data=X)
    path = ms.EdgeBundle(zones).write(tmp_path / "zones").path
    flat = predict(path, '{"x0": 0, "x1": 0.5}\n{"x0": 9, "x1": 8.5}\n')
    nested = predict(path, '{"X": [0, 0.5]}\n{"X": [9, 8.5]}\n')
    assert flat.stdout == nested.stdout
    assert len(flat.stdout.splitlines()) == 2
