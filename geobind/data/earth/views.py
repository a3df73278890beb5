"""SIMULATED ground-level views: what a camera might see at a place with these attributes. Not photographs.

Everything that decides a view is in the tables below and in `_paint`: the attributes say what there is,
the seed says what light, weather, camera and arrangement it is seen in. Nothing else is known of the place.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geobind.data.earth import attributes as a
from geobind.data.earth.attributes import Attributes, Scene
from geobind.data.earth.canvas import FORESTS, RGB, Canvas, Floats, blend, either, soft, spread
from geobind.data.earth.standing import build, plant
from geobind.errors import GeoBindError

_CHUNK = 16  # views painted together: more would leave the processor's cache

# Climate: (sky overhead, sky at the horizon, mean cloudiness)
_SKY: dict[int, tuple[RGB, RGB, float]] = {
    a.POLAR: ((0.52, 0.66, 0.80), (0.92, 0.93, 0.96), 0.45),
    a.COLD: ((0.38, 0.54, 0.74), (0.80, 0.86, 0.91), 0.50),
    a.TEMPERATE: ((0.25, 0.48, 0.82), (0.74, 0.86, 0.95), 0.45),
    a.DRY: ((0.38, 0.58, 0.84), (0.93, 0.86, 0.72), 0.12),
    a.TROPICAL: ((0.15, 0.48, 0.88), (0.72, 0.90, 0.94), 0.50),
}

# Climate: where on a mountain the snow begins (0 at its foot, 1 at its top); none elsewhere
_SNOW_LINE: dict[int, float] = {a.POLAR: 0.05, a.COLD: 0.30, a.TEMPERATE: 0.62}


def render_views(
    attributes: Attributes, seeds: NDArray[np.integer] | Sequence[int], size: int = 48
) -> NDArray[np.uint8]:
    """Draw SIMULATED ground-level views: sky, relief, ground, vegetation, snow, sea and buildings.

    They stand for geotagged photographs, which nobody can ship. A view is decided by the six attributes
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
    for group in np.split(order, starts)[1:]:
        for rows in np.split(group, range(_CHUNK, len(group), _CHUNK)):
            views[rows] = _render([int(seeds[row]) for row in rows], attributes.scene(rows[0]), size)
    return views


def _render(seeds: Sequence[int], scene: Scene, size: int) -> NDArray[np.uint8]:
    """(B, size, size, 3) views of one scene: SIMULATED, from its attributes and these seeds only."""
    view = Canvas(seeds, scene, size)
    _sky(view)
    _relief(view)
    _ground(view)
    if scene.cover == a.WATER:
        _far_shore(view)
    else:
        plant(view, near=False)
        build(view)
        plant(view, near=True)
    return view.finished()


def _sky(view: Canvas) -> None:
    """Sky by climate and hour, sun, clouds."""
    overhead, horizon, cloudiness = _SKY[view.scene.climate]
    golden = np.clip(1 - 2.5 * view.day, 0, 1)[:, None]
    view.air = view.colour(horizon, 0.03)
    view.air = view.air + golden * (view.colour((1.0, 0.70, 0.42), 0.05) - view.air) * np.float32(0.8)
    up = np.clip(view.y / view.horizon[:, None, None], 0, 1)[:, None]
    top = view.colour(overhead, 0.04)[:, :, None, None]
    view.pixels[:] = np.repeat(top + (up * up) * (view.air[:, :, None, None] - top), view.size, axis=3)

    cover = np.clip(cloudiness + view.draw(-0.45, 0.5), 0, 1)[:, None, None]
    across = view.x - view.draw(0.1, 0.9)[:, None, None]
    above = view.y - (view.horizon * (np.float32(0.95) - np.float32(0.85) * view.day))[:, None, None]
    sun = soft(0.05 - np.sqrt(across * across + above * above), view.size / 2)
    view.paint(sun * np.clip(1.2 - 2 * cover, 0, 1), view.colour((1.0, 0.96, 0.78)))
    billows = 0.6 * view.noise(7, 4) + 0.4 * view.noise(12, 9)
    opacity = np.clip((billows - 0.72 + 0.5 * cover) * 7, 0, 0.95)
    brightness = 1.02 - 0.3 * cover - 0.5 * np.clip(billows - 0.55, 0, 0.5)
    view.paint(opacity, (view.white + 0.25 * (view.air - view.white))[:, :, None, None] * brightness[:, None])


