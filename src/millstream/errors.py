"""The exceptions of Millstream, one tree.

::

    MillstreamError
    ├── InputError (ValueError)          what the caller handed in can't be used
    │   ├── SchemaError                  a column is missing, or of another type
    │   └── SignatureError               rows don't match the signature of a model
    ├── LogError
    │   ├── LogLocked                    another process owns the directory
    │   ├── LogFull                      an append did not fit; nothing of it is visible
    │   ├── CorruptBatch                 a checksum or a length is wrong
    │   ├── UnknownTopic (KeyError)      no topic of that name
    │   ├── TopicExists                  a topic of that name is already there
    │   └── BrokerUnavailable            no broker answers at that address
    ├── TrainingError
    │   ├── Refused                      this algorithm can't run that way; the reason is in the text
    │   ├── WorkerLost                   every worker died or hung
    │   ├── DeadlineExceeded             a step took longer than its deadline
    │   └── TrainingCheckpointError      a fit can't be kept, or what was kept can't be read
    ├── StreamError
    │   ├── PlanError                    a plan that can't run
    │   ├── CheckpointError              no valid checkpoint, or one of another plan
    │   └── JobRunning                   a second live instance of a job
    ├── ModelError
    │   ├── BundleCorrupt                a file of the bundle doesn't match its hash
    │   ├── UnknownModel (KeyError)      no such model, version or alias
    │   ├── PromotionConflict            the alias moved since it was read
    │   └── ParityError                  predictions differ from the golden rows
    └── DeployError
        └── AddressInUse                 the port is taken

Every message names the value, what was expected, and the next step.
"""

from __future__ import annotations

__all__ = [
    "AddressInUse",
    "BrokerUnavailable",
    "BundleCorrupt",
    "CheckpointError",
    "CorruptBatch",
    "DeadlineExceeded",
    "DeployError",
    "InputError",
    "JobRunning",
    "LogError",
    "LogFull",
    "LogLocked",
    "MillstreamError",
    "ModelError",
    "ParityError",
    "PlanError",
    "PromotionConflict",
    "Refused",
    "SchemaError",
    "SignatureError",
    "StreamError",
    "TopicExists",
    "TrainingCheckpointError",
    "TrainingError",
    "UnknownModel",
    "UnknownTopic",
    "WorkerLost",
]


class MillstreamError(Exception):
    """The root: catch it to catch everything Millstream raises on purpose."""

    def __str__(self) -> str:  # KeyError would print the repr of its argument
        return str(self.args[0]) if len(self.args) == 1 else super().__str__()


class InputError(MillstreamError, ValueError):
    """What the caller handed in can't be used."""


class SchemaError(InputError):
    """A column is missing, or has another type than the one expected."""


class SignatureError(InputError):
    """Rows don't match the signature of a model: names the column, what was expected, what came."""


class LogError(MillstreamError):
    """Something about the log."""


class LogLocked(LogError):
    """Another process owns the directory; the message names its pid."""


class LogFull(LogError):
    """An append did not fit on the disk; nothing of it is visible to readers."""


class CorruptBatch(LogError):
    """A record batch whose checksum, length or header is wrong."""


class UnknownTopic(LogError, KeyError):
    """No topic of that name."""


class TopicExists(LogError):
    """A topic of that name is already there."""


class BrokerUnavailable(LogError):
    """No broker answers at that address within the deadline."""


class TrainingError(MillstreamError):
    """Something about training in parallel."""


class Refused(TrainingError):
    """The algorithm can't run that way; the reason is in the text."""


class WorkerLost(TrainingError):
    """Every worker died or hung, so no one is left to compute the step again."""


class DeadlineExceeded(TrainingError):
    """A step took longer than its deadline on every worker."""


class TrainingCheckpointError(TrainingError):
    """A fit can't be kept in its file, or the file can't be read; the message names it."""


class StreamError(MillstreamError):
    """Something about streams."""


class PlanError(StreamError):
    """A plan that can't run, refused before the first row."""


class CheckpointError(StreamError):
    """No valid checkpoint where one is needed, or one that belongs to another plan."""


class JobRunning(StreamError):
    """A second live instance of a job; the message names the pid of the first."""


class ModelError(MillstreamError):
    """Something about models, bundles and the registry."""


class BundleCorrupt(ModelError):
    """A file of the bundle doesn't match the hash that names it."""


class UnknownModel(ModelError, KeyError):
    """No such model, version or alias."""


class PromotionConflict(ModelError):
    """Compare-and-set promotion: the alias does not point where the caller believed."""


class ParityError(ModelError):
    """Predictions differ from the golden rows beyond the bounds, so the release is refused."""


class DeployError(MillstreamError):
    """Something about a deployment."""


class AddressInUse(DeployError):
    """The port is taken; the message names it."""
