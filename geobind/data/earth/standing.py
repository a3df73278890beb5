"""What stands in SIMULATED views: trees, bushes and stones by cover and climate, buildings by settlement."""

from __future__ import annotations

import numpy as np

from geobind.data.earth import attributes as a
from geobind.data.earth import sprites
from geobind.data.earth.canvas import FORESTS, RGB, Canvas, Floats, soft
from geobind.data.earth.sprites import Part, draw_row

# Wooded cover: rows of trees from far to near: (shape, where it stands from 0 at the far end of the land to
# 1 at the feet, height as a share of the view, share of the places taken)
_Row = tuple[Part, float, float, float]
_TREES: dict[int, tuple[_Row, ...]] = {
    a.RAINFOREST: (
        (sprites.jungle, 0.02, 0.24, 1.0), (sprites.jungle, 0.06, 0.30, 1.0), (sprites.palm, 0.12, 0.30, 0.5),
        (sprites.bush, 0.14, 0.10, 1.0), (sprites.bush, 0.30, 0.13, 1.0), (sprites.jungle, 0.44, 0.56, 0.5),
        (sprites.bush, 0.55, 0.17, 0.9), (sprites.bush, 0.98, 0.22, 0.8),
    ),
    a.CONIFER_FOREST: (
        (sprites.conifer, 0.01, 0.16, 1.0), (sprites.conifer, 0.04, 0.19, 1.0), (sprites.conifer, 0.09, 0.23, 1.0),
        (sprites.conifer, 0.18, 0.30, 0.8), (sprites.conifer, 0.36, 0.40, 0.6), (sprites.conifer, 0.75, 0.65, 0.45),
    ),
    a.BROADLEAF_FOREST: (
        (sprites.broadleaf, 0.01, 0.15, 1.0), (sprites.broadleaf, 0.04, 0.18, 1.0), (sprites.broadleaf, 0.08, 0.22, 1.0),
        (sprites.broadleaf, 0.18, 0.28, 0.7), (sprites.broadleaf, 0.38, 0.40, 0.55), (sprites.broadleaf, 0.78, 0.60, 0.4),
    ),
    a.SAVANNA: (
        (sprites.acacia, 0.02, 0.13, 0.5), (sprites.acacia, 0.10, 0.22, 0.5), (sprites.acacia, 0.36, 0.38, 0.45),
    ),
}  # fmt: skip

# Climate: a tree that stands alone where the cover has none of its own, and its height
_LONE: dict[int, tuple[Part, float]] = {
    a.COLD: (sprites.conifer, 0.18), a.TEMPERATE: (sprites.broadleaf, 0.17), a.TROPICAL: (sprites.palm, 0.26),
}  # fmt: skip

# Climate: (house of a village, its wall, its roof)
_HOUSE: dict[int, tuple[Part, RGB, RGB]] = {
    a.POLAR: (sprites.house, (0.78, 0.22, 0.18), (0.30, 0.30, 0.34)),
    a.COLD: (sprites.house, (0.55, 0.36, 0.22), (0.36, 0.24, 0.20)),
    a.TEMPERATE: (sprites.house, (0.92, 0.88, 0.80), (0.74, 0.30, 0.20)),
    a.DRY: (sprites.adobe, (0.84, 0.68, 0.48), (0.80, 0.62, 0.42)),
    a.TROPICAL: (sprites.hut, (0.66, 0.46, 0.30), (0.72, 0.58, 0.30)),
}


def _row(view: Canvas, shape: Part, place: float, height: float, density: float, colours: dict[str, Floats], *,
        gap: float = 0.1, unevenness: float = 0.3) -> None:  # fmt: skip
    """A row of objects; place: 0 at the far end of the land, 1 at the feet; height as a share of the view."""
    base = view.land + (np.float32(1.03) - view.land) * np.float32(place) + view.draw(-0.01, 0.01)
    tall = np.float32(height) * view.draw(0.85, 1.25)
    draw_row(view.pixels, view.numbers(), shape, colours, base=base, height=tall, gap=gap, density=density,
             unevenness=unevenness)  # fmt: skip


def plant(view: Canvas, *, near: bool) -> None:
    """Trees by forest type and climate, bushes, reeds, grass, boulders; the near ones stand before houses."""
    cover, climate = view.scene.cover, view.scene.climate
    built = view.scene.settlement
    leaf = view.leaf
    snow = leaf * np.float32(1.15)
    snow = snow + view.snowy[:, None] * (view.white - snow)
    colours = {"leaf": leaf, "snow": snow, "trunk": view.colour((0.30, 0.22, 0.15), 0.03),
               "bole": view.colour((0.66, 0.58, 0.46), 0.04)}  # fmt: skip
    if cover in FORESTS and not near:  # no light between the trunks of the far rows
        crest = view.land[:, None] - np.float32(0.10) + np.float32(0.05) * view.line(19, sharp=True)
        below = view.y - crest[:, None]
        above = (view.land + np.float32(0.03))[:, None, None] - view.y
        view.paint(soft(below, view.size) * soft(above, view.size), view.hazy(leaf * np.float32(0.6), 0.12))
    if cover in _TREES:
        for shape, place, height, density in _TREES[cover]:
            if (place > 0.25) != near:
                continue
            if near and built:  # a clearing, or the houses would be hidden
                density *= 0.5
            hazed = {name: view.hazy(colour, max(0, 0.25 - 2 * place)) for name, colour in colours.items()}
            _row(view, shape, place, height, density, hazed, gap=0.5 if cover == a.SAVANNA else 0.02)
    elif near:
        _undergrowth(view, colours)
    elif climate in _LONE and cover not in (a.ICE, a.TUNDRA, a.DESERT):
        shape, height = _LONE[climate]
        _row(
            view, shape, 0.04, height, 0.22 if cover in (a.GRASSLAND, a.SHRUBLAND) else 0.45, colours, gap=0.5
        )


