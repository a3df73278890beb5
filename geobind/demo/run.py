"""`geobind demo`: a miniature Earth made, bound, evaluated and drawn, with the public API and a recipe file."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from rich.table import Table

from geobind.binding.report import BindReport
from geobind.console import add_row, progress_bar, table
from geobind.data.earth.attributes import Attributes
from geobind.data.earth.earth import TILE_DEGREES, TILE_SIZE, make_earth
from geobind.data.earth.world import World, blue_marble
from geobind.data.pairs import Pairs
from geobind.demo.ceiling import RENDERED, ceiling, seen_of
from geobind.demo.maps import Grid, class_maps, draw_maps, embed_grid
from geobind.demo.page import Results, write_page
from geobind.demo.show import SENTENCES, examples, neighbours, panels
from geobind.errors import GeoBindError
from geobind.recipe import Recipe
from geobind.retrieval.evaluation import evaluate
from geobind.space import GeoBind
from geobind.storage import read_json, write_text, writing

RECIPE = Path(__file__).with_name("demo.yaml")
EARTH = "runs/demo/earth"  # where the recipe looks for the Earth
PLACES = 12_000
_DISK_BYTES = 500_000_000


def run_demo(
    out: str | Path = "runs/demo", *, places: int = PLACES, seed: int = 0, progress: bool = True
) -> Results:
    """Make the Earth, bind, evaluate, draw and write `report.html`, all into one folder.

    >>> results = run_demo("runs/demo")
    >>> results.report.rows[0]["recall@10"]

    What an earlier run with the same seed and number of places has finished is kept: the Earth, each
    stage, the embedded grid. Raises GeoBindError, before any work is done, without the extra `demo`, for
    a folder that cannot be written and for a full disk.
    """
    out = Path(out)
    _check_ready(out)
    clock = Clock(out / "seconds.json")
    with clock.measure("make the Earth"):
        earth = export_earth(out / "earth", places=places, seed=seed, progress=progress)
    recipe = demo_recipe(earth, seed)
    with clock.measure("bind five modalities"):
        space = recipe.run(out / "space", progress=progress, report=_print_stage)
    with clock.measure("evaluate"):
        baseline = recipe.open_baseline(space)
        evaluations = recipe.open_evaluations()
        report = evaluate(
            space, evaluations, baseline=baseline, baseline_name="photo tower on tiles", progress=progress
        )
        report.write(out)
    world = World.load()
    pairs = recipe.open_pairs("earth")
    with clock.measure("embed the world's grid"):
        grid, vectors = _cached_grid(out / "grid.npy", space, world)
    with clock.measure("draw the maps"):
        cover = Attributes.at(world, grid.latitude, grid.longitude).names("cover")
        classes = class_maps(space, grid, vectors, cover, SENTENCES)
        shown = panels(space, grid, vectors)
        draw_maps(shown, grid, world, out / "maps.png")
    seen = {modality: seen_of(earth, modality) for modality in RENDERED}
    results = Results(
        seed=seed,
        places=_places_by_split(pairs),
        maps=out / "maps.png",
        panels=shown,
        classes=classes,
        report=report,
        ceilings={(a, b): ceiling(seen[a], seen[b]) for a in RENDERED for b in RENDERED if a != b},
        stages=[
            BindReport(**read_json(path)) for path in sorted((out / "space" / "stages").glob("*/report.json"))
        ],
        examples=examples(earth),
        neighbours=neighbours(space, earth),
        seconds=clock.seconds,
        recipe=RECIPE.read_text(encoding="utf-8"),
        machine=f"{os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}",
    )
    write_page(out, results)
    return results


def summary_tables(results: Results) -> list[Table]:
    """What the command prints: every direction in a line, and the maps' agreement with the real land cover."""
    right = ("R@10", "95 %", "Chance", "Baseline", "Ceiling")
    retrieval = table(
        "Recall@10 on test places, whose cells were never seen",
        "Query → gallery", "", *right, right=right,
    )  # fmt: skip
    retrieval.caption = "baseline: the photo tower on tiles; ceiling: an observer who reads all attributes"
    for row in results.report.rows:
        pair = row["query"], row["gallery"]
        low, high, chance = (row[key]["recall@10"] for key in ("low", "high", "chance"))
        baseline, best = row.get("baseline"), results.ceilings.get(pair)
        add_row(
            retrieval, " → ".join(pair), "trained" if row["trained"] else "emergent",
            f"{row['recall@10']:.3f}", f"{low:.3f}-{high:.3f}", f"{chance:.3f}",
            f"{baseline['recall@10']:.3f}" if baseline else "", f"{best[0]:.3f}" if best else "",
        )  # fmt: skip
    columns = ("AUC", "AUC on land")
    agreement = table(
        "Maps of sentences against the real land cover (MODIS)",
        "Land cover",
        "Sentence",
        *columns,
        right=columns,
    )
    for cover in results.classes:
        on_land = "" if np.isnan(cover.auc_on_land) else f"{cover.auc_on_land:.3f}"  # of the water
        add_row(agreement, cover.name, cover.sentence, f"{cover.auc:.3f}", on_land)
    mean = [
        float(np.nanmean(values))
        for values in ([c.auc for c in results.classes], [c.auc_on_land for c in results.classes])
    ]
    add_row(agreement, "mean", "", *(f"{value:.3f}" for value in mean))
    return [retrieval, agreement]


