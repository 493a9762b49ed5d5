"""The Scorer: a pure function from rows to predictions, run by ONNX Runtime.

The same bundle gives the same predictions wherever a Scorer runs. One intra-op thread by default: deployments
scale by rows, and the last bit of a dense sum then depends on nothing but the batch. A Scorer holds no state
between calls and may be called from many threads.
"""

from __future__ import annotations

import os

import numpy as np
import onnxruntime
import pyarrow as pa
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from millstream.errors import SignatureError
from millstream.models.bundle import MODEL, Bundle
from millstream.models.feeds import Rows, feeds
from millstream.models.outputs import to_batch
from millstream.models.signature import Signature

__all__ = ["Scorer", "session"]


def session(model: bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on the CPU whose threads sleep, never spin, between calls."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # what it would log comes as an exception
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class Scorer:
    """Loads a bundle and answers for rows.

    `path` is the folder of a bundle; every file is checked against its hash (BundleCorrupt names it).

    `predict` takes a record batch, a table, a mapping of columns, or an array of shape (rows, features) where
    the model was trained on one, and returns a record batch of the outputs, a row each:

    - classifier: ``label``; ``probability``: FixedSizeList<double>[n_classes] in the order of
      `signature.classes`
    - clusterer: ``label``;  regressor: ``prediction``;  transformer: ``features``

    Rows that don't match the signature raise SignatureError, which names the column; columns the model
    doesn't use are ignored.
    """

    def __init__(self, path: str | os.PathLike[str] | Bundle, *, threads: int = 1) -> None:
        bundle = path if isinstance(path, Bundle) else Bundle.open(path)
        self.signature: Signature = bundle.signature
        self._session = session(bundle.read(MODEL), threads)
        self._names = [output.name for output in self.signature.outputs]

    def predict(self, rows: Rows) -> pa.RecordBatch:
        """The model's outputs for `rows`, in their order."""
        tensors, n_rows = feeds(self.signature, rows)
        if not n_rows:
            return pa.RecordBatch.from_pylist([], schema=self.signature.output_schema)
        try:
            found = self._session.run(self._names, tensors)
        except Fail as error:
            raise _refusal(self.signature, tensors, error) from error
        return to_batch(dict(zip(self._names, found, strict=True)))


def _refusal(signature: Signature, tensors: dict[str, np.ndarray], error: Exception) -> SignatureError:
    """What the graph refuses: a category it doesn't know, where it was trained to take that as an error."""
    for wanted in signature.inputs:
        unknown = sorted(
            set(tensors[wanted.name].reshape(-1).tolist()) - set(wanted.categories or ()), key=str
        )
        if wanted.categories is not None and unknown:
            return SignatureError(
                f"column {wanted.name!r} holds {unknown[0]!r}: expected one of {list(wanted.categories)}; train with "
                "handle_unknown='ignore' to score categories that training did not see"
            )
    return SignatureError(f"the model refuses these rows: {error}")
