"""The Ray cluster this process is connected to: one at a time, as Ray has it.

A cluster that is started here belongs to this process and listens on the loopback interface alone. It ends with
`disconnect`, or with the process; no usage report is sent.
"""

from __future__ import annotations

import atexit
import importlib
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from millstream.errors import Refused, TrainingError

__all__ = ["connect", "disconnect", "import_ray"]

LOOPBACK = "127.0.0.1"


def import_ray() -> Any:
    """The module; raises `Refused` where it is not installed."""
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise Refused(
            "the engine Ray needs the package ray, which is not installed: pip install 'millstream[ray]', or use "
            "Processes()"
        ) from error


class _Connection:
    """What this process has opened, and so has to close."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.opened = False
        self.address: str | None = None
        self.directory: str | None = None


_connection = _Connection()


def connect(address: str | None, n_workers: int, object_store_memory: int | None) -> bool:
    """Be connected: to the cluster this process is connected to already, to that at `address`, or to a new one.

    Returns whether the cluster was started here. Raises `TrainingError` where none answers.
    """
    ray = import_ray()
    with _connection.lock:
        if ray.is_initialized():
            if _connection.opened and address != _connection.address:
                raise Refused(
                    f"Ray(address={address!r}) while this process is connected to "
                    f"{_connection.address or 'a cluster of its own'}; leave that one first (`with engine:` ends it)"
                )
            return _connection.directory is not None
        try:
            with _no_signal_handler():
                if address is None:
                    _start(ray, n_workers, object_store_memory)
                else:
                    ray.init(address, log_to_driver=False, configure_logging=False)
        except (ConnectionError, TimeoutError, ValueError, RuntimeError) as error:
            _close(ray)
            where = (
                "no local Ray cluster could be started" if address is None else f"no Ray cluster at {address}"
            )
            raise TrainingError(f"{where}: {error}; see `ray status`, or use Processes()") from error
        _connection.opened, _connection.address = True, address
        atexit.register(disconnect)  # before Ray's own, which was registered when it was imported
        return address is None


def disconnect() -> None:
    """Leave the cluster if `connect` opened the connection, and end it if it was started here."""
    with _connection.lock:
        if _connection.opened:
            atexit.unregister(disconnect)
            _close(import_ray())


def _close(ray: Any) -> None:
    ray.shutdown()
    if _connection.directory is not None:
        shutil.rmtree(_connection.directory, ignore_errors=True)
    _connection.opened, _connection.address, _connection.directory = False, None, None


def _start(ray: Any, n_workers: int, object_store_memory: int | None) -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Sockets below it have names of at most 107 bytes, of which Ray takes about 70.
    _connection.directory = tempfile.mkdtemp(prefix="millstream-ray-")
    with _loopback():
        ray.init(
            "local",
            num_cpus=n_workers,
            object_store_memory=object_store_memory,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            _node_ip_address=LOOPBACK,
            _temp_dir=_connection.directory,
        )
    if ray.util.get_node_ip_address() != LOOPBACK:
        raise RuntimeError(f"it listens on {ray.util.get_node_ip_address()} instead of {LOOPBACK}")


@contextmanager
def _loopback() -> Iterator[None]:
    """Without this Ray takes another interface in place of 127.0.0.1, so that other machines could join."""
    constants: Any = importlib.import_module("ray._private.ray_constants")
    before = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _no_signal_handler() -> Iterator[None]:
    """`ray.init` puts a handler of its own in the place of the program's."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
