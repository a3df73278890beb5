"""World maps of a query: the similarity of every place on Earth, and how well it agrees with the real land cover."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from geobind.data.earth.attributes import NAMES, WATER
from geobind.data.earth.world import EARTH_KM, unit_vectors
from geobind.errors import GeoBindError
from geobind.mapping.coast import coastlines
from geobind.storage import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from geobind.data.earth.world import World
    from geobind.space import GeoBind

_CHUNK = 4096  # tiles cut while the former ones are embedded
_FAR_KM = 600  # a city farther away says little of a place
# Classes of percentiles, narrower towards the top: most queries fit a few hundredths of the Earth.
_CLASSES = (0, 25, 50, 70, 80, 90, 95, 98, 100)
_KINDS = {"text": "text", "sound": "simulated sound", "blend": "simulated sound + text"}


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
    """One land-cover class: its sentence, the AUC of the sentence's map, its share of the Earth's surface.

    `auc` is over the whole Earth, `auc_on_land` among land only (NaN for the class of the water).
    """

    name: str
    sentence: str
    auc: float
    auc_on_land: float
    share: float


def class_maps(
    space: GeoBind, grid: Grid, vectors: NDArray[np.float32], cover: ArrayLike, sentences: Mapping[str, str]
) -> list[ClassMap]:
    """The area under the ROC curve of each land-cover class against the real map of the grid.

    >>> cover = Attributes.at(world, grid.latitude, grid.longitude).names("cover")
    >>> class_maps(space, grid, vectors, cover, {"desert": "sand dunes"})[0].auc
    0.93

    `cover`: the class of each cell, by name ("water" is what is not land); `sentences` by class, of which
    those that hold no cell are left out.
    """
    names, weights = np.asarray(cover), grid.weights
    land = names != NAMES["cover"][WATER]
    found = []
    queries = space.embed("text", list(sentences.values()))
    for (name, sentence), query in zip(sentences.items(), queries, strict=True):
        scores, truth = vectors @ query, names == name
        if truth.any():
            auc = land_auc(scores, truth, weights)
            on_land = land_auc(scores[land], truth[land], weights[land])
            found.append(ClassMap(name, sentence, auc, on_land, float(weights[truth].sum())))
    return found


# --- places ------------------------------------------------------------------------------------------------


def best_cells(
    scores: ArrayLike, latitude: ArrayLike, longitude: ArrayLike, *, count: int = 5, apart_km: float = 1500
) -> NDArray[np.intp]:
    """Indices of the best cells, the best first, no two of them nearer than `apart_km`; at most `count`."""
    scores = np.array(scores, float)
    points = unit_vectors(np.asarray(latitude), np.asarray(longitude))
    least = np.cos(apart_km / EARTH_KM)
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


# --- drawing -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Panel:
    """One map: what was asked (a sentence, or words for a sound), of what kind it is, and `map_scores`.

    `sound` is the recording that was asked with, for the report's player.
    """

    query: str
    kind: Literal["text", "sound", "blend"]
    percentiles: NDArray[np.float64]
    sound: Path | tuple[NDArray[np.float32], int] | None = None


def draw_maps(
    panels: Sequence[Panel], grid: Grid, world: World, path: str | Path, *, columns: int = 2
) -> None:
    """Write one PNG with a world map for each panel, in the Equal Earth projection (areas are true).

    All share one linear colour scale. Dots mark the best cells, at least 1,500 km apart. Coastlines and
    place names are the real ones. Raises GeoBindError where the file cannot be written.
    """
    from matplotlib.figure import Figure

    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(7.4 * columns, 4.5 * rows + 0.8), dpi=110, facecolor="white")
    bottom = 0.8 / (4.5 * rows + 0.8)
    axes = figure.subplots(rows, columns, squeeze=False, gridspec_kw={
        "left": 0.012, "right": 0.988, "top": 0.995, "bottom": bottom, "wspace": 0.03, "hspace": 0.02,
    }).ravel()  # fmt: skip
    coast = _coastlines(world)
    for panel, ax in zip(panels, axes, strict=False):
        _draw_panel(ax, panel, grid, world, coast)
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    _draw_scale(figure.add_axes((0.29, bottom * 0.62, 0.42, bottom * 0.16)))
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    # A palette makes a third of the file, which also goes into the report.
    palette = Image.open(drawn).convert("RGB").quantize(128, Image.Quantize.FASTOCTREE)
    with replacing(Path(path)) as temporary:
        palette.save(temporary, format="png")


def _draw_panel(ax: Axes, panel: Panel, grid: Grid, world: World, coast: list[NDArray]) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.patheffects import withStroke

    ax.imshow(
        _project(panel.percentiles.reshape(grid.shape)), extent=(-_WIDE, _WIDE, -_HIGH, _HIGH),
        **_colours(), interpolation="nearest",
    )  # fmt: skip
    ax.add_collection(LineCollection(_graticule(), colors="0.35", linewidths=0.4, alpha=0.3))
    ax.add_collection(LineCollection(coast, colors="white", linewidths=1.7, alpha=0.55))
    ax.add_collection(LineCollection(coast, colors="#10222e", linewidths=0.65))
    ax.add_collection(LineCollection([_outline()], colors="0.25", linewidths=0.9))
    best = best_cells(panel.percentiles, grid.latitude, grid.longitude)
    names = []
    for number, cell in enumerate(best, 1):
        latitude, longitude = float(grid.latitude[cell]), float(grid.longitude[cell])
        x, y = equal_earth(latitude, longitude)
        ax.plot(x, y, "o", markersize=5, color="white", markeredgecolor="black", markeredgewidth=1.2)
        ax.annotate(
            str(number), (float(x), float(y)), (4, 4), textcoords="offset points", fontsize=10, weight="bold",
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )  # fmt: skip
        names.append(f"{number} {place_name(world, latitude, longitude)}")
    ax.set_xlim(-_WIDE * 1.005, _WIDE * 1.005)
    ax.set_ylim(-_HIGH * 1.01, _HIGH * 1.38)
    ax.set_axis_off()
    query = f"“{panel.query}”" if panel.kind == "text" else panel.query
    ax.text(0, 0.995, query, transform=ax.transAxes, fontsize=15, weight="bold", va="top", parse_math=False)
    ax.text(
        1,
        0.985,
        _KINDS[panel.kind],
        transform=ax.transAxes,
        fontsize=10.5,
        ha="right",
        va="top",
        color="0.35",
    )
    lines = textwrap.wrap("  ".join(names).replace(" ", "\xa0").replace("\xa0\xa0", "  "), 88)
    ax.text(
        0,
        0.927,
        "\n".join(lines),
        transform=ax.transAxes,
        fontsize=9.5,
        va="top",
        linespacing=1.25,
        color="0.25",
    )


def _colours() -> dict[str, Any]:
    """One colour for each class of `_CLASSES`, as arguments of imshow."""
    import matplotlib
    from matplotlib.colors import BoundaryNorm, ListedColormap

    colours = matplotlib.colormaps["YlOrRd"](np.linspace(0, 1, len(_CLASSES) - 1))
    return {"cmap": ListedColormap(colours), "norm": BoundaryNorm(_CLASSES, len(colours))}


def _draw_scale(ax: Axes) -> None:
    middles = (np.array(_CLASSES[1:]) + np.array(_CLASSES[:-1])) / 2
    ax.imshow(middles[None, :], extent=(0, len(middles), 0, 1), aspect="auto", **_colours())
    ax.set_yticks([])
    ax.set_xticks(range(len(_CLASSES)), labels=[str(bound) for bound in _CLASSES])
    ax.tick_params(labelsize=10)
    ax.set_xlabel(
        "percentile of similarity: the share (%) of the Earth's surface that fits the query less", fontsize=11
    )


# --- Equal Earth (Savric, Patterson and Jenny 2018, https://doi.org/10.1080/13658816.2018.1504949) ---------

_A1, _A2, _A3, _A4 = 1.340264, -0.081106, 0.000893, 0.003796
_M = np.sqrt(3) / 2


def equal_earth(latitude: ArrayLike, longitude: ArrayLike) -> tuple[NDArray, NDArray]:
    """x and y on a sphere of radius 1 (equations 7 to 9)."""
    parameter = np.arcsin(_M * np.sin(np.radians(latitude)))
    square, sixth = parameter**2, parameter**6
    y = parameter * (_A1 + _A2 * square + sixth * (_A3 + _A4 * square))
    slope = _A1 + 3 * _A2 * square + sixth * (7 * _A3 + 9 * _A4 * square)
    return np.radians(longitude) * np.cos(parameter) / (_M * slope), y


_WIDE, _HIGH = float(equal_earth(0, 180)[0]), float(equal_earth(90, 0)[1])


def _project(raster: NDArray[np.float64], width: int = 1400) -> NDArray[np.float64]:
    """A global raster (h, w), north up, as it looks in the projection; NaN outside the Earth."""
    x = (np.arange(width) + 0.5) / width * 2 * _WIDE - _WIDE
    height = round(width * _HIGH / _WIDE)
    y = _HIGH - (np.arange(height) + 0.5) / height * 2 * _HIGH
    # y depends on the latitude alone, x is linear in the longitude: a table inverts both.
    known = np.linspace(-90, 90, 3601)
    latitude = np.interp(y, equal_earth(known, 0)[1], known)
    longitude = 180 * x[None, :] / equal_earth(latitude, 180)[0][:, None]
    row = ((90 - latitude) / 180 * raster.shape[0]).astype(np.intp)[:, None]
    column = ((longitude + 180) / 360 * raster.shape[1]).astype(np.intp) % raster.shape[1]
    return np.where(np.abs(longitude) <= 180, raster[row, column], np.nan)


def _coastlines(world: World) -> list[NDArray]:
    """The shores, projected."""
    return [np.column_stack(equal_earth(line[:, 1], line[:, 0])) for line in coastlines(world)]


def _graticule() -> list[NDArray]:
    """Every 30 degrees."""
    along, across = np.linspace(-90, 90, 91), np.linspace(-180, 180, 181)
    meridians = [equal_earth(along, np.full(91, degree)) for degree in range(-150, 180, 30)]
    parallels = [equal_earth(np.full(181, degree), across) for degree in range(-60, 90, 30)]
    return [np.column_stack(line) for line in [*meridians, *parallels]]


def _outline() -> NDArray:
    north = np.linspace(-90, 90, 181)
    east, west = equal_earth(north, 180), equal_earth(north[::-1], -180)
    return np.concatenate([np.column_stack(east), np.column_stack(west), np.column_stack(east)[:1]])
