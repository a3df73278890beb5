"""Pictures of maps: bands side by side with coastlines, a scale of colours and degrees or metres at the edges."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geobind.errors import GeoBindError
from geobind.mapping.area import DEGREES, is_geographic, project, units_of_metre
from geobind.mapping.geotiff import read_map
from geobind.storage import replacing

if TYPE_CHECKING:
    from xarray import DataArray

_COLUMNS = 2
_MOST = 1500  # cells a side that a panel shows
_COAST_DEGREES = 2.0  # smaller maps would show the coast of the miniature Earth as a crude line


def draw_map(found: DataArray | str | Path, path: str | Path) -> Path:
    """Write one PNG with a panel a band: values in colour, coastline, credits, scale bar and legend.

    >>> draw_map(geobind.map(space, "the open sea", "-10,35,5,45"), "sea.png")

    `found`: what `geobind.map` gives, or a map file. Coastlines are drawn on maps of 2 degrees and more
    where the extra `demo` is installed. Raises GeoBindError where the file cannot be written.
    """
    from matplotlib.figure import Figure

    found = read_map(found) if isinstance(found, str | Path) else found
    path = Path(path)
    bands, rows, columns = found.shape
    thin = max(1, math.ceil(max(rows, columns) / _MOST))
    across = min(bands, _COLUMNS)
    down = -(-bands // across)
    high = min(max(6.5 * rows / columns, 2.0), 10.0)
    figure = Figure(
        figsize=(7.5 * across, (high + 1.0) * down), dpi=110, layout="constrained", facecolor="white"
    )
    axes = figure.subplots(down, across, squeeze=False).ravel()
    step = abs(float(found.attrs["transform"][0]))
    extent = (
        float(found.x[0]) - step / 2, float(found.x[-1]) + step / 2,
        float(found.y[-1]) - step / 2, float(found.y[0]) + step / 2,
    )  # fmt: skip
    coast = _coast(str(found.attrs["crs"]), extent)
    for number, ax in enumerate(axes):
        if number >= bands:
            ax.set_axis_off()
            continue
        shown = ax.imshow(
            found.values[number, ::thin, ::thin], extent=extent, cmap="YlOrRd", interpolation="nearest",
            aspect=_aspect(str(found.attrs["crs"]), extent),
        )  # fmt: skip
        for line in coast:
            ax.plot(*line.T, color="white", linewidth=1.6, alpha=0.6)
            ax.plot(*line.T, color="#10222e", linewidth=0.7)
        ax.set_xlim(extent[:2])
        ax.set_ylim(extent[2:])
        ax.set_facecolor("0.85")  # no data
        ax.set_title(str(found.band.values[number]), fontsize=12, weight="bold", parse_math=False)
        _scale_bar(ax, str(found.attrs["crs"]), extent)
        figure.colorbar(shown, ax=ax, shrink=0.8, label=str(found.attrs.get("GEOBIND_VALUES", "cosine")))
    credit = " · ".join(
        filter(None, [str(found.attrs["crs"]), str(found.attrs.get("GEOBIND_ATTRIBUTION", ""))])
    )
    figure.supxlabel(credit, fontsize=8, parse_math=False)
    with replacing(path) as temporary:
        # Tight, because equal degrees leave the layout engine too little room for the titles.
        figure.savefig(temporary, format="png", bbox_inches="tight", pad_inches=0.12)
    return path


def _aspect(crs: str, extent: tuple[float, float, float, float]) -> float:
    """Height of a unit of y over the width of one of x: degrees of longitude are shorter away from the equator."""
    if not is_geographic(crs):
        return 1.0
    middle = (extent[2] + extent[3]) / 2
    return 1 / max(math.cos(math.radians(middle)), 0.2) if extent[3] - extent[2] < 60 else 1.0


def _scale_bar(ax: Any, crs: str, extent: tuple[float, float, float, float]) -> None:
    """A bar of a round length on the ground, about a fifth of the map wide; none on maps of continents."""
    from matplotlib.patheffects import withStroke

    left, right, bottom, top = extent
    longitude, latitude = (float(v) for v in project((left + right) / 2, (bottom + top) / 2, crs, DEGREES))
    unit = units_of_metre(crs, latitude, longitude)[0]
    metres = (right - left) / unit / 5
    if metres > 500_000 or not math.isfinite(metres):
        return
    power = 10 ** math.floor(math.log10(metres))
    length = next(size * power for size in (5, 2, 1) if size * power <= metres)
    x, y = left + 0.05 * (right - left), bottom + 0.06 * (top - bottom)
    around = [withStroke(linewidth=3.5, foreground="white")]
    ax.plot(
        [x, x + length * unit],
        [y, y],
        color="black",
        linewidth=2.5,
        path_effects=around,
        solid_capstyle="butt",
    )
    text = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    ax.annotate(text, (x, y), (0, 4), textcoords="offset points", fontsize=9, path_effects=around)


def _coast(crs: str, extent: tuple[float, float, float, float]) -> list[NDArray[np.float64]]:
    """The shores within the extent, in the map's CRS; none where the miniature Earth is not installed."""
    from geobind.data.earth.world import World

    corners = project([extent[0], extent[1]], [extent[2], extent[3]], crs, DEGREES)
    if not np.isfinite(corners).all() or abs(corners[1][1] - corners[1][0]) < _COAST_DEGREES:
        return []
    try:
        world = World.load()
    except GeoBindError:
        return []
    from geobind.mapping.coast import coastlines

    lines = []
    for line in coastlines(world):
        x, y = project(line[:, 0], line[:, 1], DEGREES, crs)
        near = (x > extent[0]) & (x < extent[1]) & (y > extent[2]) & (y < extent[3])
        if near.any():
            lines.append(np.column_stack([x, y]))
    return lines
