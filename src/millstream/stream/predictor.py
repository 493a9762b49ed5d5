"""What a stream asks of a model: `Predictor`. Models stand above streams, so the model comes in as an object."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import pyarrow as pa

__all__ = ["Predictor"]


@runtime_checkable
class Predictor(Protocol):
    """A model that can stand in a plan.

    Laws: `predict` is a pure function of the rows and the version; it keeps the rows, their order and the input
    columns and appends the outputs; the version changes only inside `refresh`, which the runtime calls at barriers
    and nowhere else; `output_schema` doesn't change with the version.
    """

    @property
    def version(self) -> str:
        """Which model answers at present."""
        ...

    def output_schema(self, schema: pa.Schema) -> pa.Schema:
        """The input's columns followed by the outputs; SignatureError if the input doesn't fit."""
        ...

    def predict(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows with their predictions, in `output_schema`."""
        ...

    def refresh(self) -> None:
        """A barrier has passed: change to a newer version now, if there is one."""
        ...
