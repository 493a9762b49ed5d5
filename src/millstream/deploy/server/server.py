"""The model server: one version behind HTTP on the loopback interface.

The server runs in a thread of this process, so whoever ends the process ends the server. Before it says that it is
ready it answers the version's golden rows over its own socket; until then other requests get 503.
"""

from __future__ import annotations

import errno
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from types import FrameType, TracebackType
from typing import Any

import pyarrow as pa
import uvicorn

from millstream.deploy.server.app import GOLDEN_HEADER, InferenceApp
from millstream.deploy.server.client import InferenceClient
from millstream.deploy.target import Target
from millstream.errors import AddressInUse, DeployError
from millstream.models import Version

__all__ = ["ModelServer"]

HOST = "127.0.0.1"
MAX_BYTES = 16 << 20
START_DEADLINE = timedelta(seconds=30)
STOP_DEADLINE = timedelta(seconds=10)
_CONNECTIONS = 512


class ModelServer(Target):
    """Serves a version by the Open Inference Protocol V2 over HTTP/JSON (see `app` for the paths).

    `serve` stays in the foreground until SIGINT, SIGTERM or `stop`; as a context manager, or between `start` and
    `stop`, the server runs in the background. max_bytes: the largest body it reads, in bytes.

    >>> import tempfile, numpy as np
    >>> from millstream.learn import KMeans
    >>> from millstream.models import Registry
    >>> X = np.array([[0.0, 0.0], [0.0, 1.0], [9.0, 9.0], [9.0, 8.0]])
    >>> version = Registry(tempfile.mkdtemp()).register("zones", KMeans(2, random_state=7).fit(X), data=X)
    >>> with ModelServer(version) as server, server.client() as client:
    ...     client.predict(pa.table({"x0": [0.0, 9.0], "x1": [0.5, 8.5]})).num_rows
    2
    """

    target = "server"

    def __init__(self, version: Version, *, max_bytes: int = MAX_BYTES) -> None:
        super().__init__(version)
        self._max_bytes = max_bytes
        self._token = secrets.token_hex(16)
        self._port: int | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    @property
    def url(self) -> str:
        """``http://127.0.0.1:port`` of the running server."""
        if self._port is None:
            raise DeployError(f"{self.version} is not being served; call start() first")
        return f"http://{HOST}:{self._port}"

    def serve(self, port: int = 8080, *, on_ready: Callable[[str], None] | None = None) -> None:
        """Serve in the foreground until SIGINT, SIGTERM or `stop`. Raises as `start` does.

        on_ready: called once with the `url`, when the server listens and the golden rows hold.
        """
        self._stopped.clear()
        previous = self._watch_signals()
        try:
            self.start(port)
            if on_ready is not None:
                on_ready(self.url)
            while not self._stopped.wait(timeout=1.0):
                self._require_thread()
        finally:
            self.stop()
            for number, handler in previous.items():
                signal.signal(number, handler)

    def start(self, port: int = 0) -> ModelServer:
        """Serve in the background; returns once the golden rows hold. Port 0 takes a free one.

        Raises AddressInUse, which names the port; ParityError, after which nothing is served.
        """
        if self._thread is not None:
            raise DeployError(f"{self.version} is served at {self.url} already; stop it first")
        listening = _listen(port)
        self._port = listening.getsockname()[1]
        app = InferenceApp(self.version, token=self._token, max_bytes=self._max_bytes)
        config = uvicorn.Config(
            app.asgi,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=int(STOP_DEADLINE.total_seconds() // 2),
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([listening],), name="millstream-server", daemon=True
        )
        self._thread.start()
        try:
            self._wait_until_started()
            self.verify()
        except BaseException:
            self.stop()
            raise
        app.ready = True
        self._went_live(self.url)
        return self

    def stop(self) -> None:
        """End the server; requests under way are answered first. May be called twice, and from any thread."""
        self._stopped.set()
        server, thread = self._server, self._thread
        if server is not None and thread is not None and thread is not threading.current_thread():
            server.should_exit = True
            thread.join(STOP_DEADLINE.total_seconds())
            if thread.is_alive():
                server.force_exit = True
                thread.join(STOP_DEADLINE.total_seconds())
        self._server = self._thread = self._port = None

    def client(self) -> InferenceClient:
        """A client of this server."""
        return InferenceClient(self.url, self.version.name)

    def golden_answers(self) -> pa.Table:
        """Golden rows over HTTP, through the socket all others come through."""
        inputs = [i.name for i in self.version.signature.inputs]
        with InferenceClient(self.url, self.version.name, headers={GOLDEN_HEADER: self._token}) as client:
            return client.predict(self.version.golden.inputs.select(inputs))

    def __enter__(self) -> ModelServer:
        return self if self._thread is not None else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_until_started(self) -> None:
        deadline = time.monotonic() + START_DEADLINE.total_seconds()
        while self._server is not None and not self._server.started:
            self._require_thread()
            if time.monotonic() > deadline:
                raise DeployError(f"the server did not start within {START_DEADLINE}; see its log on stderr")
            time.sleep(0.005)

    def _require_thread(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            raise DeployError("the server ended by itself; see its log on stderr")

    def _watch_signals(self) -> dict[int, Any]:
        """SIGINT and SIGTERM end `serve`, where it runs in the main thread; returns the handlers they had."""
        if threading.current_thread() is not threading.main_thread():
            return {}

        def end(number: int, frame: FrameType | None) -> None:
            self._stopped.set()

        return {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}


def _listen(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(
                f"port {port} of {HOST} is taken; stop what listens there, or take another"
            ) from error
        raise DeployError(
            f"can't listen on port {port} of {HOST}: {os.strerror(error.errno or 0)}"
        ) from error
    listening.listen(_CONNECTIONS)
    return listening
