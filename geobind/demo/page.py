"""The report of the demo: one HTML file that needs nothing but a browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from geobind.binding.loop import BindReport
    from geobind.demo.maps import ClassMap, Panel
    from geobind.retrieval.report import Report

Picture = Path | NDArray[np.uint8]  # a file, or (h, w, 3)
Sound = Path | tuple[NDArray[np.float32], int]  # a file, or samples and their rate


@dataclass(frozen=True)
class Place:
    """What is known of one place; None or empty for a modality that it lacks.

    `near` says where it is in words ("149 km from Barcelos", from `maps.place_name`). `environment` and
    `attributes` are shown as they are: {"rain": "2,300 mm a year"}, {"cover": "rainforest"}.
    """

    latitude: float
    longitude: float
    near: str = ""
    satellite: Picture | None = None
    image: Picture | None = None
    audio: Sound | None = None
    captions: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Neighbours:
    """One query and the best of a gallery: `found` are (cosine, place), the best first.

    `query` is a sentence (text), or the place whose `modality` asks. `gallery` names the modality that was
    searched, which is shown of every place found. `right` says which of them is the query's own place.

    >>> Neighbours("text", "sand dunes", "satellite", [(0.81, place), (0.79, other)])
    """

    modality: str
    query: str | Place
    gallery: str
    found: Sequence[tuple[float, Place]]
    right: int | None = None


@dataclass(frozen=True)
class Results:
    """Everything that `write_page` shows; the sections of the page are in the order of the fields.

    * `places`: number of places by split, {"train": 9000, "val": 500, "test": 1500};
    * `maps`: the PNG that `draw_maps` wrote, and `panels` what it shows (for the players of the sounds);
    * `classes`: the area under the ROC curve of each land-cover class;
    * `report`: what `evaluate` returned, with the baseline; both protocols if it holds both;
    * `ceilings`: (query, gallery) to recall@10 of the ideal observer, as `ceiling` returns it: ties at the
      expected rank, ties in random order;
    * `stages`: what `bind` returned, in order;
    * `seconds`: step to its wall time, in order; None for what an earlier run had left;
    * `recipe`: the text of the recipe; `machine`: "2 cores, Python 3.11, torch 2.13".
    """

    seed: int
    places: Mapping[str, int]
    maps: Path
    panels: Sequence[Panel]
    classes: Sequence[ClassMap]
    report: Report
    ceilings: Mapping[tuple[str, str], tuple[float, float]]
    stages: Sequence[BindReport]
    examples: Sequence[Place]
    neighbours: Sequence[Neighbours]
    seconds: Mapping[str, float | None]
    recipe: str
    machine: str


def write_page(folder: str | Path, results: Results) -> Path:
    """Write `report.html` into a folder and return its path.

    Raises GeoBindError where it cannot be written.
    """
    raise NotImplementedError
