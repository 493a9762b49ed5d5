"""``millstream models``: what the registry holds."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated

import typer

from millstream.errors import InputError

from .console import output, table

__all__ = ["RegistryPath", "app", "existing"]

RegistryPath = Annotated[
    Path, typer.Option("--registry", envvar="MILLSTREAM_REGISTRY", help="Folder of the registry.")
]

if TYPE_CHECKING:
    from millstream.models import Registry


def existing(registry: Path) -> Registry:
    """The registry in that folder; a folder without one is refused, not filled."""
    import millstream as ms

    if not (registry / "registry.db").is_file():
        raise InputError(
            f"no registry in {registry}: expected a folder that holds registry.db; "
            "pass --registry DIR, or make one with: millstream train DATA --name NAME"
        )
    return ms.Registry(registry)


app = typer.Typer(help="List, show and promote the models of a registry.", no_args_is_help=True)


@app.command("list")
def list_models(registry: RegistryPath = Path("models")) -> None:
    """Every model with its versions and aliases."""
    opened = existing(registry)
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
    from millstream.models import flat_schema

    opened = existing(registry)
    version = opened.get(reference)
    output.print(f"{version.name} version {version.number}, digest {version.digest}")
    output.print(f"in {version.path}")
    inputs = version.signature.input_schema
    table("Inputs", ("column", "type"), ((field.name, field.type) for field in inputs))
    table(
        "Outputs",
        ("column", "type", "probability of"),
        (
            (field.name, field.type, "" if (of := version.signature.class_of(field.name)) is None else of)
            for field in flat_schema(version.signature.output_schema)
        ),
    )
    table(
        "Lineage",
        ("what", "value"),
        ((key, shorten(str(value), 100)) for key, value in version.lineage.items()),
    )
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
    opened = existing(registry)
    if expect is None:
        opened.promote(name, number, alias)
    else:
        opened.promote(name, number, alias, expect=expect or None)
    output.print(f"{name}@{alias} is version {number}")


@app.command()
def history(
    name: Annotated[str, typer.Argument(help="Name of the model, or NAME@ALIAS.")],
    alias: Annotated[str, typer.Argument(help="Alias.")] = "production",
    registry: RegistryPath = Path("models"),
) -> None:
    """Where an alias has pointed, and since when."""
    if "@" in name:
        name, _, alias = name.partition("@")
    changes = existing(registry).history(name, alias)
    rows = ((change.at, change.previous or "", change.number) for change in changes)
    table(f"{name}@{alias}", ("at", "from", "to"), rows)
