"""`geobind data`: look into data sets, split them, pack them, download them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geobind.cli.app import Changes, Workers, app, interruptible, parse_changes, print_tables
from geobind.errors import GeoBindError

if TYPE_CHECKING:
    from geobind.data.pack import Packing
    from geobind.data.pairs import Pairs

data = typer.Typer(
    help="Look into data sets, split them by geography, pack them for training, download published ones.",
    no_args_is_help=True,
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
def pack(
    source: Annotated[
        str, typer.Argument(metavar="PATH|RECIPE", help="A data set as for inspect, or a recipe (.yaml).")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder of the shards; with a recipe, of a folder for each pairs.")
    ],
    size: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[MODALITY=]PIXELS",
            help="Shorter side of pictures; what the recipe's crops need if not given; may be repeated.",
        ),
    ] = None,
    changes: Changes = None,
    workers: Workers = None,
) -> None:
    """Rewrite a data set as tar shards of a training size; a killed job goes on with the same command."""
    from geobind.data.inspection import open_data
    from geobind.data.pack import packing_of
    from geobind.recipe import Recipe

    sides = dict(_side(text) for text in size or [])
    every = sides.pop("", None)
    if not source.endswith((".yaml", ".yml")):
        if not sides and every is None:
            raise GeoBindError(f"{source} says no size: give --size, such as --size 256, or a recipe")
        pairs = open_data(source)[2]
        _pack(pairs, out, packing_of(pairs, sides, every), {}, workers)
        return
    if every is not None:
        raise GeoBindError(
            f"--size {every}: with a recipe say of which modality, such as --size satellite={every}"
        )
    recipe = Recipe.load(source, parse_changes(changes))
    for name in recipe.pairs:
        packing, enlarged = recipe.packing(name, sides)
        _pack(recipe.open_pairs(name), out / name, packing, enlarged, workers)


def _side(text: str) -> tuple[str, int]:
    modality, _, pixels = text.rpartition("=")
    if not pixels.isdigit() or int(pixels) < 1:
        raise GeoBindError(f"--size {text}: expected pixels, such as 256, or satellite=256")
    return modality, int(pixels)


def _pack(
    pairs: Pairs, out: Path, packing: Packing, enlarged: Mapping[str, float], workers: int | None
) -> None:
    from geobind.console import size_text
    from geobind.data.pack import pack as write

    with interruptible(out):
        done = write(pairs, out, packing, workers=workers, progress=sys.stderr.isatty())
    how = [
        f"{modality} {side} pixels"
        for modality, side in packing.sides.items()
        if modality in pairs.modalities
    ]
    how += [f"{modality} {rate:,} Hz" for modality, rate in packing.rates.items()]
    print(
        f"{pairs.name}: {done.rows:,} rows, {size_text(done.before)} of media before, {size_text(done.after)} packed ({', '.join(how) or 'as they are'})"
    )
    for modality, share in enlarged.items():
        if share >= 0.005:
            print(f"{modality}: {share:.0%} of the recipe's crops will be enlarged at this size")
    for line in done.unreadable:
        print(f"unreadable, left empty: {line}")
    print(f"In a recipe's pairs: {pairs.name}: {{folder: {out}}}")


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
