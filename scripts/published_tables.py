"""Tables 1 and 2 of the GeoBind paper, filled by our runs, beside what it prints.

    python scripts/published_tables.py runs/tables

`runs/tables` holds the spaces that `make tables` binds: geobind, and soundingearth-native, -contrastive and -batch.
Each is evaluated on the data of its recipe under the published protocol, which docs/published.md explains; what is
found is kept in its folder `published`. A run that is not there is an empty cell.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from geobind import GeoBind, Recipe, evaluate
from geobind.console import table
from geobind.retrieval.published import published_chance

Row = dict[str, Any]


@dataclass(frozen=True)
class Printed:
    """A line of a table of the paper: its R@k in percent and median rank, and the run that has it again."""

    model: str
    recall: float
    median_rank: float
    run: str = ""
    baseline: bool = False


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper: two modalities, the k of its recall, its lines, and what to mind."""

    title: str
    between: tuple[str, str]
    k: int
    lines: tuple[Printed, ...]
    caption: str


# GeoBind (arXiv 2404.11720), section 3.2.
TABLES = (
    PaperTable(
        "Table 1: satellite and ground-level photo",
        ("satellite", "image"),
        10,
        (
            Printed("CLIP", 1.3, 2857, "geobind", baseline=True),
            Printed("Sat2Cap, without place and time", 56.4, 13.5),
            Printed("GeoBind", 56.4, 13.5, "geobind"),
        ),
        "R@10 above one half goes with a median rank below 10: the paper's two columns are of two directions. Compare "
        "its recall with satellite → image, its median rank with image → satellite. Sat2Cap is the same number as "
        "GeoBind, by the paper's own words. R@10 counts ranks below 10 here, up to 10 in Sat2Cap's code.",
    ),
    PaperTable(
        "Table 2: satellite and sound",
        ("satellite", "audio"),
        100,
        (
            Printed("SoundingEarth, native triplets", 18.59, 749, "soundingearth-native"),
            Printed("SoundingEarth, contrastive", 29.12, 565, "soundingearth-contrastive"),
            Printed("SoundingEarth, batch triplets", 19.01, 744, "soundingearth-batch"),
            Printed("GeoBind", 24.63, 613, "geobind"),
        ),
        "The paper names no split and says 10,000; none of the published ones holds that many.",
    ),
)


def measure(space: str | Path) -> list[Row]:
    """Rows of a saved space's own evaluations under the published protocol, kept in its folder `published`."""
    loaded = GeoBind.from_pretrained(str(space))
    recipe = Recipe.parse(loaded.recipe or {}, f"the recipe saved in {space}")
    evaluations = [replace(e, protocol="published") for e in recipe.open_evaluations()]
    baseline = recipe.open_baseline(loaded)
    report = evaluate(loaded, evaluations, baseline=baseline, progress=sys.stderr.isatty())
    report.write(Path(space) / "published")
    return report.rows


def fill(paper: PaperTable, runs: dict[str, list[Row]]) -> Table:
    """One table: each line of the paper, its numbers, and ours in both directions."""
    here, there = paper.between
    directions = ((here, there), (there, here))
    filled = table(paper.title)
    filled.caption = paper.caption
    filled.add_column("Model")
    filled.add_column(f"printed\nR@{paper.k}", justify="right")
    filled.add_column("printed\nMedR", justify="right")
    for query, gallery in directions:
        filled.add_column(f"{query} → {gallery}\nR@{paper.k}", justify="right")
        filled.add_column("\nMedR", justify="right")
    filled.add_column("gallery", justify="right")
    sizes: list[int] = []
    for line in paper.lines:
        cells, size = [], ""
        for query, gallery in directions:
            row = _row(runs.get(line.run, []), query, gallery)
            metrics = row and (row.get("baseline") if line.baseline else row)
            cells += _cells(metrics, paper.k)
            if row and metrics:
                size = f"{row['gallery_size']:,}"
                sizes.append(row["gallery_size"])
        filled.add_row(line.model, f"{line.recall:g} %", f"{line.median_rank:g}", *cells, size)
    for size in dict.fromkeys(sizes):  # by the published protocol, both directions have one gallery size
        chance = _cells(published_chance(size), paper.k)
        filled.add_row("a random order", "", "", *chance, *chance, f"{size:,}", style="dim")
    return filled


def _row(rows: list[Row], query: str, gallery: str) -> Row | None:
    return next((row for row in rows if (row["query"], row["gallery"]) == (query, gallery)), None)


def _cells(metrics: Row | None, k: int) -> list[str]:
    if not metrics:
        return ["", ""]
    return [f"{100 * metrics[f'recall@{k}']:.2f} %", f"{metrics['median_rank']:,.1f}"]


def tables(folder: str | Path) -> Iterator[Table]:
    """Both tables, from the runs that are in the folder."""
    names = dict.fromkeys(line.run for paper in TABLES for line in paper.lines if line.run)
    runs = {
        name: measure(Path(folder) / name) for name in names if (Path(folder) / name / "space.json").exists()
    }
    for paper in TABLES:
        yield fill(paper, runs)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/published_tables.py FOLDER, where `make tables` put its runs")
    console = Console(width=120)
    for filled in tables(sys.argv[1]):
        console.print(filled)
