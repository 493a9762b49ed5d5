#!/usr/bin/env python3
"""Predictions of the model in this folder, with onnxruntime and NumPy alone.

As a program::

    python predict.py < rows.jsonl > predictions.jsonl
    python predict.py --format csv < rows.csv > predictions.csv
    python predict.py --measure

As a module::

    from predict import Model
    Model("folder").predict({"lat": [40.7, 40.8], "lon": [-74.0, -73.9]})

Input is a row a line: JSON objects, or CSV with a header. A number that is missing (null, an empty cell) is NaN,
missing text is "". true and false are 1 and 0 for a number. Columns the model does not use are ignored; a column it
lacks, or of another type, ends the program with status 1 and a line on stderr that names the column and the row.
Output has the flat columns: ``label``; ``probability`` of the second class where there are two, ``probability_0 ...``
where there are more.

This file is part of Millstream (Apache-2.0) and was copied here together with the model.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO

import numpy as np
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

DTYPES: dict[str, Any] = {
    "double": np.float64,
    "float": np.float32,
    "int64": np.int64,
    "bool": np.bool_,
    "string": object,
}
CHUNK = 1024


class InputError(Exception):
    """A row that doesn't fit the model."""


class Model:
    """The model of a folder. `predict` maps columns (lists by name) to flat output columns (arrays by name)."""

    def __init__(self, folder: str) -> None:
        with open(os.path.join(folder, "bundle.json"), encoding="utf-8") as file:
            self.about = json.load(file)
        model = _checked(folder, "model.onnx", self.about["sha256"])
        self.signature = json.loads(_checked(folder, "signature.json", self.about["sha256"]))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def predict(self, columns: Mapping[str, Any]) -> dict[str, np.ndarray]:
        feeds = {wanted["name"]: _tensor(wanted, columns) for wanted in self.signature["inputs"]}
        names = [output["name"] for output in self.signature["outputs"]]
        try:
            found = self._session.run(names, feeds)
        except Fail as error:  # a category that training did not see
            raise InputError(f"the model refuses these rows: {error}") from None
        return flat(dict(zip(names, found, strict=True)))

    def columns_of(self, rows: Sequence[Mapping[str, Any]], first_row: int = 0) -> dict[str, list[Any]]:
        """Columns of a list of JSON objects."""
        columns: dict[str, list[Any]] = {}
        for name, dtype in self._scalar_columns(rows[0] if rows else {}):
            for i, row in enumerate(rows):
                if name not in row:
                    raise InputError(f"row {first_row + i}: column {name!r} is missing: expected {dtype}")
            columns[name] = [row[name] for row in rows]
        return columns

    def parse_csv(self, rows: Iterable[Mapping[str, str]]) -> Iterator[dict[str, Any]]:
        """Columns as they come out of a CSV file, converted by the signature: text everywhere else stays text."""
        kinds = dict(self._scalar_columns({}))
        for i, row in enumerate(rows):
            yield {name: _parse(name, kinds.get(name), cell, i) for name, cell in row.items()}

    def _scalar_columns(self, example: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for wanted in self.signature["inputs"]:
            width = wanted.get("width")
            if width is None or wanted["name"] in example:
                yield wanted["name"], wanted["dtype"]
            else:
                for i in range(width):
                    yield f"{wanted['name'].lower()}{i}", wanted["dtype"]


def flat(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Matrices as columns: the probability of the second of two classes, else a column for each."""
    columns: dict[str, np.ndarray] = {}
    for name, array in outputs.items():
        if array.ndim == 1:
            columns[name] = array
        elif name == "probability" and array.shape[1] == 2:
            columns[name] = array[:, 1]
        else:
            columns.update((f"{name}_{i}", array[:, i]) for i in range(array.shape[1]))
    return columns


def _checked(folder: str, name: str, hashes: Mapping[str, str]) -> bytes:
    with open(os.path.join(folder, name), "rb") as file:
        data = file.read()
    if hashlib.sha256(data).hexdigest() != hashes[name]:
        raise InputError(f"{name} is not the file that was written; copy the folder again")
    return data


def _tensor(wanted: Mapping[str, Any], columns: Mapping[str, Any]) -> np.ndarray:
    name, dtype, width = wanted["name"], wanted["dtype"], wanted.get("width")
    if width is None:
        return _vector(name, dtype, columns)
    if name in columns:
        matrix = np.asarray(columns[name], dtype=DTYPES[dtype])
        if matrix.ndim != 2 or matrix.shape[1] != width:
            raise InputError(f"column {name!r} has shape {matrix.shape}: expected (rows, {width})")
        return np.ascontiguousarray(matrix)
    vectors = [_vector(f"{name.lower()}{i}", dtype, columns) for i in range(width)]
    return np.ascontiguousarray(np.stack(vectors, axis=1))


def _vector(name: str, dtype: str, columns: Mapping[str, Any]) -> np.ndarray:
    if name not in columns:
        raise InputError(f"column {name!r} is missing: expected {dtype}")
    values = columns[name]
    if isinstance(values, np.ndarray) and values.dtype == DTYPES[dtype] and dtype != "string":
        return np.asarray(values)
    accepted: tuple[type, ...] = {"string": (str,), "int64": (int,), "bool": (bool,)}.get(dtype, (int, float))
    missing: Any = {"string": "", "double": np.nan, "float": np.nan}.get(dtype)
    found = []
    for i, value in enumerate(values):
        value = missing if value is None else value
        if isinstance(value, np.generic):
            value = value.item()
        if not isinstance(value, accepted):
            raise InputError(f"row {i}: column {name!r} is {value!r}: expected {dtype}")
        found.append(value)
    return np.array(found, dtype=DTYPES[dtype])


def _parse(name: str, dtype: str | None, cell: str, row: int) -> Any:
    if dtype is None or dtype == "string":
        return cell
    if cell == "":
        return None
    truth = {"true": True, "false": False}.get(cell.lower())
    if truth is not None:
        return truth
    try:
        if dtype == "bool":
            return {"1": True, "0": False}[cell]
        return int(cell) if dtype == "int64" else float(cell)
    except (KeyError, ValueError):
        raise InputError(f"row {row}: column {name!r} is {cell!r}: expected {dtype}") from None


def _plain(value: Any) -> Any:
    """A value JSON can hold; NaN is null."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and value != value else value


def _predictions(model: Model, rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    waiting = iter(rows)
    first_row = 0
    while chunk := list(itertools.islice(waiting, CHUNK)):
        found = model.predict(model.columns_of(chunk, first_row))
        names = list(found)
        for values in zip(*found.values(), strict=True):
            yield {name: _plain(value) for name, value in zip(names, values, strict=True)}
        first_row += len(chunk)


def _read_json_lines(file: Iterable[str]) -> Iterator[dict[str, Any]]:
    for i, line in enumerate(file):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InputError(f"row {i}: not JSON: {error}") from None
            if not isinstance(row, dict):
                raise InputError(f"row {i}: expected a JSON object of columns")
            yield row


def _write(predictions: Iterable[dict[str, Any]], form: str, file: TextIO) -> None:
    if form == "jsonl":
        for row in predictions:
            file.write(json.dumps(row) + "\n")
        return
    writer = None
    for row in predictions:
        if writer is None:
            writer = csv.DictWriter(file, list(row))
            writer.writeheader()
        writer.writerow(row)


def measure(folder: str, calls: int = 200) -> dict[str, float]:
    """Seconds to load the model, and the median and 99th percentile of seconds to score one row."""
    began = time.perf_counter()
    model = Model(folder)
    load = time.perf_counter() - began
    with open(os.path.join(folder, "golden.jsonl"), encoding="utf-8") as file:
        rows = list(_read_json_lines(file))
    seconds = []
    for i in range(calls):
        began = time.perf_counter()
        model.predict(model.columns_of([rows[i % len(rows)]]))
        seconds.append(time.perf_counter() - began)
    seconds.sort()
    return {"load": load, "row_median": statistics.median(seconds), "row_p99": seconds[int(calls * 0.99)]}


def main() -> int:
    folder = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description="Score rows from stdin with the model in this folder.")
    parser.add_argument("--format", choices=["jsonl", "csv"], default="jsonl", help="of input and output")
    parser.add_argument(
        "--measure", action="store_true", help="print seconds to load and to score a row, as JSON"
    )
    options = parser.parse_args()
    try:
        if options.measure:
            print(json.dumps(measure(folder)))
            return 0
        model = Model(folder)
        from_csv = options.format == "csv"
        rows = model.parse_csv(csv.DictReader(sys.stdin)) if from_csv else _read_json_lines(sys.stdin)
        _write(_predictions(model, rows), options.format, sys.stdout)
    except InputError as error:
        print(f"predict.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