def export_earth(folder: Path, *, places: int = PLACES, seed: int = 0, progress: bool = True) -> Path:
    """Only the miniature Earth, as ordinary files and tables: an example of what `Pairs` reads."""
    with progress_bar(disable=not progress) as bar:
        task = bar.add_task("rendering places", total=places, note="")
        return make_earth(
            folder, places=places, seed=seed, progress=lambda done, total: bar.update(task, completed=done)
        )


def demo_recipe(earth: Path, seed: int = 0) -> Recipe:
    """The recipe file, with the folder in which the Earth lies."""
    content = yaml.safe_load(RECIPE.read_text(encoding="utf-8").replace(EARTH, earth.as_posix()))
    return Recipe.parse(content | {"seed": seed}, "recipes/demo.yaml")


class Clock:
    """Seconds that each step took when it was first finished, kept in a file for later runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: dict[str, float | None] = read_json(path)

    @contextmanager
    def measure(self, step: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds.setdefault(step, time.monotonic() - began)
        write_text(self.path, json.dumps(self.seconds, indent=2) + "\n")


def _check_ready(out: Path) -> None:
    blue_marble()
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        (out / ".writable").touch()
        (out / ".writable").unlink()
    free = shutil.disk_usage(out).free
    if free < _DISK_BYTES and not (out / "earth" / "earth.json").exists():
        raise GeoBindError(
            f"{out} has {free / 1e6:,.0f} MB of free space, the demo needs {_DISK_BYTES / 1e6:,.0f}: "
            f"free some, or choose another --out"
        )


def _print_stage(report: BindReport) -> None:
    print(report.summary())


def _cached_grid(path: Path, space: GeoBind, world: World) -> tuple[Grid, NDArray[np.float32]]:
    """The grid's embeddings, read back where the satellite tower is the one that made them."""
    marker = path.with_suffix(".json")
    made_by = {"satellite": space.fingerprint("satellite"), "size": TILE_SIZE, "degrees": TILE_DEGREES}
    if path.exists() and read_json(marker) == made_by:
        return Grid.of(1.0), np.load(path)
    grid, vectors = embed_grid(space, world, size=TILE_SIZE, ground_degrees=TILE_DEGREES)
    np.save(path, vectors)
    write_text(marker, json.dumps(made_by) + "\n")
    return grid, vectors


def _places_by_split(pairs: Pairs) -> dict[str, int]:
    names, counts = np.unique(pairs.splits.astype(str), return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))
