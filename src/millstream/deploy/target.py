"""A target: a place where a version answers.

The contract of every deployment. A target is made from a version; before it goes live it answers the
version's golden rows the way it will answer all others (the same file format, the same table, the same
socket, the same process), and the comparison is kept in the registry. A target whose answers differ is
refused: `verify` raises ParityError and nothing goes live.

The usual mistake is to answer the golden rows by calling the Scorer: that checks ONNX Runtime, not the
target.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import pyarrow as pa

from millstream.errors import InputError
from millstream.models import Parity, Version

__all__ = ["MODEL_COLUMN", "Target"]

#: the column of a target that says which version answered, as ``name@number``
MODEL_COLUMN = "model"


class Target(ABC):
    """Base of all deployers; subclasses are found by the law of promise 3.

    `target` is the name under which the registry keeps parity reports and deployments.
    """

    target: ClassVar[str]

    def __init__(self, version: Version) -> None:
        if not isinstance(version, Version):
            raise InputError(
                f"version is {version!r:.200}, a {type(version).__name__}; expected a Version: "
                "Registry(path).get('name@alias')"
            )
        self.version = version

    @abstractmethod
    def golden_answers(self) -> pa.RecordBatch | pa.Table:
        """The target's own answers for the golden rows of its version, in their order."""

    def verify(self) -> Parity:
        """Answer the golden rows on the target; keep the comparison; raise ParityError if it doesn't hold."""
        return self.version.check(self.target, self.golden_answers())

    def _went_live(self, location: str, **measured: float) -> None:
        self.version.registry.record_deployment(self.version, self.target, location, measured)
