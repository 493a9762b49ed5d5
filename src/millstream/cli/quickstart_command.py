"""``millstream quickstart``: the whole way on real flights, and what it measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .console import complaints, output, progress, table

__all__ = ["quickstart"]


def quickstart(
    home: Annotated[Path, typer.Option("--output", help="Folder for everything the run writes.")] = Path(
        "quickstart"
    ),
    workers: Annotated[int, typer.Option(help="Threads that train.", min=1)] = 2,
    seed: Annotated[int, typer.Option(help="Seed of the disorder in which events arrive.")] = 2013,
) -> None:
    """Events, features, training, registry and five deployments on the flights of New York, 2013.

    Writes report.html and report.json into the output folder. Exit code 0 only if no event was lost or counted twice
    and all five deployments give the estimator's own predictions.
    """
    from .quickstart.story import Story

    with progress() as tell:
        story = Story(
            home,
            workers=workers,
            seed=seed,
            progress=tell,
            step=lambda name: complaints.print(name, style="bold"),
        )
        figures = story.run()
    show(figures)
    output.print(f"\nreport: {home / 'report.html'}")
    if figures["failures"]:
        for failure in figures["failures"]:
            complaints.print(f"failed: {failure}", style="bold red")
        raise typer.Exit(1)


def show(figures: dict[str, Any]) -> None:
    """The figures of a run as tables."""
    table(
        "Events",
        ("in", "late", "feature rows", "predictions out"),
        [[f"{figures[name]:,}" for name in ("events_in", "late", "feature_rows", "events_out")]],
    )
    quality = ("auc", "auc_without_stream_features", "precision", "recall", "accuracy")
    table(
        "Quality on the last quarter",
        [name.replace("_", " ") for name in quality],
        [[f"{figures[name]:.4f}" for name in quality]],
    )
    table(
        f"Training on {figures['workers']} workers",
        ("speedup", "efficiency", "same bits as one worker"),
        [
            [
                f"{figures['speedup']:.2f}",
                f"{figures['efficiency']:.0%}",
                "yes" if figures["same_bits"] else "no",
            ]
        ],
    )
    table(
        "Predictions against the estimator's own",
        ("deployment", "rows", "largest difference", "label flips"),
        (
            (name, f"{row['rows']:,}", f"{row['largest_absolute_difference']:.1e}", row["label_flips"])
            for name, row in figures["parity"].items()
        ),
    )
    table("Seconds", figures["seconds"], [[f"{seconds:.1f}" for seconds in figures["seconds"].values()]])
