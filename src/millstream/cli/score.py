"""``millstream score``: predictions for a Parquet file, right here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import output, progress
from .models import RegistryPath, existing

__all__ = ["score"]


def score(
    reference: Annotated[str, typer.Argument(help="A model as NAME@ALIAS or NAME@NUMBER.")],
    data: Annotated[str, typer.Argument(help="Parquet file, folder or pattern.")],
    to: Annotated[Path, typer.Option("--to", help="Folder for the scored rows.")] = Path("scored"),
    registry: RegistryPath = Path("models"),
) -> None:
    """Score a Parquet file and write rows and predictions as Parquet. Killed and called again, it goes on."""
    import millstream as ms

    version = existing(registry).get(reference)
    with progress() as tell:
        report = ms.BatchJob(
            version,
            source=ms.read_parquet(data),
            sink=to,
            progress=lambda done, total: tell("parts", done, total),
        ).run()
    output.print(f"{report.rows:,} rows scored by {version.name} version {version.number} into {to}")
