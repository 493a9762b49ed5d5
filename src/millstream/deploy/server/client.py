"""A client of the Open Inference Protocol V2: rows in, predictions out, over one kept connection."""

from __future__ import annotations

import http.client
from datetime import timedelta
from types import TracebackType
from urllib.parse import quote, urlsplit

import msgspec
import pyarrow as pa

from millstream.deploy.server.protocol import InferResponse, request_of, table_of
from millstream.errors import DeployError

__all__ = ["InferenceClient"]

TIMEOUT = timedelta(seconds=60)
REQUEST_ROWS = 4096

_decoder = msgspec.json.Decoder(InferResponse)
_encoder = msgspec.json.Encoder()


class InferenceClient:
    """Asks the server at `url` for predictions of `model`.

    `predict` sends `REQUEST_ROWS` rows a request and returns the flat outputs in the order of the rows. A refusal
    of the server is a DeployError with its status and text.
    """

    def __init__(self, url: str, model: str, *, headers: dict[str, str] | None = None) -> None:
        address = urlsplit(url)
        self._connection = http.client.HTTPConnection(
            address.hostname or "127.0.0.1", address.port, timeout=TIMEOUT.total_seconds()
        )
        self._path = f"/v2/models/{quote(model, safe='')}/infer"
        self._headers = {"content-type": "application/json", **(headers or {})}

    def predict(self, rows: pa.RecordBatch | pa.Table) -> pa.Table:
        """The predictions for `rows`, which need at least the model's columns."""
        table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
        found = [
            self._infer(table.slice(first, REQUEST_ROWS).combine_chunks().to_batches()[0])
            for first in range(0, table.num_rows, REQUEST_ROWS)
        ]
        return pa.concat_tables(found)

    def _infer(self, rows: pa.RecordBatch) -> pa.Table:
        self._connection.request("POST", self._path, _encoder.encode(request_of(rows)), self._headers)
        response = self._connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise DeployError(
                f"the server answered {response.status}: {body[:2000].decode(errors='replace')}"
            )
        return table_of(_decoder.decode(body))

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> InferenceClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
