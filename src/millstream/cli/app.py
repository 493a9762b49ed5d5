"""``millstream``: the commands, and what happens when one of them fails.

A failure that Millstream raises on purpose is one paragraph on standard error and exit code 1; wrong usage is exit
code 2; Ctrl-C ends with 130, after everything the command started has been stopped. Packages are imported inside the
commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from millstream.errors import MillstreamError

from . import deploy, log, models, quickstart_command, score, serve, train
from .console import complaints, output

__all__ = ["app", "main"]

app = typer.Typer(
    help="Scalable machine learning, from the first event to the edge.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command("quickstart")(quickstart_command.quickstart)
app.add_typer(log.app, name="log")
app.command("train")(train.train)
app.command("score")(score.score)
app.add_typer(models.app, name="models")
app.command("serve")(serve.serve)
app.add_typer(deploy.app, name="deploy")


def _version(asked: bool) -> None:
    if asked:
        output.print(f"millstream {version('millstream')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Scalable machine learning, from the first event to the edge."""


def main() -> None:
    """Entry point of the console script."""
    try:
        app()
    except MillstreamError as error:
        complaints.print(f"{type(error).__name__}: ", style="bold red", end="")
        complaints.print(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        complaints.print("stopped")
        sys.exit(130)
