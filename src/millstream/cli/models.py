"""``millstream models``: what the registry holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import output, table

__all__ = ["RegistryPath", "app"]

RegistryPath = Annotated[
    Path, typer.Option("--registry", envvar="MILLSTREAM_REGISTRY", help="Folder of the registry.")
]

app = typer.Typer(help="List, show and promote the models of a registry.", no_args_is_help=True)


@app.command("list")
def list_models(registry: RegistryPath = Path("models")) -> None:
    """Every model with its versions and aliases."""
    import millstream as ms

    opened = ms.Registry(registry)
    rows = []
    for name in opened.models():
        aliases = opened.aliases(name)
        for version in opened.versions(name):
            pointing = ", ".join(alias for alias, number in aliases.items() if number == version.number)
            metrics = ", ".join(f"{key} {value:.4f}" for key, value in version.metrics.items())
            rows.append((name, version.number, pointing, version.digest[:12], metrics))
    table("Models", ("name", "version", "alias", "digest", "metrics"), rows)


@app.command()
def show(
    reference: Annotated[str, typer.Argument(help="A model as NAME@ALIAS or NAME@NUMBER.")],
    registry: RegistryPath = Path("models"),
) -> None:
    """Signature, lineage, parity and deployments of one version."""
    import millstream as ms
    from millstream.models import flat_schema

    opened = ms.Registry(registry)
    version = opened.get(reference)
    output.print(f"{version.name} version {version.number}, digest {version.digest}")
    output.print(f"in {version.path}")
    inputs = version.signature.input_schema
    table("Inputs", ("column", "type"), ((field.name, field.type) for field in inputs))
    table(
        "Outputs",
        ("column", "type"),
        ((field.name, field.type) for field in flat_schema(version.signature.output_schema)),
    )
    table("Lineage", ("what", "value"), version.lineage.items())
    table(
        "Golden rows by target",
        ("target", "largest difference", "label flips", "at"),
        (
            (report.target, f"{report.parity.largest_absolute:.2e}", report.parity.label_flips, report.at)
            for report in opened.parity(version.name, version.number)
        ),
    )
    table(
        "Deployments",
        ("target", "location", "at"),
        ((row.target, row.location, row.at) for row in opened.deployments(version.name, version.number)),
    )


@app.command()
def promote(
    name: Annotated[str, typer.Argument(help="Name of the model.")],
    number: Annotated[int, typer.Argument(help="Version to promote.")],
    alias: Annotated[str, typer.Argument(help="Alias to move.")] = "production",
    expect: Annotated[
        int | None, typer.Option(help="Refuse unless the alias points to this version now; 0 for none.")
    ] = None,
    registry: RegistryPath = Path("models"),
) -> None:
    """Point an alias to a version."""
    import millstream as ms

    opened = ms.Registry(registry)
    if expect is None:
        opened.promote(name, number, alias)
    else:
        opened.promote(name, number, alias, expect=expect or None)
    output.print(f"{name}@{alias} is version {number}")


@app.command()
def history(
    name: Annotated[str, typer.Argument(help="Name of the model.")],
    alias: Annotated[str, typer.Argument(help="Alias.")] = "production",
    registry: RegistryPath = Path("models"),
) -> None:
    """Where an alias has pointed, and since when."""
    import millstream as ms

    changes = ms.Registry(registry).history(name, alias)
    rows = ((change.at, change.previous or "", change.number) for change in changes)
    table(f"{name}@{alias}", ("at", "from", "to"), rows)
