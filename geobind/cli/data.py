"""`geobind data`: look into data sets, split them, download them."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from geobind.cli.app import app, print_tables

data = typer.Typer(
    help="Look into data sets, split them by geography, download published ones.", no_args_is_help=True
)
app.add_typer(data, name="data")


@data.command()
def inspect(
    path: Annotated[
        str,
        typer.Argument(
            help="A folder, a table, tar shards (a pattern or URL): any layout that recipes take."
        ),
    ],
    full: Annotated[bool, typer.Option("--full", help="Read all media, not those of 1,000 rows.")] = False,
) -> None:
    """Which layout it is, what is in it and where, what is broken or on both sides of a split, recipe lines."""
    from geobind.data.inspection import inspect as run
    from geobind.data.inspection_report import report

    print_tables(report(run(path, rows=None if full else 1000, progress=sys.stderr.isatty())))