def _relief(view: Canvas) -> None:
    """Nothing, hills, or two chains of mountains with snow by climate; beside the sea only on one side."""
    scene = view.scene
    wooded = scene.cover in FORESTS
    slope = view.leaf * np.float32(0.9) if wooded else view.earth
    if scene.cover == a.CROPLAND:  # pasture: no one ploughs a steep slope
        slope = (view.leaf + view.earth) * np.float32(0.5)
    side = np.ones((view.count, view.size), np.float32)
    if scene.coast:
        towards = np.where(view.left[:, None], 1 - view.x[0], view.x[0])
        side = np.clip((towards - 0.35) * 2.5, 0, 1)
    if scene.relief == a.HILLY:
        for near, low, high in ((0, 0.14, 0.20), (1, 0.07, 0.12)):
            height = view.draw(low, high) + np.float32(0.12 if wooded else 0)
            rise = view.line(6 + near, sharp=False)
            if scene.climate == a.DRY:  # mesas
                rise = np.clip((rise - 0.45) * 6, 0, 1) * np.float32(0.85) + np.float32(0.15) * rise
            crest = height[:, None] * (np.float32(0.25) + np.float32(0.85) * rise) * side
            below = view.y - (view.horizon[:, None] - crest)[:, None]
            shade = 1.0 - 0.1 * near + (0.5 if wooded else 0.12) * view.grain
            colour = view.hazy(slope, 0.38 - 0.22 * near)
            colour = colour + (0.5 * view.snowy)[:, None] * (view.white - colour)
            view.paint(soft(below, view.size), colour[:, :, None, None] * shade[:, None])
    if scene.relief == a.MOUNTAINOUS:
        stone = view.colour((0.62, 0.42, 0.32) if scene.climate == a.DRY else (0.40, 0.38, 0.40), 0.05)
        for near, low, high in ((0, 0.30, 0.38), (1, 0.18, 0.28)):
            height = view.draw(low, high) + np.float32(0.08 if wooded else 0)
            _chain(view, near, height, side, view.hazy(stone, 0.35 - 0.25 * near), slope)


def _chain(view: Canvas, near: int, height: Floats, side: Floats, stone: Floats, slope: Floats) -> None:
    # Summits and saddles in turn, seen through a window that each view shifts.
    summits = view.numbers()[:, : 8 + 2 * near] * np.float32(0.4)
    summits[:, ::2] += np.float32(0.6)
    wide = spread(summits, 2 * view.size, sharp=True)
    start = (view.draw(0, 1) * view.size).astype(np.int64)
    peaks = np.take_along_axis(wide, start[:, None] + np.arange(view.size), 1)
    rise = 0.15 + 0.70 * peaks + 0.15 * view.line(17, sharp=True)
    crest = height[:, None] * rise * side
    below = view.y - (view.horizon[:, None] - crest)[:, None]
    # Facets: lit where the crest rises towards the sun; their edges wander down the slope.
    steep = (np.gradient(peaks, axis=1) * np.float32(view.size / 6)).astype(np.float32)
    wander = (view.noise(12, 7) - 0.5) * 20 + np.arange(view.size, dtype=np.float32)
    column = np.clip(wander, 0, view.size - 1).astype(np.int64)
    facet = np.take_along_axis(np.broadcast_to(steep[:, None], below.shape), column, 2)
    facet = np.clip(facet * 1.5, -0.3, 0.3)
    shade = 0.95 + facet + 0.06 * view.grain
    up = (view.horizon[:, None, None] - view.y) / np.maximum(height, 0.01)[:, None, None]
    green = np.clip(0.75 - 2.2 * up, 0, 1)[:, None] * np.float32(0.8)
    colour = stone[:, :, None, None] + green * (slope - stone)[:, :, None, None]
    if view.scene.climate in _SNOW_LINE:
        line = np.float32(_SNOW_LINE[view.scene.climate])
        snow = np.clip((up - line + 0.12 * view.grain + 0.4 * facet) * 9, 0, 0.95)[:, None]
        colour = colour + snow * (view.white[:, :, None, None] * np.float32(0.98) - colour)
        shade = shade + 0.25 * snow[:, 0] * (1.02 - shade)
    blue = np.asarray((1, 1.06, 1.16), np.float32)[:, None, None]
    light = np.minimum(shade, 1)[:, None]
    view.paint(soft(below, view.size), colour * shade[:, None] * (blue + light * (1 - blue)))


