"""`geobind demo`: a miniature Earth made, bound, evaluated and drawn, with the public API and a recipe file."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geobind.data.earth.attributes import FIELDS, NAMES, Attributes
from geobind.data.earth.earth import make_earth
from geobind.data.earth.world import World, blue_marble
from geobind.data.pairs import Pairs
from geobind.demo import maps, page
from geobind.demo.ceiling import Seen, ceiling
from geobind.errors import GeoBindError
from geobind.recipe import Recipe
from geobind.retrieval.evaluation import evaluate
from geobind.retrieval.report import Report
from geobind.space import GeoBind
from geobind.storage import write_text

RECIPE = Path(__file__).with_name("demo.yaml")
DISK_BYTES = 400_000_000
RENDERED = ("satellite", "image", "text", "audio")  # what the ideal observer of the ceiling can be asked about

# Which sentence stands for which land cover in the maps and their check against MODIS.
SENTENCES = {
    "ice": "an icy waste", "desert": "sand dunes", "tundra": "treeless tundra", "shrubland": "scattered shrubs",
    "grassland": "open grassland", "savanna": "grass with scattered trees", "cropland": "farmland with villages",
    "rainforest": "a tropical rainforest", "conifer forest": "a forest of spruce and pine",
    "broadleaf forest": "a forest of leafy trees", "wetland": "a swamp", "water": "the open sea",
    "urban": "a large city",
}  # fmt: skip


class Clock:
    """Seconds of each step, kept in a file so that a second run can still tell what the first one took."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}

    @contextmanager
    def measure(self, step: str, done: bool = False) -> Iterator[None]:
        """Time a step, unless it is `done` already and only read back."""
        began = time.monotonic()
        yield
        if not done:
            self.seconds[step] = time.monotonic() - began
            write_text(self.path, json.dumps(self.seconds, indent=2) + "\n")


def run_demo(out: str | Path = "runs/demo", *, seed: int = 0, places: int | None = None, progress: bool = True) -> page.Results:
    """Everything, into a folder: the Earth, the space, tables, maps and `report.html`.

    >>> results = run_demo("runs/demo")

    Finished parts of an earlier run of the same seed are kept. Raises GeoBindError, before any work is
    done, where the extra `demo` is missing, the folder cannot be written or the disk is full.
    """
    out = Path(out)
    check_ready(out)
    clock = Clock(out / "seconds.json")
    ...
