"""SIMULATED ground-level views: what a camera might see at a place with these attributes. Not photographs.

Everything that decides a view is in the tables below and in `_paint`: the attributes say what there is,
the seed says what light, weather, camera and arrangement it is seen in. Nothing else is known of the place.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from geobind.data.earth import attributes as a
from geobind.data.earth import sprites
from geobind.data.earth.attributes import Attributes, Scene
from geobind.data.earth.sprites import ROW_NUMBERS, Floats, blend, draw_row, either, soft
from geobind.errors import GeoBindError

_STREAM = 1  # keeps the random numbers of views apart from those of sounds with the same seed
_SCALARS, _ROWS = 160, 28  # single random numbers of a view, and rows of them
_NOISES, _KNOTS = 8, 19  # fields of smooth noise, and their knots both ways
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

# Wooded cover: (colour of its leaves, rows from far to near: shape, where it stands from 0 at the far end of
# the land to 1 at the feet, height as a share of the view, share of the places taken)
_Row = tuple[sprites.Part, float, float, float]
_TREES: dict[int, tuple[RGB, tuple[_Row, ...]]] = {
    a.RAINFOREST: ((0.07, 0.34, 0.10), (
        (sprites.jungle, 0.02, 0.24, 1.0), (sprites.jungle, 0.06, 0.30, 1.0), (sprites.palm, 0.12, 0.30, 0.5),
        (sprites.bush, 0.14, 0.10, 1.0), (sprites.bush, 0.30, 0.13, 1.0), (sprites.jungle, 0.44, 0.56, 0.5),
        (sprites.bush, 0.55, 0.17, 0.9), (sprites.bush, 0.98, 0.22, 0.8),
    )),
    a.CONIFER_FOREST: ((0.10, 0.26, 0.18), (
        (sprites.conifer, 0.01, 0.16, 1.0), (sprites.conifer, 0.04, 0.19, 1.0), (sprites.conifer, 0.09, 0.23, 1.0),
        (sprites.conifer, 0.18, 0.30, 0.8), (sprites.conifer, 0.36, 0.40, 0.6), (sprites.conifer, 0.75, 0.65, 0.45),
    )),
    a.BROADLEAF_FOREST: ((0.27, 0.45, 0.14), (
        (sprites.broadleaf, 0.01, 0.15, 1.0), (sprites.broadleaf, 0.04, 0.18, 1.0), (sprites.broadleaf, 0.08, 0.22, 1.0),
        (sprites.broadleaf, 0.18, 0.28, 0.7), (sprites.broadleaf, 0.38, 0.40, 0.55), (sprites.broadleaf, 0.78, 0.60, 0.4),
    )),
    a.SAVANNA: ((0.34, 0.42, 0.14), (
        (sprites.acacia, 0.02, 0.13, 0.5), (sprites.acacia, 0.10, 0.22, 0.5), (sprites.acacia, 0.36, 0.38, 0.45),
    )),
}  # fmt: skip
_HIGH = (a.RAINFOREST, a.CONIFER_FOREST, a.BROADLEAF_FOREST)  # forests that hide what stands behind them

# Relief: where the horizon lies, lower where mountains need room above it
_HORIZON: dict[int, tuple[float, float]] = {
    a.FLAT: (0.38, 0.54),
    a.HILLY: (0.42, 0.55),
    a.MOUNTAINOUS: (0.48, 0.58),
}

# Climate: the share of views with snow on the ground, the share of the ground it covers then
_SNOW: dict[int, tuple[float, float]] = {a.POLAR: (1.0, 0.70), a.COLD: (0.6, 0.62)}

# Climate: where on a mountain the snow begins (0 at its foot, 1 at its top); none elsewhere
_SNOW_LINE: dict[int, float] = {a.POLAR: 0.05, a.COLD: 0.30, a.TEMPERATE: 0.62}

# Climate: a tree that stands alone where the cover has none of its own, and its height
_LONE: dict[int, tuple[sprites.Part, float]] = {
    a.COLD: (sprites.conifer, 0.18), a.TEMPERATE: (sprites.broadleaf, 0.17), a.TROPICAL: (sprites.palm, 0.26),
}  # fmt: skip

# Climate: (house of a village, its wall, its roof)
_HOUSE: dict[int, tuple[sprites.Part, RGB, RGB]] = {
    a.POLAR: (sprites.house, (0.78, 0.22, 0.18), (0.30, 0.30, 0.34)),
    a.COLD: (sprites.house, (0.55, 0.36, 0.22), (0.36, 0.24, 0.20)),
    a.TEMPERATE: (sprites.house, (0.92, 0.88, 0.80), (0.74, 0.30, 0.20)),
    a.DRY: (sprites.adobe, (0.84, 0.68, 0.48), (0.80, 0.62, 0.42)),
    a.TROPICAL: (sprites.hut, (0.66, 0.46, 0.30), (0.72, 0.58, 0.30)),
}


def render_views(
    attributes: Attributes, seeds: NDArray[np.integer] | Sequence[int], size: int = 48
) -> NDArray[np.uint8]:
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


def _render(seeds: Sequence[int], scene: Scene, size: int) -> NDArray[np.uint8]:
    """(B, size, size, 3) views of one scene: SIMULATED, from its attributes and these seeds only."""
    painter = _Painter(seeds, scene, size)
    painter.sky()
    painter.relief()
    painter.ground()
    if scene.cover == a.WATER:
        painter.far_shore()
    else:
        painter.vegetation(near=False)
        painter.settlement()
        painter.vegetation(near=True)
    return painter.finished()


class _Painter:
    """Paints B views of one scene from back to front; every random number comes from the view's own seed."""

    def __init__(self, seeds: Sequence[int], scene: Scene, size: int) -> None:
        shares = np.cumsum((_SCALARS, _ROWS * ROW_NUMBERS, _NOISES * _KNOTS**2))
        numbers = np.stack([
            np.random.default_rng([_STREAM, seed]).random(shares[-1] + size * size, np.float32)
            for seed in seeds
        ])  # fmt: skip
        scalars, rows, knots, grain = np.split(numbers, shares, axis=1)
        self.scalars, self.knots = (
            iter(scalars.T),
            iter(knots.reshape(-1, _NOISES, _KNOTS, _KNOTS).swapaxes(0, 1)),
        )
        self.rows = iter(rows.reshape(-1, _ROWS, ROW_NUMBERS).swapaxes(0, 1))
        self.grain = grain.reshape(-1, size, size) - np.float32(0.5)
        self.scene, self.size, self.count = scene, size, len(seeds)
        grid = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
        self.x, self.y = grid[None, None, :], grid[None, :, None]

        self.horizon = self.draw(*_HORIZON[scene.relief])
        self.day = self.draw(0, 1) ** np.float32(0.6)  # the height of the sun: 0 is dusk, 1 is noon
        snow, self.snow_cover = _SNOW.get(scene.climate, (0.0, 0.0))
        if scene.cover == a.WATER:
            snow = 0.0
        self.snowy = (self.draw(0, 1) < snow).astype(np.float32)
        self.earth = self.tinted(_GROUND[scene.cover])
        self.leaf = self.colour(
            _TREES[scene.cover][0] if scene.cover in _TREES else _LEAF[scene.climate], 0.05
        )
        if scene.cover in _TREES:
            self.leaf = self.leaf + np.float32(0.25) * (self.colour(_LEAF[scene.climate]) - self.leaf)
        self.white = self.colour((0.93, 0.95, 0.98), 0.02)
        self.sea = self.colour(_SEA[scene.climate], 0.04)
        self.land = self.horizon  # where the rows of trees and houses begin

    # Random numbers and colours

    def draw(self, low: float, high: float) -> Floats:
        """(B,) uniform random numbers."""
        return np.float32(low) + np.float32(high - low) * next(self.scalars)

    def colour(self, rgb: RGB, jitter: float = 0.0) -> Floats:
        """(B, 3) a colour, each view's own shade of it."""
        shades = np.broadcast_to(np.asarray(rgb, np.float32), (self.count, 3))
        if not jitter:
            return shades
        return (
            shades
            + np.stack([self.draw(-jitter, jitter) for _ in range(3)], 1) * np.float32(0.6)
            + (self.draw(-jitter, jitter)[:, None])
        )

    def tinted(self, rgb: RGB) -> Floats:
        """(B, 3) a colour of the ground, as the climate changes it."""
        tint, strength = _TINT[self.scene.climate]
        if self.scene.cover in (a.ICE, a.URBAN, a.WATER, *_HIGH):
            strength *= 0.25
        mixed = tuple(c + strength * (t - c) for c, t in zip(rgb, tint, strict=True))
        return self.colour((mixed[0], mixed[1], mixed[2]), 0.05)

    def hazy(self, colour: Floats, strength: float) -> Floats:
        """A colour seen through air: mixed with the sky at the horizon."""
        return colour + np.float32(strength) * (self.air - colour)

    def noise(self, rows: int, columns: int, *, ground: bool = False) -> Floats:
        """(B, S, S) smooth random numbers around 0.5; on the ground finer towards the horizon."""
        knots = np.ascontiguousarray(next(self.knots)[:, :rows, :columns])
        return _weights(self.size, rows, ground) @ knots @ _weights(self.size, columns, False).T

    def line(self, knots: int, *, sharp: bool) -> Floats:
        """(B, S) a random line from left to right, 0 to 1."""
        return _spread(next(self.rows)[:, :knots], self.size, sharp=sharp)

    def streaks(self) -> Floats:
        """(B, S, S) the grain drawn out sideways, around 0: waves, wind-packed snow."""
        pairs = self.grain + np.roll(self.grain, 1, 2)
        return pairs + np.roll(pairs, 2, 2)

    def paint(self, opacity: Floats, colour: Floats) -> None:
        blend(self.canvas, opacity, colour[:, :, None, None] if colour.ndim == 2 else colour)

    # Layers, back to front

    def sky(self) -> None:
        """Sky by climate and hour, sun, clouds."""
        overhead, horizon, cloudiness = _SKY[self.scene.climate]
        golden = np.clip(1 - 2.5 * self.day, 0, 1)[:, None]
        self.air = self.colour(horizon, 0.03)
        self.air = self.air + golden * (self.colour((1.0, 0.70, 0.42), 0.05) - self.air) * np.float32(0.8)
        up = np.clip(self.y / self.horizon[:, None, None], 0, 1)[:, None]
        top = self.colour(overhead, 0.04)[:, :, None, None]
        self.canvas = np.repeat(top + (up * up) * (self.air[:, :, None, None] - top), self.size, axis=3)

        cover = np.clip(cloudiness + self.draw(-0.45, 0.5), 0, 1)[:, None, None]
        across = self.x - self.draw(0.1, 0.9)[:, None, None]
        above = self.y - (self.horizon * (np.float32(0.95) - np.float32(0.85) * self.day))[:, None, None]
        sun = soft(0.05 - np.sqrt(across * across + above * above), self.size / 2)
        self.paint(sun * np.clip(1.2 - 2 * cover, 0, 1), self.colour((1.0, 0.96, 0.78)))
        billows = 0.6 * self.noise(7, 4) + 0.4 * self.noise(12, 9)
        opacity = np.clip((billows - 0.72 + 0.5 * cover) * 7, 0, 0.95)
        brightness = 1.02 - 0.3 * cover - 0.5 * np.clip(billows - 0.55, 0, 0.5)
        self.paint(
            opacity, (self.white + 0.25 * (self.air - self.white))[:, :, None, None] * brightness[:, None]
        )

    def relief(self) -> None:
        """Nothing, hills, or two chains of mountains with snow by climate; beside the sea only on one side."""
        scene = self.scene
        wooded = scene.cover in _HIGH
        slope = self.leaf * np.float32(0.9) if wooded else self.earth
        if scene.cover == a.CROPLAND:  # pasture: no one ploughs a steep slope
            slope = (self.leaf + self.earth) * np.float32(0.5)
        side = np.ones((self.count, self.size), np.float32)
        if scene.coast:
            self.left = self.draw(0, 1) < 0.5
            towards = np.where(self.left[:, None], 1 - self.x[0], self.x[0])
            side = np.clip((towards - 0.35) * 2.5, 0, 1)
        if scene.relief == a.HILLY:
            for near, low, high in ((0, 0.14, 0.20), (1, 0.07, 0.12)):
                height = self.draw(low, high) + np.float32(0.12 if wooded else 0)
                rise = self.line(6 + near, sharp=False)
                if scene.climate == a.DRY:  # mesas
                    rise = np.clip((rise - 0.45) * 6, 0, 1) * np.float32(0.85) + np.float32(0.15) * rise
                crest = height[:, None] * (np.float32(0.25) + np.float32(0.85) * rise) * side
                below = self.y - (self.horizon[:, None] - crest)[:, None]
                shade = 1.0 - 0.1 * near + (0.5 if wooded else 0.12) * self.grain
                colour = self.hazy(slope, 0.38 - 0.22 * near)
                colour = colour + (0.5 * self.snowy)[:, None] * (self.white - colour)
                self.paint(soft(below, self.size), colour[:, :, None, None] * shade[:, None])
        if scene.relief == a.MOUNTAINOUS:
            stone = self.colour((0.62, 0.42, 0.32) if scene.climate == a.DRY else (0.40, 0.38, 0.40), 0.05)
            for near, low, high in ((0, 0.30, 0.38), (1, 0.18, 0.28)):
                height = self.draw(low, high) + np.float32(0.08 if wooded else 0)
                self._chain(near, height, side, self.hazy(stone, 0.35 - 0.25 * near), slope)

    def _chain(self, near: int, height: Floats, side: Floats, stone: Floats, slope: Floats) -> None:
        # Summits and saddles in turn, seen through a window that each view shifts.
        summits = next(self.rows)[:, : 8 + 2 * near] * np.float32(0.4)
        summits[:, ::2] += np.float32(0.6)
        wide = _spread(summits, 2 * self.size, sharp=True)
        start = (self.draw(0, 1) * self.size).astype(np.int64)
        peaks = np.take_along_axis(wide, start[:, None] + np.arange(self.size), 1)
        rise = 0.15 + 0.70 * peaks + 0.15 * self.line(17, sharp=True)
        crest = height[:, None] * rise * side
        below = self.y - (self.horizon[:, None] - crest)[:, None]
        # Facets: lit where the crest rises towards the sun; their edges wander down the slope.
        steep = (np.gradient(peaks, axis=1) * np.float32(self.size / 6)).astype(np.float32)
        wander = (self.noise(12, 7) - 0.5) * 20 + np.arange(self.size, dtype=np.float32)
        column = np.clip(wander, 0, self.size - 1).astype(np.int64)
        facet = np.take_along_axis(np.broadcast_to(steep[:, None], below.shape), column, 2)
        facet = np.clip(facet * 1.5, -0.3, 0.3)
        shade = 0.95 + facet + 0.06 * self.grain
        up = (self.horizon[:, None, None] - self.y) / np.maximum(height, 0.01)[:, None, None]
        green = np.clip(0.75 - 2.2 * up, 0, 1)[:, None] * np.float32(0.8)
        colour = stone[:, :, None, None] + green * (slope - stone)[:, :, None, None]
        if self.scene.climate in _SNOW_LINE:
            start = np.float32(_SNOW_LINE[self.scene.climate])
            snow = np.clip((up - start + 0.12 * self.grain + 0.4 * facet) * 9, 0, 0.95)[:, None]
            colour = colour + snow * (self.white[:, :, None, None] * np.float32(0.98) - colour)
            shade = shade + 0.25 * snow[:, 0] * (1.02 - shade)
        blue = np.asarray((1, 1.06, 1.16), np.float32)[:, None, None]
        light = np.minimum(shade, 1)[:, None]
        self.paint(soft(below, self.size), colour * shade[:, None] * (blue + light * (1 - blue)))

    def ground(self) -> None:
        """The ground by cover and climate, with its texture, snow, and the sea in front of the horizon."""
        horizon = self.horizon[:, None, None]
        self.depth = np.clip((self.y - horizon) / (1 - horizon), 0, 1)  # 0 at the horizon, 1 at the feet
        solid = soft(self.y - horizon, self.size)
        patches = self.noise(14, 6, ground=True) - 0.5
        far = np.clip(0.45 - self.depth, 0, 1)[:, None]
        base = self.earth if self.scene.cover != a.WATER else self.sea
        colour = base[:, :, None, None] + far * (self.air - base)[:, :, None, None]
        colour = self._surface(colour, patches)
        self.paint(solid, colour)
        if self.snow_cover and self.scene.cover not in (a.ICE, a.URBAN):
            drifts = np.clip((patches + 0.12 * self.grain + self.snow_cover - 0.5) * 7, 0, 0.93)
            self.paint(solid * drifts * self.snowy[:, None, None], self.white)
        if self.scene.coast and self.scene.cover != a.WATER:
            self._shore()

    def _surface(self, colour: Floats, patches: Floats) -> Floats:
        """The texture of the ground of each cover on its base colour."""
        cover, depth, grain = self.scene.cover, self.depth, self.grain
        distance = 1 / (depth + 0.09)
        across = (self.x - self.draw(0.2, 0.8)[:, None, None]) * distance
        shade = 1 + 0.35 * patches + 0.10 * grain
        streaks = self.streaks()
        extra: list[tuple[Floats, Floats]] = []
        if cover == a.WATER:
            swell = self.noise(16, 6, ground=True) - 0.5
            shade = 1 + (0.55 * streaks + 0.7 * swell) * (0.25 + 0.75 * depth)
            if self.scene.climate == a.POLAR:
                floes = np.clip((patches + 0.4 * swell - self.draw(-0.02, 0.14)[:, None, None]) * 14, 0, 0.95)
                extra.append((floes, self.white))
            else:
                crests = np.clip((streaks + swell - self.draw(1.0, 1.5)[:, None, None]) * 5, 0, 0.8)
                extra.append((crests, self.white))
        elif cover == a.ICE:
            shade = 1 + 0.10 * patches + 0.05 * streaks
            blue = self.colour((0.52, 0.72, 0.88), 0.04)
            for start in (0.05, 0.16, 0.34, 0.66):  # pressure ridges, each with a blue shadow
                crest = start + (0.08 + 0.35 * start) * (self.line(8, sharp=True) - 0.5)
                below = (depth - crest[:, None]) * np.float32(14 - 10 * start)
                extra.append((np.clip((0.9 - below) * 0.8, 0, 0.7) * soft(below, 4), blue))
        elif cover == a.DESERT and self.scene.climate == a.DRY:
            shade = self._dunes(patches)
        elif cover == a.GRASSLAND:
            blades = np.repeat(grain[:, ::5], 5, axis=1)[:, : self.size]
            shade = 1 + 0.4 * patches + 0.45 * blades * (0.2 + depth)
        elif cover == a.TUNDRA:
            moss = np.clip((self.noise(17, 9, ground=True) - 0.5) * 6, 0, 0.8)
            extra.append((moss, self.colour((0.50, 0.24, 0.16), 0.06)))
            extra.append((np.clip((patches - 0.14) * 9, 0, 0.7), self.colour((0.40, 0.46, 0.24), 0.05)))
        elif cover == a.CROPLAND:
            furrows = across * self.draw(2.2, 3.4)[:, None, None]
            furrows = np.abs(furrows - np.floor(furrows) - 0.5) * 4 - 1
            rows = np.clip(furrows * np.minimum(1, 5 * depth) + 0.5, 0, 1)
            ripe = self.draw(0, 1)[:, None]
            green = self.colour((0.28, 0.58, 0.14), 0.04)
            crop = green + np.clip((ripe - 0.5) * 4, 0, 1) * (self.colour((0.86, 0.72, 0.28), 0.04) - green)
            extra.append((rows * np.float32(0.92), crop))
            fields = np.clip((depth - self.draw(0.10, 0.16)[:, None, None]) * -self.size, 0, 1)
            extra.append((fields, self.hazy(self.colour((0.55, 0.64, 0.26), 0.10), 0.15)))
        elif cover == a.WETLAND:
            pools = np.clip((patches + 0.04 + self.draw(-0.05, 0.06)[:, None, None]) * 16, 0, 1)
            pools *= np.clip(depth * 12, 0, 1)
            mirror = self.air * np.float32(0.72) + np.asarray((-0.06, 0.02, 0.08), np.float32)
            extra.append((pools * np.float32(0.9), mirror))
        elif cover == a.URBAN:
            road = soft(0.85 - np.abs(across), self.size / 8)
            extra.append((road, self.colour((0.27, 0.27, 0.29), 0.02)))
            dashes = distance * np.float32(1.6)
            dash = soft(0.06 - np.abs(across), self.size / 4) * ((dashes - np.floor(dashes)) > 0.5)
            extra.append((dash * np.float32(0.8), self.white))
        textured = colour * shade[:, None]
        for opacity, over in extra:
            blend(textured, opacity, over[:, :, None, None])
        return textured

    def _dunes(self, patches: Floats) -> Floats:
        """(B, S, S) light and shadow of chains of dunes, each with a lit and a steep, dark side."""
        shade = 1 + 0.12 * patches
        for start in (0.02, 0.14, 0.32, 0.62):
            phase = self.x * (self.draw(1.0, 1.5) / np.float32(0.45 + start))[:, None, None]
            phase = phase + self.draw(0, 1)[:, None, None]
            along = phase - np.floor(phase)
            rise = np.minimum(along / 0.68, (1 - along) / 0.32) * (0.5 + self.line(5, sharp=False)[:, None])
            below = self.depth - start + (0.06 + 0.24 * start) * (rise - np.float32(0.5))
            slip = phase + below * (self.draw(0.8, 1.6) / np.float32(0.3 + start))[:, None, None]
            slip = slip - np.floor(slip)
            dark = soft(np.minimum(slip - 0.68, 1 - slip), self.size / 4) * np.clip(1.1 - below * 3.5, 0, 1)
            dune = 1.12 - 0.25 * np.clip(below, 0, 1) - 0.42 * dark + 0.05 * self.grain
            shade = shade + soft(below, self.size / 1.5) * (dune - shade)
        return shade

    def _shore(self) -> None:
        """Sea from the horizon to a slanting shoreline, with surf and a beach."""
        towards = either(self.left, 1, -1)  # the sea reaches further on the side away from the hills
        wave = self.line(6, sharp=False) - np.float32(0.5)
        width, slant = self.draw(0.14, 0.24), self.draw(0.10, 0.22)
        shore = (self.horizon + width)[:, None] + (towards * slant)[:, None] * (self.x[0] - np.float32(0.5))
        shore = shore + np.float32(0.05) * wave
        below = self.y - shore[:, None]
        beach = self.draw(0.07, 0.12)[:, None, None]
        cold = self.scene.climate in (a.POLAR, a.COLD)
        sand = self.colour((0.46, 0.44, 0.44) if cold else (0.92, 0.82, 0.60), 0.04)
        self.paint(
            soft(beach - below, self.size) * soft(self.y - self.horizon[:, None, None], self.size), sand
        )
        sea = self.hazy(self.sea, 0.1)[:, :, None, None] * (1 + 0.35 * self.streaks())[:, None]
        wet = soft(-below, self.size) * soft(self.y - self.horizon[:, None, None], self.size)
        self.paint(wet, sea)
        surf = np.maximum(0.018 - np.abs(below), 0.010 - np.abs(below + 0.05 + 0.06 * wave[:, None]))
        surf = soft(surf + 0.02 * self.grain, self.size) * wet.clip(0.0, 1.0)
        self.paint(np.maximum(surf, soft(0.012 - np.abs(below), self.size)) * np.float32(0.9), self.white)
        self.land = np.minimum(shore.max(axis=1) + np.float32(0.05), np.float32(0.85))

    def far_shore(self) -> None:
        """Land on the horizon, where water lies near a coast."""
        if not self.scene.coast:
            return
        towards = np.where(self.left[:, None], 1 - self.x[0], self.x[0])
        rise = np.clip((towards - self.draw(0.2, 0.5)[:, None]) * 4, 0, 1)
        rise = rise * (np.float32(0.05) + np.float32(0.10) * self.line(9, sharp=False))
        below = self.y - (self.horizon[:, None] - rise)[:, None]
        above = (self.horizon + np.float32(0.03))[:, None, None] - self.y
        land = self.white if self.scene.climate == a.POLAR else self.leaf
        shade = 0.8 + 0.5 * self.grain
        opacity = soft(below, self.size) * soft(above, self.size) * (rise > 0.004)[:, None]
        self.paint(opacity, self.hazy(land, 0.2)[:, :, None, None] * shade[:, None])
        beach = opacity * soft(0.03 - np.abs(above - 0.02), self.size)
        cold = self.scene.climate in (a.POLAR, a.COLD)
        self.paint(
            beach * np.float32(0.9), self.colour((0.50, 0.50, 0.52) if cold else (0.90, 0.82, 0.62), 0.03)
        )

    def row(self, shape: sprites.Part, place: float, height: float, density: float, colours: dict[str, Floats], *,
            gap: float = 0.1, unevenness: float = 0.3) -> None:  # fmt: skip
        """A row of objects; place: 0 at the far end of the land, 1 at the feet; height as a share of the view."""
        base = self.land + (np.float32(1.03) - self.land) * np.float32(place) + self.draw(-0.01, 0.01)
        tall = np.float32(height) * self.draw(0.85, 1.25)
        draw_row(self.canvas, next(self.rows), shape, colours, base=base, height=tall, gap=gap, density=density,
                 unevenness=unevenness)  # fmt: skip

    def vegetation(self, *, near: bool) -> None:
        """Trees by forest type and climate, bushes, reeds, grass, boulders; the near ones stand before houses."""
        cover, climate = self.scene.cover, self.scene.climate
        built = self.scene.settlement
        leaf = self.leaf
        snow = leaf * np.float32(1.15)
        snow = snow + self.snowy[:, None] * (self.white - snow)
        colours = {"leaf": leaf, "snow": snow, "trunk": self.colour((0.30, 0.22, 0.15), 0.03),
                   "bole": self.colour((0.66, 0.58, 0.46), 0.04)}  # fmt: skip
        if cover in _HIGH and not near:  # no light between the trunks of the far rows
            below = (
                self.y
                - (self.land[:, None] - np.float32(0.10) + np.float32(0.05) * self.line(19, sharp=True))[
                    :, None
                ]
            )
            above = (self.land + np.float32(0.03))[:, None, None] - self.y
            self.paint(
                soft(below, self.size) * soft(above, self.size), self.hazy(leaf * np.float32(0.6), 0.12)
            )
        if cover in _TREES:
            for shape, place, height, density in _TREES[cover][1]:
                if (place > 0.25) != near:
                    continue
                if near and built:  # a clearing, or the houses would be hidden
                    density *= 0.5
                hazed = {
                    name: self.hazy(colour, max(0, 0.25 - 2 * place)) for name, colour in colours.items()
                }
                self.row(shape, place, height, density, hazed, gap=0.5 if cover == a.SAVANNA else 0.02)
        elif near:
            self._undergrowth(colours)
        elif climate in _LONE and cover not in (a.ICE, a.TUNDRA, a.DESERT):
            shape, height = _LONE[climate]
            self.row(
                shape, 0.04, height, 0.22 if cover in (a.GRASSLAND, a.SHRUBLAND) else 0.45, colours, gap=0.5
            )

    def _undergrowth(self, colours: dict[str, Floats]) -> None:
        cover, climate = self.scene.cover, self.scene.climate
        if cover == a.SHRUBLAND:
            for place in (0.04, 0.12, 0.25, 0.45, 0.75):
                self.row(sprites.bush, place, 0.035 + 0.12 * place, 0.62, colours, gap=0.5)
            if climate == a.DRY:
                self.row(sprites.cactus, 0.3, 0.30, 0.4, colours, gap=0.3)
        elif cover == a.DESERT and climate != a.DRY:
            stone = {**colours, "leaf": self.earth * np.float32(0.72)}
            stone["snow"] = stone["leaf"] * np.float32(1.2)
            for place in (0.08, 0.22, 0.45, 0.78):
                self.row(sprites.bush, place, 0.03 + 0.09 * place, 0.55, stone, gap=0.8, unevenness=0.6)
        elif cover == a.GRASSLAND:
            for place in (0.55, 0.98):
                self.row(sprites.grass, place, 0.06 + 0.10 * place, 0.8, colours)
        elif cover == a.WETLAND:
            for place in (0.15, 0.5, 0.98):
                self.row(sprites.reed, place, 0.10 + 0.24 * place, 0.55, colours)
        elif cover == a.TUNDRA:
            stone = {**colours, "leaf": self.colour((0.5, 0.5, 0.5), 0.05)}
            for place in (0.3, 0.8):
                self.row(sprites.bush, place, 0.02 + 0.05 * place, 0.4, stone, gap=1.2, unevenness=0.6)

    def settlement(self) -> None:
        """Huts or houses of a village, the rows and the steeple of a town, the towers of a city."""
        climate, settlement = self.scene.climate, self.scene.settlement
        if settlement == a.NO_SETTLEMENT:
            return
        shape, wall, roof = _HOUSE[climate]
        if settlement != a.VILLAGE and climate == a.TROPICAL:
            shape, wall, roof = sprites.house, (0.90, 0.80, 0.62), (0.55, 0.36, 0.30)  # tin instead of thatch
        dusk = np.clip(1 - 3 * self.day, 0, 1)[:, None]
        dark = self.colour((0.20, 0.24, 0.32), 0.03)
        tiles = self.colour(roof, 0.06)
        homes = {
            "wall": self.colour(wall, 0.06), "roof": tiles, "door": self.colour((0.28, 0.18, 0.12), 0.04),
            "window": dark + dusk * (self.colour((1.0, 0.85, 0.45)) - dark),
            "snow": tiles + self.snowy[:, None] * (self.white - tiles),
        }  # fmt: skip
        if settlement == a.CITY:
            concrete = self.colour((0.58, 0.60, 0.64), 0.06)
            for k, (place, height) in enumerate(((0.02, 0.42), (0.06, 0.30))):
                towers = {
                    "wall": self.hazy(concrete, 0.45 - 0.35 * k),
                    "window": self.hazy(homes["window"], 0.4 - 0.3 * k),
                }
                self.row(sprites.tower, place, height, 1 - 0.2 * k, towers, gap=0, unevenness=0.6)
            if self.scene.cover == a.URBAN:
                near = {"wall": self.colour((0.56, 0.50, 0.46), 0.08), "window": homes["window"]}
                self.row(sprites.tower, 0.22, 0.55, 0.4, near, gap=0.4)
            else:
                self.row(shape, 0.14, 0.13, 0.8, homes)
        elif settlement == a.TOWN:
            self.row(shape, 0.03, 0.12, 0.95, homes, gap=0)
            if climate != a.DRY:
                self.row(sprites.church, 0.05, 0.34, 0.75, homes, gap=0.5, unevenness=0.2)
            self.row(shape, 0.10, 0.16, 0.9, homes, gap=0)
            self.row(shape, 0.22, 0.22, 0.7, homes, gap=0.05)
        else:
            self.row(shape, 0.10, 0.15, 0.5, homes, gap=0.5)
            self.row(shape, 0.26, 0.23, 0.6, homes, gap=0.6)

    def finished(self) -> NDArray[np.uint8]:
        """The light of the hour over everything, the noise of a camera, and bytes."""
        dusk = np.clip(1 - 2.2 * self.day, 0, 1)[:, None]
        light = 1 + dusk * (np.asarray((0.88, 0.68, 0.60), np.float32) - 1)
        light = light * (1 + self.colour((0, 0, 0), 0.03))
        shot = self.canvas * light[:, :, None, None] + 0.03 * self.grain[:, None]
        return np.rint(np.clip(shot, 0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)


def _spread(values: Floats, size: int, *, sharp: bool) -> Floats:
    """(B, size) interpolated between (B, knots). One product per view: a product of all of them at once may
    round differently with their number."""
    knots = values.shape[1]
    return (np.ascontiguousarray(values)[:, None] @ _weights(size, knots, False, sharp).T)[:, 0]


@lru_cache(maxsize=64)
def _weights(size: int, knots: int, ground: bool, sharp: bool = False) -> Floats:
    """(size, knots) interpolation from knots to pixels; on the ground in perspective."""
    grid = (np.arange(size) + 0.5) / size
    if ground:
        nearness = 1 / (np.maximum(grid - 0.42, 0) + 0.30)
        grid = (nearness - nearness.min()) / (nearness.max() - nearness.min())
    position = grid * (knots - 1)
    left = np.minimum(position.astype(int), knots - 2)
    part = position - left
    if not sharp:
        part = part * part * (3 - 2 * part)
    weights = np.zeros((size, knots), np.float32)
    weights[np.arange(size), left] = 1 - part
    weights[np.arange(size), left + 1] = part
    return weights
