"""The distribution of the training data, column by column: what drift is later measured against.

Counts, nulls, mean, standard deviation, minimum and maximum are exact and come from one pass over the
batches, however many there are (moments merge by Chan, Golub and LeVeque, "Updating formulae and a pairwise
algorithm for computing sample variances", 1979, eq. 2.1). Quantiles come from every 2^k-th row, k such that
at most `SAMPLE_ROWS` rows are kept: the same rows on every run. Text columns keep the counts of their most
frequent `TOP_CATEGORIES` values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millstream.models.feeds import plain_text

__all__ = ["SAMPLE_ROWS", "TOP_CATEGORIES", "training_distribution"]

SAMPLE_ROWS = 1 << 17
TOP_CATEGORIES = 1000
_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def training_distribution(batches: Iterable[pa.RecordBatch]) -> dict[str, Any]:
    """The distribution of every column, ready for JSON; a matrix counts as its columns ``name_i``.

    >>> import pyarrow as pa
    >>> batch = pa.record_batch({"x": [1.0, 2.0, None, 3.0], "c": ["a", "b", "a", "a"]})
    >>> found = training_distribution([batch])
    >>> found["x"]["nulls"], found["x"]["mean"], found["c"]["categories"]
    (1, 2.0, {'a': 3, 'b': 1})
    """
    columns: dict[str, _Numbers | _Categories] = {}
    first_row = 0
    for batch in batches:
        for name, array in _scalars(batch):
            if name not in columns:
                columns[name] = _Categories() if pa.types.is_string(array.type) else _Numbers()
            columns[name].update(array, first_row)
        first_row += batch.num_rows
    return {name: column.result() for name, column in columns.items()}


class _Numbers:
    def __init__(self) -> None:
        self.count = self.nulls = 0
        self.mean = self.m2 = 0.0
        self.low, self.high = np.inf, -np.inf
        self.stride = 1
        self.sample: list[np.ndarray] = []
        self.sampled = 0

    def update(self, array: pa.Array, first_row: int) -> None:
        values = np.asarray(
            pc.fill_null(_as_double(array), float("nan")).to_numpy(zero_copy_only=False), dtype=np.float64
        )
        known = values[~np.isnan(values)]
        self.nulls += len(values) - len(known)
        self._keep(values[-first_row % self.stride :: self.stride])
        if len(known):
            self._merge(known)

    def _merge(self, known: np.ndarray) -> None:
        n, mean = len(known), float(known.mean())
        m2 = float(np.square(known - mean).sum())
        total = self.count + n
        shift = mean - self.mean
        self.m2 += m2 + shift * shift * self.count * n / total
        self.mean += shift * n / total
        self.count = total
        self.low, self.high = min(self.low, float(known.min())), max(self.high, float(known.max()))

    def _keep(self, rows: np.ndarray) -> None:
        self.sample.append(rows)
        self.sampled += len(rows)
        while self.sampled > SAMPLE_ROWS:
            kept = np.concatenate(self.sample)[::2]
            self.sample, self.sampled, self.stride = [kept], len(kept), self.stride * 2

    def result(self) -> dict[str, Any]:
        if not self.count:
            return {"kind": "number", "count": 0, "nulls": self.nulls}
        sample = np.concatenate(self.sample)
        sample = sample[~np.isnan(sample)]
        quantiles = np.quantile(sample, _QUANTILES) if len(sample) else []
        return {
            "kind": "number",
            "count": self.count,
            "nulls": self.nulls,
            "mean": self.mean,
            "std": float(np.sqrt(self.m2 / self.count)),
            "min": self.low,
            "max": self.high,
            "quantiles": {str(q): float(v) for q, v in zip(_QUANTILES, quantiles, strict=False)},
        }


class _Categories:
    def __init__(self) -> None:
        self.nulls = 0
        self.counts: Counter[str] = Counter()

    def update(self, array: pa.Array, first_row: int) -> None:
        self.nulls += array.null_count
        for entry in pc.value_counts(array.drop_null()):
            self.counts[entry["values"].as_py()] += entry["counts"].as_py()

    def result(self) -> dict[str, Any]:
        top = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))[:TOP_CATEGORIES]
        return {
            "kind": "category",
            "count": sum(self.counts.values()),
            "nulls": self.nulls,
            "distinct": len(self.counts),
            "categories": dict(top),
        }


def _scalars(batch: pa.RecordBatch) -> Iterable[tuple[str, pa.Array]]:
    for field, array in zip(batch.schema, batch.columns, strict=True):
        if pa.types.is_fixed_size_list(field.type):
            matrix = array.flatten().to_numpy(zero_copy_only=False).reshape(-1, field.type.list_size)
            for i in range(field.type.list_size):
                yield f"{field.name}_{i}", pa.array(np.ascontiguousarray(matrix[:, i]))
        elif pa.types.is_dictionary(field.type):
            yield field.name, plain_text(array.dictionary_decode())
        else:
            yield field.name, plain_text(array)


def _as_double(array: pa.Array) -> pa.Array:
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    return array.cast(pa.float64(), safe=False)
