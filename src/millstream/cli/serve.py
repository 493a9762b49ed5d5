"""``millstream serve``: a model over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import output
from .models import RegistryPath, existing

__all__ = ["serve"]


def serve(
    reference: Annotated[str, typer.Argument(help="A model as NAME@ALIAS or NAME@NUMBER.")],
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.", min=0, max=65535)] = 8080,
    registry: RegistryPath = Path("models"),
) -> None:
    """Serve a model by the Open Inference Protocol V2 (JSON over HTTP) until Ctrl-C.

    Example: curl 127.0.0.1:8080/v2/models/zones
    """
    import millstream as ms

    version = existing(registry).get(reference)
    server = ms.ModelServer(version)

    def ready(url: str) -> None:
        output.print(f"serving {version.name} version {version.number} on {url}; Ctrl-C stops")

    server.serve(port=port, on_ready=ready)
