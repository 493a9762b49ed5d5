"""What a model answers, as Arrow, and the one rule by which the answers become flat columns.

A Scorer's batch may hold a matrix (``probability``: FixedSizeList<double>[n_classes]). Targets that know only
scalar columns (a database, a topic, JSON, CSV) get the flat form, and so does every comparison of
predictions:

- a scalar column stays as it is (``label``, ``prediction``);
- ``probability`` of two classes becomes ``probability``, the probability of the second (positive) class;
- any other matrix of width k becomes ``name_0 ... name_{k-1}``, in the order of its columns;
- a NaN is null, which databases, topics and JSON have.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millstream.errors import InputError

__all__ = ["flat", "flat_names", "flat_schema", "to_batch"]


def to_batch(arrays: Mapping[str, np.ndarray]) -> pa.RecordBatch:
    """Arrays by output name as a record batch: floats become double, integers int64, text string.

    >>> import numpy as np
    >>> to_batch({"label": np.array([1, 0]), "probability": np.array([[0.2, 0.8], [0.7, 0.3]])}).schema
    label: int64
    probability: fixed_size_list<item: double>[2]
      child 0, item: double
    """
    return pa.RecordBatch.from_arrays([_arrow(array) for array in arrays.values()], names=list(arrays))


def flat(batch: pa.RecordBatch | pa.Table) -> pa.RecordBatch:
    """Predictions with scalar columns only, by the rule of this module.

    >>> import numpy as np
    >>> flat(to_batch({"label": np.array([1]), "probability": np.array([[0.2, 0.8]])})).to_pylist()
    [{'label': 1, 'probability': 0.8}]
    """
    names: list[str] = []
    arrays: list[pa.Array] = []
    for field, column in zip(batch.schema, batch.columns, strict=True):
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        if not pa.types.is_fixed_size_list(field.type):
            names.append(field.name)
            arrays.append(_null_for_nan(array))
            continue
        matrix = array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), field.type.list_size)
        for name, index in flat_names(field):
            names.append(name)
            arrays.append(_null_for_nan(pa.array(np.ascontiguousarray(matrix[:, index]))))
    return pa.RecordBatch.from_arrays(arrays, names=names)


def flat_schema(schema: pa.Schema) -> pa.Schema:
    """The schema `flat` gives to batches of `schema`.

    >>> flat_schema(pa.schema([("probability", pa.list_(pa.float64(), 3))])).names
    ['probability_0', 'probability_1', 'probability_2']
    """
    fields: list[pa.Field] = []
    for field in schema:
        if pa.types.is_fixed_size_list(field.type):
            fields += [pa.field(name, field.type.value_type) for name, _ in flat_names(field)]
        else:
            fields.append(field)
    return pa.schema(fields)


def flat_names(field: pa.Field) -> list[tuple[str, int]]:
    """The flat columns of a matrix: their names, and which column of the matrix each one is.

    >>> flat_names(pa.field("probability", pa.list_(pa.float64(), 2)))
    [('probability', 1)]
    """
    width = field.type.list_size
    if field.name == "probability" and width == 2:
        return [("probability", 1)]
    return [(f"{field.name}_{i}", i) for i in range(width)]


def _null_for_nan(array: pa.Array) -> pa.Array:
    if not pa.types.is_floating(array.type):
        return array
    nan = pc.is_nan(array)
    return pc.if_else(nan, None, array) if pc.any(nan).as_py() else array


def _arrow(array: np.ndarray) -> pa.Array:
    array = np.asarray(array)
    if array.ndim == 2:
        values = _arrow(np.ascontiguousarray(array).reshape(-1))
        return pa.FixedSizeListArray.from_arrays(values, array.shape[1])
    if array.ndim != 1:
        raise InputError(f"an output has shape {array.shape}; expected (rows,) or (rows, k)")
    kind = array.dtype.kind
    if kind == "f":
        return pa.array(array.astype(np.float64, copy=False))
    if kind in "iu":
        return pa.array(array.astype(np.int64, copy=False))
    if kind == "b":
        return pa.array(array)
    return pa.array(array.tolist(), pa.string())