def _ground(view: Canvas) -> None:
    """The ground by cover and climate, with its texture, snow, and the sea in front of the horizon."""
    horizon = view.horizon[:, None, None]
    solid = soft(view.y - horizon, view.size)
    patches = view.noise(14, 6, ground=True) - 0.5
    far = np.clip(0.45 - view.depth, 0, 1)[:, None]
    base = view.earth if view.scene.cover != a.WATER else view.sea
    colour: Floats = base[:, :, None, None] + far * (view.air - base)[:, :, None, None]
    colour = _surface(view, colour, patches)
    view.paint(solid, colour)
    if view.snow_cover and view.scene.cover not in (a.ICE, a.URBAN):
        drifts = np.clip((patches + 0.12 * view.grain + view.snow_cover - 0.5) * 7, 0, 0.93)
        view.paint(solid * drifts * view.snowy[:, None, None], view.white)
    if view.scene.coast and view.scene.cover != a.WATER:
        _shore(view)


def _surface(view: Canvas, colour: Floats, patches: Floats) -> Floats:
    """The texture of the ground of each cover on its base colour."""
    cover, depth, grain = view.scene.cover, view.depth, view.grain
    distance = 1 / (depth + 0.09)
    across = (view.x - view.draw(0.2, 0.8)[:, None, None]) * distance
    shade = 1 + 0.35 * patches + 0.10 * grain
    streaks = view.streaks()
    extra: list[tuple[Floats, Floats]] = []
    if cover == a.WATER:
        swell = view.noise(16, 6, ground=True) - 0.5
        shade = 1 + (0.55 * streaks + 0.7 * swell) * (0.25 + 0.75 * depth)
        if view.scene.climate == a.POLAR:
            floes = np.clip((patches + 0.4 * swell - view.draw(-0.02, 0.14)[:, None, None]) * 14, 0, 0.95)
            extra.append((floes, view.white))
        else:
            crests = np.clip((streaks + swell - view.draw(1.0, 1.5)[:, None, None]) * 5, 0, 0.8)
            extra.append((crests, view.white))
    elif cover == a.ICE:
        shade = 1 + 0.10 * patches + 0.05 * streaks
        blue = view.colour((0.52, 0.72, 0.88), 0.04)
        for start in (0.05, 0.16, 0.34, 0.66):  # pressure ridges, each with a blue shadow
            crest = start + (0.08 + 0.35 * start) * (view.line(8, sharp=True) - 0.5)
            below = (depth - crest[:, None]) * np.float32(14 - 10 * start)
            extra.append((np.clip((0.9 - below) * 0.8, 0, 0.7) * soft(below, 4), blue))
    elif cover == a.DESERT and view.scene.climate == a.DRY:
        shade = _dunes(view, patches)
    elif cover == a.GRASSLAND:
        blades = np.repeat(grain[:, ::5], 5, axis=1)[:, : view.size]
        shade = 1 + 0.4 * patches + 0.45 * blades * (0.2 + depth)
    elif cover == a.TUNDRA:
        moss = np.clip((view.noise(17, 9, ground=True) - 0.5) * 6, 0, 0.8)
        extra.append((moss, view.colour((0.50, 0.24, 0.16), 0.06)))
        extra.append((np.clip((patches - 0.14) * 9, 0, 0.7), view.colour((0.40, 0.46, 0.24), 0.05)))
    elif cover == a.CROPLAND:
        furrows = across * view.draw(2.2, 3.4)[:, None, None]
        furrows = np.abs(furrows - np.floor(furrows) - 0.5) * 4 - 1
        rows = np.clip(furrows * np.minimum(1, 5 * depth) + 0.5, 0, 1)
        ripe = view.draw(0, 1)[:, None]
        green = view.colour((0.28, 0.58, 0.14), 0.04)
        crop = green + np.clip((ripe - 0.5) * 4, 0, 1) * (view.colour((0.86, 0.72, 0.28), 0.04) - green)
        extra.append((rows * np.float32(0.92), crop))
        fields = np.clip((depth - view.draw(0.10, 0.16)[:, None, None]) * -view.size, 0, 1)
        extra.append((fields, view.hazy(view.colour((0.55, 0.64, 0.26), 0.10), 0.15)))
    elif cover == a.WETLAND:
        pools = np.clip((patches + 0.04 + view.draw(-0.05, 0.06)[:, None, None]) * 16, 0, 1)
        pools *= np.clip(depth * 12, 0, 1)
        mirror = view.air * np.float32(0.72) + np.asarray((-0.06, 0.02, 0.08), np.float32)
        extra.append((pools * np.float32(0.9), mirror))
    elif cover == a.URBAN:
        road = soft(0.85 - np.abs(across), view.size / 8)
        extra.append((road, view.colour((0.27, 0.27, 0.29), 0.02)))
        dashes = distance * np.float32(1.6)
        dash = soft(0.06 - np.abs(across), view.size / 4) * ((dashes - np.floor(dashes)) > 0.5)
        extra.append((dash * np.float32(0.8), view.white))
    textured = colour * shade[:, None]
    for opacity, over in extra:
        blend(textured, opacity, over[:, :, None, None])
    return textured


