"""Where it answers: five targets for one model, each checked against the golden rows before it goes live."""

from millstream.deploy.batch import BatchJob, BatchReport
from millstream.deploy.database import DatabaseReport, DatabaseScorer
from millstream.deploy.edge import EdgeBundle, EdgeReport
from millstream.deploy.server import InferenceClient, ModelServer
from millstream.deploy.stream import StreamJob, VersionPredictor
from millstream.deploy.target import Target

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
