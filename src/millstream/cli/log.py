"""``millstream log``: run the log's broker, look at its topics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import output, table

__all__ = ["app"]

app = typer.Typer(help="Run the log's broker and look at its topics.", no_args_is_help=True)
Directory = Annotated[Path, typer.Option("--dir", help="Folder of the log.")]


@app.command()
def serve(
    directory: Directory,
    port: Annotated[
        int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.", min=0, max=65535)
    ] = 9092,
) -> None:
    """Serve a folder by Kafka's protocol until Ctrl-C. Any Kafka client can produce and consume."""
    from millstream.log import broker

    broker.serve(
        directory, port=port, on_ready=lambda address: output.print(f"{directory} on {address}; Ctrl-C stops")
    )


@app.command()
def topics(
    where: Annotated[str, typer.Argument(help="Folder of a log, or kafka://HOST:PORT.")],
) -> None:
    """The topics with their partitions, records and columns."""
    import millstream as ms

    with ms.Log(where, create=False) as log:
        rows = []
        for name in log.topics():
            topic = log[name]
            columns = ", ".join(topic.schema.names) if topic.schema is not None else "key, value"
            rows.append((name, topic.n_partitions, f"{sum(topic.end_offsets()):,}", topic.format, columns))
    table("Topics", ("topic", "partitions", "records", "format", "columns"), rows)