def _dunes(view: Canvas, patches: Floats) -> Floats:
    """(B, S, S) light and shadow of chains of dunes, each with a lit and a steep, dark side."""
    shade = 1 + 0.12 * patches
    for start in (0.02, 0.14, 0.32, 0.62):
        phase = view.x * (view.draw(1.0, 1.5) / np.float32(0.45 + start))[:, None, None]
        phase = phase + view.draw(0, 1)[:, None, None]
        along = phase - np.floor(phase)
        rise = np.minimum(along / 0.68, (1 - along) / 0.32) * (0.5 + view.line(5, sharp=False)[:, None])
        below = view.depth - start + (0.06 + 0.24 * start) * (rise - np.float32(0.5))
        slip = phase + below * (view.draw(0.8, 1.6) / np.float32(0.3 + start))[:, None, None]
        slip = slip - np.floor(slip)
        dark = soft(np.minimum(slip - 0.68, 1 - slip), view.size / 4) * np.clip(1.1 - below * 3.5, 0, 1)
        dune = 1.12 - 0.25 * np.clip(below, 0, 1) - 0.42 * dark + 0.05 * view.grain
        shade = shade + soft(below, view.size / 1.5) * (dune - shade)
    return shade


def _shore(view: Canvas) -> None:
    """Sea from the horizon to a slanting shoreline, with surf and a beach."""
    towards = either(view.left, 1, -1)  # the sea reaches further on the side away from the hills
    wave = view.line(6, sharp=False) - np.float32(0.5)
    width, slant = view.draw(0.14, 0.24), view.draw(0.10, 0.22)
    shore = (view.horizon + width)[:, None] + (towards * slant)[:, None] * (view.x[0] - np.float32(0.5))
    shore = shore + np.float32(0.05) * wave
    below = view.y - shore[:, None]
    beach = view.draw(0.07, 0.12)[:, None, None]
    cold = view.scene.climate in (a.POLAR, a.COLD)
    sand = view.colour((0.46, 0.44, 0.44) if cold else (0.92, 0.82, 0.60), 0.04)
    view.paint(soft(beach - below, view.size) * soft(view.y - view.horizon[:, None, None], view.size), sand)
    sea = view.hazy(view.sea, 0.1)[:, :, None, None] * (1 + 0.35 * view.streaks())[:, None]
    wet = soft(-below, view.size) * soft(view.y - view.horizon[:, None, None], view.size)
    view.paint(wet, sea)
    surf = np.maximum(0.018 - np.abs(below), 0.010 - np.abs(below + 0.05 + 0.06 * wave[:, None]))
    surf = soft(surf + 0.02 * view.grain, view.size) * wet.clip(0.0, 1.0)
    view.paint(np.maximum(surf, soft(0.012 - np.abs(below), view.size)) * np.float32(0.9), view.white)
    view.land = np.minimum(shore.max(axis=1) + np.float32(0.05), np.float32(0.85))


def _far_shore(view: Canvas) -> None:
    """Land on the horizon, where water lies near a coast."""
    if not view.scene.coast:
        return
    towards = np.where(view.left[:, None], 1 - view.x[0], view.x[0])
    rise = np.clip((towards - view.draw(0.2, 0.5)[:, None]) * 4, 0, 1)
    rise = rise * (np.float32(0.05) + np.float32(0.10) * view.line(9, sharp=False))
    below = view.y - (view.horizon[:, None] - rise)[:, None]
    above = (view.horizon + np.float32(0.03))[:, None, None] - view.y
    land = view.white if view.scene.climate == a.POLAR else view.leaf
    shade = 0.8 + 0.5 * view.grain
    opacity = soft(below, view.size) * soft(above, view.size) * (rise > 0.004)[:, None]
    view.paint(opacity, view.hazy(land, 0.2)[:, :, None, None] * shade[:, None])
    beach = opacity * soft(0.03 - np.abs(above - 0.02), view.size)
    cold = view.scene.climate in (a.POLAR, a.COLD)
    view.paint(beach * np.float32(0.9), view.colour((0.50, 0.50, 0.52) if cold else (0.90, 0.82, 0.62), 0.03))
