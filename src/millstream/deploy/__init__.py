"""Where it answers: five targets for one model, each checked against the golden rows before it goes live.

::

    target                      answers come as
    batch     BatchJob          Parquet files, resumable
    database  DatabaseScorer    a table, in one transaction; or the model as SQL
    stream    StreamJob         rows of a topic, exactly once
    server    ModelServer       the Open Inference Protocol over HTTP
    edge      EdgeBundle        a folder that needs onnxruntime and NumPy

Names are loaded on first use: a server does not load streams.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from millstream.deploy.batch import BatchJob, BatchReport
    from millstream.deploy.database import DatabaseReport, DatabaseScorer
    from millstream.deploy.edge import EdgeBundle, EdgeReport
    from millstream.deploy.server import InferenceClient, ModelServer
    from millstream.deploy.stream import StreamJob, VersionPredictor
    from millstream.deploy.target import Target

_HOME = {
    "BatchJob": "batch",
    "BatchReport": "batch",
    "DatabaseReport": "database",
    "DatabaseScorer": "database",
    "EdgeBundle": "edge",
    "EdgeReport": "edge",
    "InferenceClient": "server",
    "ModelServer": "server",
    "StreamJob": "stream",
    "Target": "target",
    "VersionPredictor": "stream",
}

__all__ = [
    "BatchJob",
    "BatchReport",
    "DatabaseReport",
    "DatabaseScorer",
    "EdgeBundle",
    "EdgeReport",
    "InferenceClient",
    "ModelServer",
    "StreamJob",
    "Target",
    "VersionPredictor",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