def _undergrowth(view: Canvas, colours: dict[str, Floats]) -> None:
    cover, climate = view.scene.cover, view.scene.climate
    if cover == a.SHRUBLAND:
        for place in (0.04, 0.12, 0.25, 0.45, 0.75):
            _row(view, sprites.bush, place, 0.035 + 0.12 * place, 0.62, colours, gap=0.5)
        if climate == a.DRY:
            _row(view, sprites.cactus, 0.3, 0.30, 0.4, colours, gap=0.3)
    elif cover == a.DESERT and climate != a.DRY:
        stone = {**colours, "leaf": view.earth * np.float32(0.72)}
        stone["snow"] = stone["leaf"] * np.float32(1.2)
        for place in (0.08, 0.22, 0.45, 0.78):
            _row(view, sprites.bush, place, 0.03 + 0.09 * place, 0.55, stone, gap=0.8, unevenness=0.6)
    elif cover == a.GRASSLAND:
        for place in (0.55, 0.98):
            _row(view, sprites.grass, place, 0.06 + 0.10 * place, 0.8, colours)
    elif cover == a.WETLAND:
        for place in (0.15, 0.5, 0.98):
            _row(view, sprites.reed, place, 0.10 + 0.24 * place, 0.55, colours)
    elif cover == a.TUNDRA:
        stone = {**colours, "leaf": view.colour((0.5, 0.5, 0.5), 0.05)}
        for place in (0.3, 0.8):
            _row(view, sprites.bush, place, 0.02 + 0.05 * place, 0.4, stone, gap=1.2, unevenness=0.6)


def build(view: Canvas) -> None:
    """Huts or houses of a village, the rows and the steeple of a town, the towers of a city."""
    climate, settlement = view.scene.climate, view.scene.settlement
    if settlement == a.NO_SETTLEMENT:
        return
    shape, wall, roof = _HOUSE[climate]
    if settlement != a.VILLAGE and climate == a.TROPICAL:
        shape, wall, roof = sprites.house, (0.90, 0.80, 0.62), (0.55, 0.36, 0.30)  # tin instead of thatch
    dusk = np.clip(1 - 3 * view.day, 0, 1)[:, None]
    dark = view.colour((0.20, 0.24, 0.32), 0.03)
    tiles = view.colour(roof, 0.06)
    homes = {
        "wall": view.colour(wall, 0.06), "roof": tiles, "door": view.colour((0.28, 0.18, 0.12), 0.04),
        "window": dark + dusk * (view.colour((1.0, 0.85, 0.45)) - dark),
        "snow": tiles + view.snowy[:, None] * (view.white - tiles),
    }  # fmt: skip
    if settlement == a.CITY:
        concrete = view.colour((0.58, 0.60, 0.64), 0.06)
        for k, (place, height) in enumerate(((0.02, 0.42), (0.06, 0.30))):
            towers = {
                "wall": view.hazy(concrete, 0.45 - 0.35 * k),
                "window": view.hazy(homes["window"], 0.4 - 0.3 * k),
            }
            _row(view, sprites.tower, place, height, 1 - 0.2 * k, towers, gap=0, unevenness=0.6)
        if view.scene.cover == a.URBAN:
            near = {"wall": view.colour((0.56, 0.50, 0.46), 0.08), "window": homes["window"]}
            _row(view, sprites.tower, 0.22, 0.55, 0.4, near, gap=0.4)
        else:
            _row(view, shape, 0.14, 0.13, 0.8, homes)
    elif settlement == a.TOWN:
        _row(view, shape, 0.03, 0.12, 0.95, homes, gap=0)
        if climate != a.DRY:
            _row(view, sprites.church, 0.05, 0.34, 0.75, homes, gap=0.5, unevenness=0.2)
        _row(view, shape, 0.10, 0.16, 0.9, homes, gap=0)
        _row(view, shape, 0.22, 0.22, 0.7, homes, gap=0.05)
    else:
        _row(view, shape, 0.10, 0.15, 0.5, homes, gap=0.5)
        _row(view, shape, 0.26, 0.23, 0.6, homes, gap=0.6)
