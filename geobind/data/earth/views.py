"""SIMULATED ground-level views: what a camera might see at a place with these attributes. Not photographs.

Everything that decides a view is in the tables below and in `_paint`: the attributes say what there is,
the seed says what light, weather, camera and arrangement it is seen in. Nothing else is known of the place.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geobind.data.earth import attributes as a
from geobind.data.earth import sprites
from geobind.data.earth.attributes import Attributes, Scene
from geobind.data.earth.sprites import ROW_NUMBERS, Floats, blend, draw_row, either, soft
from geobind.errors import GeoBindError

_STREAM = 1  # keeps the random numbers of views apart from those of sounds with the same seed
_LAYERS = 24
_COARSE = 12  # knots of the smooth noise, both ways
_NOISES = 3
_CHUNK = 16  # views painted together: more would leave the processor's cache

RGB = tuple[float, float, float]

# Climate: (sky overhead, sky at the horizon, mean cloudiness)
_SKY: dict[int, tuple[RGB, RGB, float]] = {
    a.POLAR: ((0.52, 0.66, 0.80), (0.92, 0.93, 0.96), 0.45),
    a.COLD: ((0.38, 0.54, 0.74), (0.80, 0.86, 0.91), 0.50),
    a.TEMPERATE: ((0.25, 0.48, 0.82), (0.74, 0.86, 0.95), 0.45),
    a.DRY: ((0.38, 0.58, 0.84), (0.93, 0.86, 0.72), 0.12),
    a.TROPICAL: ((0.15, 0.48, 0.88), (0.72, 0.90, 0.94), 0.50),
}

# Land cover: colour of the ground
_GROUND: dict[int, RGB] = {
    a.WATER: (0.16, 0.36, 0.52),
    a.ICE: (0.90, 0.94, 0.98),
    a.DESERT: (0.60, 0.55, 0.50),
    a.TUNDRA: (0.47, 0.42, 0.30),
    a.SHRUBLAND: (0.62, 0.54, 0.38),
    a.GRASSLAND: (0.46, 0.60, 0.24),
    a.SAVANNA: (0.76, 0.66, 0.30),
    a.CROPLAND: (0.50, 0.36, 0.22),
    a.RAINFOREST: (0.16, 0.28, 0.10),
    a.CONIFER_FOREST: (0.28, 0.28, 0.18),
    a.BROADLEAF_FOREST: (0.38, 0.44, 0.20),
    a.WETLAND: (0.38, 0.50, 0.22),
    a.URBAN: (0.50, 0.50, 0.50),
}

# Climate: (what the ground is tinted with, how strongly)
_TINT: dict[int, tuple[RGB, float]] = {
    a.POLAR: ((0.60, 0.60, 0.60), 0.30),
    a.COLD: ((0.42, 0.40, 0.30), 0.30),
    a.TEMPERATE: ((0.36, 0.50, 0.20), 0.10),
    a.DRY: ((0.82, 0.64, 0.40), 0.45),
    a.TROPICAL: ((0.60, 0.36, 0.18), 0.20),
}

# Climate: the sea
_SEA: dict[int, RGB] = {
    a.POLAR: (0.22, 0.34, 0.42),
    a.COLD: (0.22, 0.34, 0.42),
    a.TEMPERATE: (0.12, 0.34, 0.56),
    a.DRY: (0.10, 0.44, 0.62),
    a.TROPICAL: (0.06, 0.60, 0.66),
}

# Climate: foliage of bushes and grass beyond what the cover says
_LEAF: dict[int, RGB] = {
    a.POLAR: (0.40, 0.38, 0.26),
    a.COLD: (0.38, 0.42, 0.22),
    a.TEMPERATE: (0.30, 0.46, 0.18),
    a.DRY: (0.46, 0.46, 0.28),
    a.TROPICAL: (0.18, 0.48, 0.14),
}

# Cover: (tree, colour of its leaves, rows from far to near, share of the places taken, spacing)
_TREES: dict[int, tuple[sprites.Part, RGB, int, float, float]] = {
    a.RAINFOREST: (sprites.jungle, (0.09, 0.36, 0.11), 4, 1.0, 0.42),
    a.CONIFER_FOREST: (sprites.conifer, (0.10, 0.26, 0.18), 4, 0.95, 0.40),
    a.BROADLEAF_FOREST: (sprites.broadleaf, (0.27, 0.45, 0.14), 4, 0.95, 0.55),
    a.SAVANNA: (sprites.acacia, (0.34, 0.42, 0.14), 3, 0.45, 1.6),
}

# Climate: the share of views with snow on the ground, the share of the ground it covers then
_SNOW: dict[int, tuple[float, float]] = {a.POLAR: (1.0, 0.70), a.COLD: (0.6, 0.62)}

# Climate: where on a mountain the snow begins (0 at its foot, 1 at its top); none elsewhere
_SNOW_LINE: dict[int, float] = {a.POLAR: 0.05, a.COLD: 0.30, a.TEMPERATE: 0.62}

# Climate: (house of a village, its wall, its roof)
_HOUSE: dict[int, tuple[sprites.Part, RGB, RGB]] = {
    a.POLAR: (sprites.house, (0.78, 0.22, 0.18), (0.30, 0.30, 0.34)),
    a.COLD: (sprites.house, (0.55, 0.36, 0.22), (0.36, 0.24, 0.20)),
    a.TEMPERATE: (sprites.house, (0.92, 0.88, 0.80), (0.74, 0.30, 0.20)),
    a.DRY: (sprites.adobe, (0.84, 0.68, 0.48), (0.80, 0.62, 0.42)),
    a.TROPICAL: (sprites.hut, (0.66, 0.46, 0.30), (0.72, 0.58, 0.30)),
}


def render_views(attributes: Attributes, seeds: NDArray[np.integer] | Sequence[int], size: int = 48) -> NDArray[np.uint8]:
    """Draw SIMULATED ground-level views: sky, relief, ground, vegetation, snow, sea and buildings.

    They stand for geotagged photographs, which nobody can ship. A view is decided by the five attributes
    of its place (tables of this module) and by its seed (time of day, clouds, camera, positions, colours),
    never by the place itself or by the other views: rendered one by one they are the same, bit for bit.

    >>> render_views(attributes, seeds=range(len(attributes))).shape     # (n, size, size, 3) uint8 RGB

    seeds: one non-negative integer for each place. size: pixels of a side, at least 16.
    Raises GeoBindError where there are not as many seeds as places, or the size is below 16.
    """
    if len(seeds) != len(attributes):
        raise GeoBindError(f"{len(attributes)} places need as many seeds, not {len(seeds)}")
    if size < 16:
        raise GeoBindError(f"a view has at least 16 pixels a side, not {size}")
    views = np.empty((len(attributes), size, size, 3), np.uint8)
    code = attributes.code()
    order = np.argsort(code, kind="stable")
    starts = np.flatnonzero(np.diff(code[order], prepend=-1))
    for group in np.split(order, starts[1:]):
        for rows in np.split(group, range(_CHUNK, len(group), _CHUNK)):
            views[rows] = _render([int(seeds[row]) for row in rows], attributes.scene(rows[0]), size)
    return views
