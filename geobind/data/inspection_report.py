"""What `geobind data inspect` prints: tables, a map of where, what is broken, the recipe's lines."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image
from rich.table import Table
from rich.text import Text

from geobind.console import add_row, size_text, table
from geobind.data.earth.world import RASTERS, nearest
from geobind.data.inspection import Inspection, density
from geobind.data.pairs import Pairs

_SHADES = "·░▒▓█"
_SHOWN = 5


def report(found: Inspection) -> Iterator[Table | Text]:
    """Everything in an inspection as what a console prints, in order."""
    pairs = found.pairs
    places = len(np.unique(pairs.places))
    size = sum(facts.size or 0 for facts in found.modalities)
    yield Text(
        f"{found.path}: {found.layout}, {len(pairs):,} rows of {places:,} places"
        + (f", {size_text(size)} of media" if size else "")
    )
    for note in found.source.notes if found.source else []:
        yield Text(f"  {note}")
    yield _modalities(found)
    yield splits_table(found.pairs)
    yield from _map(found)
    yield from _list("Broken or lacking", found.broken)
    yield from _list("Warnings", found.told)
    twins = [f"{one} ({split}) and {two} ({other})" for one, split, two, other in found.twins]
    yield from _list("Near-duplicate tiles across splits", twins)
    partly = (
        "all rows"
        if found.checked == len(pairs)
        else f"{found.checked:,} rows drawn at random (--full reads all)"
    )
    yield Text(
        f"\nRead: media of {partly}"
        + (f"; {found.flat:,} tiles too even to be compared" if found.flat else "")
    )
    yield Text(f"\nRecipe:\n{found.recipe}")


def _modalities(found: Inspection) -> Table:
    shown = table("Modalities", "modality", "column", "rows", "distinct", "size", "what", "example", right=("rows", "distinct", "size"))  # fmt: skip
    for facts in found.modalities:
        size = "" if facts.size is None else size_text(facts.size)
        add_row(
            shown, facts.name, facts.column, f"{facts.rows:,}", f"{facts.distinct:,}", size, facts.like, facts.example
        )  # fmt: skip
    return shown


def splits_table(pairs: Pairs) -> Table:
    """Rows, places, values of each modality and dates of every split."""
    names = pairs.modalities
    shown = table(
        "Splits", "split", "rows", "places", *names, "dates", right=("rows", "places", *names, "dates")
    )
    splits = pairs.splits
    for split in sorted({*splits.tolist()}, key=str):
        inside = np.array([value == split for value in splits])
        part = pairs.subset(inside)
        counts = [f"{int(part.column(name).present().sum()):,}" for name in names]
        dates = 0 if part.times is None else int((~np.isnat(part.times)).sum())
        places = len(np.unique(part.places))
        add_row(shown, split or "none", f"{len(part):,}", f"{places:,}", *counts, f"{dates:,}")
    return shown


def _map(found: Inspection) -> Iterator[Text]:
    counts = density(found.pairs)
    if counts is None or not counts.any():
        return
    height, width = counts.shape
    latitude = 90 - (np.arange(height) + 0.5) * 180 / height
    longitude = -180 + (np.arange(width) + 0.5) * 360 / width
    coast = np.asarray(Image.open(RASTERS / "coast.png"))
    grid = np.meshgrid(latitude, longitude, indexing="ij")
    land = nearest(coast, grid[0].ravel(), grid[1].ravel()).reshape(counts.shape) > 64
    level = np.ceil(np.log1p(counts) / np.log1p(counts.max()) * (len(_SHADES) - 1)).astype(int)
    text = Text(f"\nWhere (█: up to {counts.max():,} rows in 5 x 7.5 degrees; dots are land)\n")
    for row in range(height):
        for column in range(width):
            if counts[row, column]:
                text.append(_SHADES[level[row, column]], "bold yellow")
            else:
                text.append("." if land[row, column] else " ", "dim")
        text.append("\n")
    text.rstrip()
    yield text


def _list(title: str, lines: list[str]) -> Iterator[Text]:
    if lines:
        more = f"\n  and {len(lines) - _SHOWN:,} more" if len(lines) > _SHOWN else ""
        yield Text(f"\n{title} ({len(lines):,})\n" + "\n".join(f"  {line}" for line in lines[:_SHOWN]) + more)
