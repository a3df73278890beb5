"""A batch of SIMULATED views while they are painted: their random numbers, colours and noise."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geobind.data.earth import attributes as a
from geobind.data.earth.attributes import Scene

Floats = NDArray[np.floating[Any]]  # single precision throughout
RGB = tuple[float, float, float]

CELLS = 64  # of a row of trees or houses, at most
_STREAM = 1  # keeps the random numbers of views apart from those of sounds with the same seed
_SCALARS = 128  # single random numbers of a view
_ROWS, _ROW_NUMBERS = 20, 2 + 3 * CELLS  # and rows of them
_NOISES, _KNOTS = 6, 19  # and fields of smooth noise, with their knots both ways

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

# Wooded cover: its leaves
_LEAVES: dict[int, RGB] = {
    a.RAINFOREST: (0.07, 0.34, 0.10),
    a.CONIFER_FOREST: (0.10, 0.26, 0.18),
    a.BROADLEAF_FOREST: (0.27, 0.45, 0.14),
    a.SAVANNA: (0.34, 0.42, 0.14),
}
FORESTS = (a.RAINFOREST, a.CONIFER_FOREST, a.BROADLEAF_FOREST)  # forests that hide what stands behind them

# How far the ground, leaves and water take on the real colour of the place, as it looks in daylight
_TONE_SHARE = 0.6
_DAYLIGHT = 0.6  # power that lifts the dark colours of the Blue Marble

# Relief: where the horizon lies, lower where mountains need room above it
_HORIZON: dict[int, tuple[float, float]] = {
    a.FLAT: (0.38, 0.54),
    a.HILLY: (0.42, 0.55),
    a.MOUNTAINOUS: (0.48, 0.58),
}

# Climate: the share of views with snow on the ground, the share of the ground it covers then
_SNOW: dict[int, tuple[float, float]] = {a.POLAR: (1.0, 0.70), a.COLD: (0.6, 0.62)}


def soft(distance: Floats, px: Floats | float) -> Floats:
    """Opacity of a shape from the distance inside its edge: one pixel wide, against stair-steps."""
    return np.clip(distance * px + np.float32(0.5), 0, 1)


def either(condition: NDArray[np.bool_], yes: float, no: float) -> Floats:
    """np.where that stays single precision."""
    return np.where(condition, np.float32(yes), np.float32(no))


def blend(canvas: Floats, opacity: Floats, colour: Floats) -> None:
    """Paint colour (B, 3, 1, 1) or (B, 3, H, W) with opacity (B, H, W) over canvas (B, 3, H, W), in place."""
    change = colour - canvas
    change *= opacity[:, None]
    canvas += change


class Canvas:
    """B views of one scene in the making; every random number comes from the view's own seed.

    pixels: (B, 3, S, S) RGB 0..1. horizon, day (0 dusk to 1 noon), snowy (0 or 1): (B,). air, earth, leaf,
    sea, white: (B, 3) colours. land: (B,) where the rows of trees and houses begin. left: (B,) on which
    side of a coast the land is high. x, y: coordinates of the pixels, 0..1.
    depth: (B, S, 1) 0 at the horizon to 1 at the feet. grain: (B, S, S) around 0.
    """

    def __init__(self, seeds: Sequence[int], scene: Scene, size: int) -> None:
        shares = np.cumsum((_SCALARS, _ROWS * _ROW_NUMBERS, _NOISES * _KNOTS**2))
        numbers = np.stack([
            np.random.default_rng([_STREAM, seed]).random(shares[-1] + size * size, np.float32)
            for seed in seeds
        ])  # fmt: skip
        scalars, rows, knots, grain = np.split(numbers, shares, axis=1)
        self._scalars = iter(scalars.T)
        self._knots = iter(knots.reshape(-1, _NOISES, _KNOTS, _KNOTS).swapaxes(0, 1))
        self._rows = iter(rows.reshape(-1, _ROWS, _ROW_NUMBERS).swapaxes(0, 1))
        self.grain = grain.reshape(-1, size, size) - np.float32(0.5)
        self.scene, self.size, self.count = scene, size, len(seeds)
        grid = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
        self.x, self.y = grid[None, None, :], grid[None, :, None]

        self.horizon = self.draw(*_HORIZON[scene.relief])
        horizon = self.horizon[:, None, None]
        self.depth = np.clip((self.y - horizon) / (1 - horizon), 0, 1)
        self.day = np.sqrt(self.draw(0, 1))
        snow, self.snow_cover = _SNOW.get(scene.climate, (0.0, 0.0))
        if scene.cover == a.WATER:
            snow = 0.0
        self.snowy = (self.draw(0, 1) < snow).astype(np.float32)
        self.earth = self._tinted(_GROUND[scene.cover])
        self.leaf = self.colour(_LEAVES.get(scene.cover, _LEAF[scene.climate]), 0.05)
        if scene.cover in _LEAVES:
            self.leaf = self.leaf + np.float32(0.25) * (self.colour(_LEAF[scene.climate]) - self.leaf)
        self.white = self.colour((0.93, 0.95, 0.98), 0.02)
        self.sea = self.colour(_SEA[scene.climate], 0.04)
        tone = (np.asarray(a.TONES[scene.tone], np.float32) / 255) ** np.float32(_DAYLIGHT)
        if scene.cover == a.WATER:
            self.sea = self.sea + np.float32(_TONE_SHARE) * (tone - self.sea)
        self.earth = self.earth + np.float32(_TONE_SHARE) * (tone - self.earth)
        if scene.tone not in (a.GREY, a.WHITE):  # leaves are never as pale as snow or salt
            self.leaf = self.leaf + np.float32(_TONE_SHARE / 2) * (tone - self.leaf)
        self.air = self.white
        self.land = self.horizon
        self.left = self.draw(0, 1) < 0.5
        self.pixels = np.zeros((self.count, 3, size, size), np.float32)

    def draw(self, low: float, high: float) -> Floats:
        """(B,) uniform random numbers."""
        return np.float32(low) + np.float32(high - low) * next(self._scalars)

    def numbers(self) -> Floats:
        """(B, 2 + 3 * CELLS) uniform random numbers, for a line or a row of objects."""
        return next(self._rows)

    def colour(self, rgb: RGB, jitter: float = 0.0) -> Floats:
        """(B, 3) a colour, each view's own shade of it."""
        shades = np.broadcast_to(np.asarray(rgb, np.float32), (self.count, 3))
        if not jitter:
            return shades
        hue = np.stack([self.draw(-jitter, jitter) for _ in range(3)], 1) * np.float32(0.6)
        return shades + hue + self.draw(-jitter, jitter)[:, None]

    def _tinted(self, rgb: RGB) -> Floats:
        """(B, 3) a colour of the ground, as the climate changes it."""
        tint, strength = _TINT[self.scene.climate]
        if self.scene.cover in (a.ICE, a.URBAN, a.WATER, *FORESTS):
            strength *= 0.25
        mixed = tuple(c + strength * (t - c) for c, t in zip(rgb, tint, strict=True))
        return self.colour((mixed[0], mixed[1], mixed[2]), 0.05)

    def hazy(self, colour: Floats, strength: float) -> Floats:
        """A colour seen through air: mixed with the sky at the horizon."""
        return colour + np.float32(strength) * (self.air - colour)

    def noise(self, rows: int, columns: int, *, ground: bool = False) -> Floats:
        """(B, S, S) smooth random numbers around 0.5; on the ground finer towards the horizon."""
        down = spread(
            next(self._knots)[:, :rows, :columns].swapaxes(1, 2), self.size, sharp=False, ground=ground
        )
        return spread(down.swapaxes(1, 2), self.size, sharp=False)

    def line(self, knots: int, *, sharp: bool) -> Floats:
        """(B, S) a random line from left to right, 0 to 1."""
        return spread(self.numbers()[:, :knots], self.size, sharp=sharp)

    def streaks(self) -> Floats:
        """(B, S, S) the grain drawn out sideways, around 0: waves, wind-packed snow."""
        pairs = self.grain + np.roll(self.grain, 1, 2)
        return pairs + np.roll(pairs, 2, 2)

    def paint(self, opacity: Floats, colour: Floats) -> None:
        """Cover the views with a colour, (B, 3) or (B, 3, S, S), where opacity (B, S, S) says."""
        blend(self.pixels, opacity, colour[:, :, None, None] if colour.ndim == 2 else colour)

    def finished(self) -> NDArray[np.uint8]:
        """The light of the hour over everything, the noise of a camera, and bytes."""
        dusk = np.clip(1 - 2.2 * self.day, 0, 1)[:, None]
        light = 1 + dusk * (np.asarray((0.88, 0.68, 0.60), np.float32) - 1)
        light = light * (1 + self.colour((0, 0, 0), 0.03))
        shot = self.pixels * light[:, :, None, None] + 0.03 * self.grain[:, None]
        return np.rint(np.clip(shot, 0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)


def spread(values: Floats, size: int, *, sharp: bool, ground: bool = False) -> Floats:
    """(..., size) interpolated between (..., knots); not by a matrix product, whose last bit depends on the
    processor and on the number of rows."""
    left, part = _between(size, values.shape[-1], sharp, ground)
    start = values[..., left]
    rise = values[..., left + 1]
    rise -= start
    rise *= part
    rise += start
    return rise


@lru_cache(maxsize=64)
def _between(size: int, knots: int, sharp: bool, ground: bool) -> tuple[NDArray[np.int64], Floats]:
    """The knot before each pixel and how far beyond it the pixel lies; on the ground in perspective."""
    grid = (np.arange(size) + 0.5) / size
    if ground:
        nearness = 1 / (np.maximum(grid - 0.42, 0) + 0.30)
        grid = (nearness - nearness.min()) / (nearness.max() - nearness.min())
    position = grid * (knots - 1)
    left = np.minimum(position.astype(np.int64), knots - 2)
    part = position - left
    if not sharp:
        part = part * part * (3 - 2 * part)
    return left, part.astype(np.float32)
