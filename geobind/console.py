"""How figures look on the console: the one kind of table, the one progress bar, and sizes in words."""

from __future__ import annotations

from collections.abc import Collection

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text


def table(title: str, *columns: str, right: Collection[str] = ()) -> Table:
    """A table for terminals of 100 columns or more (80 will do); the columns in `right` are flush right."""
    shown = Table(
        title=Text(f"\n{title}"), title_justify="left", caption_justify="left", caption_style="yellow",
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False,
    )  # fmt: skip
    for name in columns:
        shown.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return shown


def add_row(shown: Table, *cells: str) -> None:
    """Add cells as they are: `[geo]` is no markup here."""
    shown.add_row(*map(Text, cells))


def size_text(count: float) -> str:
    """Bytes for people, in powers of 1000.

    >>> size_text(1_340_000_000)
    '1.3 GB'
    """
    units = ["B", "kB", "MB", "GB", "TB"]
    while count >= 999.5 and len(units) > 1:
        count /= 1000
        units.pop(0)
    unit = units[0]
    return f"{count:,.0f} {unit}" if unit == "B" or count >= 99.5 else f"{count:.1f} {unit}"


def progress_bar(disable: bool = False) -> Progress:
    """The one progress bar of the package, on stderr: done, total, items per second and time left."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(), console=console, transient=True,
        disable=disable or not (console.is_terminal or console.is_jupyter),
    )  # fmt: skip
