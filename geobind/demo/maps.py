"""World maps of a query: the similarity of every place on Earth, and how well it agrees with the real land cover."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geobind.data.earth.world import IGBP, unit_vectors
from geobind.errors import GeoBindError
from geobind.storage import writing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from geobind.data.earth.world import World
    from geobind.space import GeoBind

_CHUNK = 4096  # tiles cut while the former ones are embedded
_FAR_KM = 600  # a city farther away says little of a place
_KINDS = {"text": "text", "sound": "simulated sound", "blend": "simulated sound + text"}

# What is asked of the map of each class of IGBP: its definition, in the words of the captions.
SENTENCES = {
    "water": "open water, the sea",
    "evergreen needleleaf forest": "a conifer forest",
    "evergreen broadleaf forest": "a tropical rainforest",
    "deciduous needleleaf forest": "a conifer forest in a cold climate",
    "deciduous broadleaf forest": "a broadleaf forest",
    "mixed forest": "a broadleaf forest in a cold climate",
    "closed shrubland": "shrubland",
    "open shrubland": "open shrubland in a dry climate",
    "woody savanna": "woodland and savanna",
    "savanna": "a savanna",
    "grassland": "grassland",
    "permanent wetland": "wetland",
    "cropland": "farmland",
    "urban and built-up": "a city",
    "cropland and natural vegetation": "farmland with villages",
    "snow and ice": "an icy waste",
    "barren": "sand dunes in a desert",
}


@dataclass(frozen=True, eq=False)
class Grid:
    """Centres of the cells of `step` degrees, row by row from the north-west: (n,) degrees each.

    >>> grid = Grid.of(1.0)
    >>> grid.latitude[0], grid.longitude[0], len(grid.latitude)
    (89.5, -179.5, 64800)

    `weights`: their areas, as shares of the sphere.
    """

    step: float
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]

    @classmethod
    def of(cls, step: float = 1.0) -> Grid:
        """Raises GeoBindError for a step that does not divide 180 degrees."""
        rows = round(180 / step) if step > 0 else 0
        if not rows or not np.isclose(rows * step, 180):
            raise GeoBindError(f"a grid has cells of a size that divides 180 degrees, not {step:g}")
        latitude = 90 - (np.arange(rows) + 0.5) * step
        longitude = (np.arange(2 * rows) + 0.5) * step - 180
        both = np.meshgrid(latitude, longitude, indexing="ij")
        return cls(step, both[0].ravel(), both[1].ravel())

    @property
    def shape(self) -> tuple[int, int]:
        rows = round(180 / self.step)
        return rows, 2 * rows

    @property
    def weights(self) -> NDArray[np.float64]:
        cosine = np.cos(np.radians(self.latitude))
        return cosine / cosine.sum()


def embed_grid(
    space: GeoBind, world: World, step: float = 1.0, *, size: int = 32, ground_degrees: float = 2.0
) -> tuple[Grid, NDArray[np.float32]]:
    """The satellite embedding of every cell of a grid: the grid, and (n, dim) unit vectors.

    Meridians converge, so a cell near a pole shares the tile of the nearest point of its parallel that
    lies on an even spacing of `step` degrees on the ground: 41,252 tiles for the 64,800 cells of one
    degree. `size` and `ground_degrees` are those of the tiles on which the tower was trained.
    """
    grid = Grid.of(step)
    rows, columns = grid.shape
    latitude = grid.latitude.reshape(rows, columns)[:, 0]
    counts = np.maximum(np.rint(columns * np.cos(np.radians(latitude))), 1).astype(np.int64)
    # The points of all parallels in one list; cell c of a parallel of n points shares number c n // columns.
    starts = np.cumsum(counts) - counts
    shares = starts[:, None] + np.arange(columns)[None, :] * counts[:, None] // columns
    row = np.repeat(np.arange(rows), counts)
    longitude = (np.arange(len(row)) - starts[row] + 0.5) * 360 / counts[row] - 180

    def cut(start: int) -> NDArray[np.uint8]:
        part = slice(start, start + _CHUNK)
        return world.tiles(latitude[row[part]], longitude[part], size=size, ground_degrees=ground_degrees)

    begins = range(0, len(row), _CHUNK)
    vectors = np.empty((len(row), space.dim), np.float32)
    with ThreadPoolExecutor(1) as pool:  # cuts the next tiles meanwhile
        following = pool.submit(cut, 0)
        for start in begins:
            tiles = following.result()
            if start + _CHUNK < len(row):
                following = pool.submit(cut, start + _CHUNK)
            vectors[start : start + _CHUNK] = space.embed("satellite", tiles, batch_size=256)
    return grid, vectors[shares.ravel()]


# --- scores ------------------------------------------------------------------------------------------------


def map_scores(vectors: ArrayLike, query: ArrayLike, weights: ArrayLike | None = None) -> NDArray[np.float64]:
    """How similar each cell is to a query, as a percentile from 0 to 100: (n,).

    It is the share of the cells' area that scores lower, with half of what ties (the cell itself too), so
    colours say which places fit best and nothing of how well the best one fits.

    `vectors` (n, dim) of the cells, `query` (dim,), `weights` (n,) areas of the cells (equal unless given).
    """
    scores = np.asarray(vectors) @ np.asarray(query)
    weights = np.ones(len(scores)) if weights is None else np.asarray(weights, float)
    _, value = np.unique(scores, return_inverse=True)
    mass = np.bincount(value, weights)
    return 100 * (np.cumsum(mass) - mass / 2)[value] / mass.sum()


def land_auc(scores: ArrayLike, truth: ArrayLike, weights: ArrayLike) -> float:
    """Area under the ROC curve of a map: how probably a random point of the class outscores another point.

    Points are drawn by area and ties count half: 0.5 is chance, 1 is a perfect order. `scores`, `truth`
    (bool) and `weights` (areas) are (n,). NaN where the class is nowhere or everywhere.
    """
    truth, weights = np.asarray(truth, bool), np.asarray(weights, float)
    _, value = np.unique(scores, return_inverse=True)
    inside, outside = (np.bincount(value, weights * part) for part in (truth, ~truth))
    if not inside.sum() or not outside.sum():
        return float("nan")
    below = np.cumsum(outside) - outside / 2
    return float(inside @ below / (inside.sum() * outside.sum()))


@dataclass(frozen=True)
class ClassMap:
    """One land-cover class: its sentence, the AUC of the sentence's map, its share of the Earth's surface."""

    name: str
    sentence: str
    auc: float
    share: float


def class_maps(
    space: GeoBind, world: World, grid: Grid, vectors: NDArray[np.float32],
    sentences: Mapping[str, str] = SENTENCES,
) -> list[ClassMap]:  # fmt: skip
    """The area under the ROC curve of each land-cover class against the real MODIS map on the grid.

    `sentences` by class of `IGBP`; classes that hold no cell are left out.
    """
    cover = world.land_cover(grid.latitude, grid.longitude)
    weights = grid.weights
    queries = space.embed("text", list(sentences.values()))
    found = []
    for (name, sentence), query in zip(sentences.items(), queries, strict=True):
        truth = cover == IGBP.index(name)
        if truth.any():
            auc = land_auc(vectors @ query, truth, weights)
            found.append(ClassMap(name, sentence, auc, float(weights[truth].sum())))
    return found


# --- places ------------------------------------------------------------------------------------------------


def best_cells(
    scores: ArrayLike, latitude: ArrayLike, longitude: ArrayLike, *, count: int = 5, apart_km: float = 1500
) -> NDArray[np.intp]:
    """Indices of the best cells, the best first, no two of them nearer than `apart_km`; at most `count`."""
    scores = np.array(scores, float)
    points = unit_vectors(np.asarray(latitude), np.asarray(longitude))
    least = np.cos(apart_km / 6371.0)
    found: list[int] = []
    while len(found) < count and np.isfinite(best := scores.max()):
        found.append(int(np.flatnonzero(scores == best)[0]))
        scores[points @ points[found[-1]] > least] = -np.inf
    return np.array(found, np.intp)


def place_name(world: World, latitude: float, longitude: float) -> str:
    """Where a point is: its nearest city if that is near, else its position.

    >>> place_name(world, -3.1, -60.0), place_name(world, -80.5, 0.5)
    ('Manaus', '80.5° S, 0.5° E')
    """
    name, km = world.nearest_city([latitude], [longitude])[0]
    if km <= _FAR_KM:
        return name if km <= 50 else f"{name} ({km} km)"
    return position(latitude, longitude)


def position(latitude: float, longitude: float) -> str:
    """Degrees for the eye: "3.1° S, 60.0° W"."""
    return (
        f"{abs(latitude):.1f}° {'N' if latitude >= 0 else 'S'}, "
        f"{abs(longitude):.1f}° {'E' if longitude >= 0 else 'W'}"
    )
