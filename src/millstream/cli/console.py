"""What commands print with: results to standard output, progress and complaints to standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

__all__ = ["complaints", "output", "progress", "table"]

output = Console(highlight=False, markup=False, soft_wrap=True)
complaints = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
if not output.is_terminal:
    output.width = 500  # in a file or a pipe no cell is cut


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print rows under a title; numbers are already text in the form they should have."""
    drawn = Table(*columns, box=None, pad_edge=False, header_style="dim")
    for row in rows:
        drawn.add_row(*map(str, row))
    output.print(f"\n{title}", style="bold")
    output.print(drawn)


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """A progress display fed by calls of ``(what, done, total)``; one bar for each `what`.

    On a terminal the bars move; elsewhere (a file, a pipe, CI) nothing is drawn.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=complaints, disable=not complaints.is_terminal) as bars:
        known = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in known:
                known[what] = bars.add_task(what, total=total)
            bars.update(known[what], completed=done, total=total)

        yield tell
