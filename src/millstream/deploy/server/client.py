"""A client of the Open Inference Protocol V2: rows in, predictions out, over one kept connection."""

from __future__ import annotations

import http.client
from datetime import timedelta
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec
import pyarrow as pa

from millstream.data import as_table
from millstream.deploy.server.protocol import InferResponse, inputs_of, no_answers, request_of, table_of
from millstream.errors import DeployError

__all__ = ["InferenceClient"]

TIMEOUT = timedelta(seconds=60)
REQUEST_ROWS = 4096

_decoder = msgspec.json.Decoder(InferResponse)
_encoder = msgspec.json.Encoder()


class InferenceClient:
    """Asks the server at `url` for predictions of `model`.

    `predict` sends `REQUEST_ROWS` rows a request, of the columns the model reads, and returns the flat outputs in
    the order of the rows. A refusal of the server is a DeployError with its status and text.
    """

    def __init__(self, url: str, model: str, *, headers: dict[str, str] | None = None) -> None:
        address = urlsplit(url)
        self._connection = http.client.HTTPConnection(
            address.hostname or "127.0.0.1", address.port, timeout=TIMEOUT.total_seconds()
        )
        self._path = f"/v2/models/{quote(model, safe='')}"
        self._headers = {"content-type": "application/json", **(headers or {})}
        self._metadata: dict[str, Any] | None = None

    @property
    def metadata(self) -> dict[str, Any]:
        """What the server says of the model, asked for once: inputs, and outputs with the class of a probability."""
        if self._metadata is None:
            self._metadata = msgspec.json.decode(self._ask("GET", self._path), type=dict[str, Any])
        return self._metadata

    def predict(self, rows: pa.RecordBatch | pa.Table) -> pa.Table:
        """The predictions for `rows`, which need at least the model's columns; a data frame will do."""
        table = as_table(rows)
        wanted = inputs_of(self.metadata)
        if read := [name for name in table.column_names if name in wanted]:
            table = table.select(read)
        found = [
            self._infer(table.slice(first, REQUEST_ROWS).combine_chunks().to_batches()[0])
            for first in range(0, table.num_rows, REQUEST_ROWS)
        ]
        return pa.concat_tables(found) if found else no_answers(self.metadata)

    def _infer(self, rows: pa.RecordBatch) -> pa.Table:
        body = self._ask("POST", f"{self._path}/infer", _encoder.encode(request_of(rows)))
        return table_of(_decoder.decode(body))

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        self._connection.request(method, path, body, self._headers)
        response = self._connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise DeployError(
                f"the server answered {response.status}: {answer[:2000].decode(errors='replace')}"
            )
        return answer

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> InferenceClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
