"""``millstream deploy``: a version goes live on a target, after its golden rows passed there."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from .console import output, progress
from .models import RegistryPath, existing
from .score import score

__all__ = ["app"]

app = typer.Typer(
    help="Deploy a model: as a batch job, in a database, in a stream or at the edge (a server: millstream serve).",
    no_args_is_help=True,
)
Reference = Annotated[str, typer.Argument(help="A model as NAME@ALIAS or NAME@NUMBER.")]

app.command("batch")(score)


@app.command()
def database(
    reference: Reference,
    url: Annotated[str, typer.Argument(help="SQLAlchemy URL, for example sqlite:///rides.db.")],
    table: Annotated[str, typer.Option(help="Table with the rows to score.")],
    into: Annotated[str, typer.Option(help="Table for the predictions; made if it is not there.")],
    as_sql: Annotated[
        bool, typer.Option("--as-sql", help="Let the database compute the model itself.")
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the model as SQL and write nothing.")] = False,
    registry: RegistryPath = Path("models"),
) -> None:
    """Score a table of a database; all predictions appear in one transaction."""
    import millstream as ms

    version = existing(registry).get(reference)
    with progress() as tell:
        scorer = ms.DatabaseScorer(
            version,
            url,
            table=table,
            into=into,
            as_sql=as_sql,
            progress=lambda done, total: tell("rows", done, total),
        )
        if show:
            output.print(scorer.sql())
            return
        report = scorer.run()
    output.print(f"{report.rows:,} rows scored into {into}")


@app.command()
def stream(
    reference: Annotated[
        str, typer.Argument(help="A model as NAME@ALIAS; a promotion takes effect at a checkpoint.")
    ],
    log: Annotated[str, typer.Option(help="Folder of the log, or kafka://HOST:PORT.")],
    source: Annotated[str, typer.Option(help="Topic with the rows to score.")],
    sink: Annotated[str, typer.Option(help="Topic for rows with predictions; made if it is not there.")],
    event_time: Annotated[str, typer.Option(help="Column with the event time.")],
    checkpoint: Annotated[
        Path, typer.Option(help="Folder for checkpoints; the job goes on from the last one.")
    ],
    every: Annotated[float, typer.Option(help="Seconds between checkpoints.", min=0.01)] = 10.0,
    delay: Annotated[float, typer.Option(help="Seconds to wait for rows out of order.", min=0.0)] = 0.0,
    bounded: Annotated[bool, typer.Option("--bounded", help="Stop at the end the topic has now.")] = False,
    registry: RegistryPath = Path("models"),
) -> None:
    """Score a topic into another, exactly once, until Ctrl-C."""
    import millstream as ms

    opened = existing(registry)
    with ms.Log(log) as events:
        rows = ms.as_stream(
            events[source], event_time=event_time, delay=timedelta(seconds=delay), bounded=bounded or None
        )
        followed = opened.follow(reference)
        schema = ms.StreamJob.plan(followed, rows).schema
        answers = events.create_topic(
            sink, partitions=events[source].n_partitions, schema=schema, exist_ok=True
        )
        job = ms.StreamJob(followed, source=rows, sink=answers)
        report = job.run(checkpoint=checkpoint, every=timedelta(seconds=every))
    output.print(
        f"{report.ending}: {report.rows_in:,} rows in, {sum(report.rows_out.values()):,} out, {report.late:,} late"
    )


@app.command()
def edge(
    reference: Reference,
    to: Annotated[Path, typer.Option("--to", help="Folder to write; must not exist yet.")],
    max_bytes: Annotated[int | None, typer.Option(help="Refuse if the folder is larger.", min=1)] = None,
    max_latency_ms: Annotated[
        float | None, typer.Option(help="Refuse if a row takes longer, median.", min=0.0)
    ] = None,
    registry: RegistryPath = Path("models"),
) -> None:
    """Write a folder that answers with onnxruntime and NumPy alone."""
    import millstream as ms

    latency = None if max_latency_ms is None else timedelta(milliseconds=max_latency_ms)
    version = existing(registry).get(reference)
    report = ms.EdgeBundle(version, max_bytes=max_bytes, max_latency=latency).write(to)
    output.print(f"{to}: {report.size:,} bytes, {report.row_median * 1e6:.0f} µs a row")
