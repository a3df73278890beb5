"""`geobind data`: look into data sets, split them, download them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from geobind.cli.app import app, interruptible, print_tables

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


@data.command()
def split(
    path: Annotated[str, typer.Argument(help="A folder, a table or tar shards whose rows have positions.")],
    out: Annotated[
        Path, typer.Option(help="File of the splits, .parquet or .csv, for the recipe's key `splits`.")
    ],
    test: Annotated[float, typer.Option(help="Share of the places.")] = 0.1,
    val: Annotated[float, typer.Option(help="Share of the places.")] = 0.05,
    cell_km: Annotated[float, typer.Option(help="Side of the cells, which are of one split each.")] = 100.0,
    buffer_km: Annotated[float, typer.Option(help="Training stays so far away from val and test.")] = 10.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Split rows by geography: cells of about equal area, whole cells to a split, a buffer between them."""
    from geobind.data.inspection import open_data
    from geobind.data.inspection_report import splits_table
    from geobind.data.splits import geographic_splits, write_splits

    _, _, pairs = open_data(path)
    splits = geographic_splits(
        pairs, test=test, val=val, cell_km=cell_km, buffer_km=buffer_km, seed=seed
    )  # fmt: skip
    write_splits(pairs, splits, out)
    print_tables([splits_table(pairs.with_splits(splits))])
    print(f"Written: {out}; rows of split none are the buffer. In a recipe's pairs: splits: {out}")


@data.command()
def fetch(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="A data set of the list (without it, the list), hub:owner/name or zenodo:number.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; data/NAME if not given.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before the download.")] = False,
) -> None:
    """Download a published data set, after its licence and size were shown; an interrupted download goes on."""
    from geobind.console import add_row, size_text, table
    from geobind.data.fetching import download, missing_files
    from geobind.data.releases import KNOWN, UNAVAILABLE, find_release

    if name is None:
        shown = table("Data sets", "name", "where", "what")
        for known, (address, what) in KNOWN.items():
            add_row(shown, known, address, what)
        for known, why in UNAVAILABLE.items():
            add_row(shown, known, "cannot be had", why)
        print_tables([shown])
        return
    release = find_release(name)
    folder = out or Path("data") / name.replace(":", "-").replace("/", "-")
    wanted = sum(file.size for file in missing_files(release, folder))
    print(f"{release.title}: {len(release.files):,} files, {size_text(release.size)}, from {release.page}")
    print(f"Licence: {release.licence} (read the page; what is in the data may have terms of its own)")
    print(f"Into: {folder}, {size_text(wanted)} to download")
    if wanted and not yes and not typer.confirm("Start?"):
        raise typer.Exit(1)
    with interruptible(folder):
        download(release, folder, progress=sys.stderr.isatty())
    packed = [file.path for file in release.files if file.path.endswith((".zip", ".gz", ".tgz", ".7z"))]
    unpack = f"unpack {', '.join(packed[:3])} there, then " if packed else ""
    print(f"Complete, checksums are right. Next: {unpack}geobind data inspect {folder}")
