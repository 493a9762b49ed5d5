"""The HTTP side of the server: paths, statuses and limits; what a tensor means is `protocol`'s.

==========================================  ==================================================
``GET  /v2``                                name and version of the server
``GET  /v2/health/live``, ``/ready``        200, or 503 while the golden rows are not answered
``GET  /v2/models/{m}[/versions/{v}]``      inputs and outputs; ``.../ready`` as above
``POST /v2/models/{m}[/versions/{v}]/infer``  predictions
==========================================  ==================================================

An error is ``{"error": text}``: 400 names the column, 404 the model that is served, 408 a body that took longer
than `BODY_DEADLINE`, 413 the limit, 503 a server that is not ready.
"""

from __future__ import annotations

import asyncio
import hmac
from datetime import timedelta
from typing import Any

import msgspec
import pyarrow as pa
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from millstream.deploy.server.protocol import InferRequest, answer, columns, metadata
from millstream.errors import SignatureError
from millstream.models import Version, flat

__all__ = ["BODY_DEADLINE", "GOLDEN_HEADER", "InferenceApp"]

BODY_DEADLINE = timedelta(seconds=30)
#: lets the server's own golden rows through before it is ready
GOLDEN_HEADER = "x-millstream-golden"

_decoder = msgspec.json.Decoder(InferRequest)
_encoder = msgspec.json.Encoder()


class _HttpError(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class InferenceApp:
    """The ASGI application `asgi` for one version.

    `ready` is False until whoever runs it has seen the golden rows answered; `token` lets these rows pass.
    """

    def __init__(self, version: Version, *, token: str, max_bytes: int) -> None:
        self.ready = False
        self._version = version
        self._scorer = version.scorer()
        self._token = token
        self._max_bytes = max_bytes
        self._metadata = metadata(version.name, version.number, version.signature)
        model = "/v2/models/{model}"
        self.asgi = Starlette(
            routes=[
                Route("/v2", self._server),
                Route("/v2/health/live", self._live),
                Route("/v2/health/ready", self._is_ready),
                *(
                    route
                    for path in (model, model + "/versions/{version}")
                    for route in (
                        Route(path, self._model),
                        Route(path + "/ready", self._is_ready),
                        Route(path + "/infer", self._infer, methods=["POST"]),
                    )
                ),
            ],
            exception_handlers={404: _unknown_path, _HttpError: _refusal},
        )

    async def _server(self, request: Request) -> Response:
        from millstream import __version__

        return _json({"name": "millstream", "version": __version__, "extensions": []})

    async def _live(self, request: Request) -> Response:
        return _json({"live": True})

    async def _is_ready(self, request: Request) -> Response:
        self._served(request)
        return _json({"name": self._version.name, "ready": self.ready}, 200 if self.ready else 503)

    async def _model(self, request: Request) -> Response:
        self._served(request)
        return _json(self._metadata)

    async def _infer(self, request: Request) -> Response:
        self._served(request)
        if not self.ready and not hmac.compare_digest(request.headers.get(GOLDEN_HEADER, ""), self._token):
            raise _HttpError(
                503, f"{self._version} is not ready: its golden rows are being checked; ask again"
            )
        body = await self._body(request)
        return Response(await run_in_threadpool(self._answer, body), media_type="application/json")

    def _answer(self, body: bytes) -> bytes:
        """The bytes of the response to the bytes of an infer request."""
        try:
            asked = _decoder.decode(body)
            predictions: pa.RecordBatch = flat(self._scorer.predict(columns(asked)))
            return _encoder.encode(answer(asked, self._version.name, self._version.number, predictions))
        except (msgspec.DecodeError, SignatureError) as error:
            raise _HttpError(400, str(error)) from error

    def _served(self, request: Request) -> None:
        """404 unless the path names the model and version that are served."""
        name = request.path_params.get("model", self._version.name)
        number = request.path_params.get("version", str(self._version.number))
        if (name, number) != (self._version.name, str(self._version.number)):
            raise _HttpError(
                404, f"no version {number!r} of model {name!r} here; this server has {self._version}"
            )

    async def _body(self, request: Request) -> bytes:
        declared = request.headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            raise self._too_large()
        try:
            async with asyncio.timeout(BODY_DEADLINE.total_seconds()):
                chunks: list[bytes] = []
                size = 0
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > self._max_bytes:
                        raise self._too_large()
                    chunks.append(chunk)
                return b"".join(chunks)
        except TimeoutError as error:
            raise _HttpError(408, f"the body took longer than {BODY_DEADLINE}; send it again") from error
        except ClientDisconnect as error:
            raise _HttpError(400, "the connection ended within the body") from error

    def _too_large(self) -> _HttpError:
        return _HttpError(413, f"the body exceeds {self._max_bytes} bytes; send fewer rows a request")


async def _refusal(request: Request, error: Any) -> Response:
    return _json({"error": str(error)}, error.status)


async def _unknown_path(request: Request, error: Any) -> Response:
    return _json(
        {"error": f"no {request.url.path}; this server speaks the Open Inference Protocol below /v2"}, 404
    )


def _json(value: Any, status: int = 200) -> Response:
    return Response(_encoder.encode(value), status, media_type="application/json")
