"""Rows of trees, bushes and buildings, drawn into many simulated views at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from geobind.data.earth.canvas import CELLS, Floats, blend, either, soft

_GOLDEN = np.float32(0.618034)


class Part(Protocol):
    """A shape: parts of one object, back to front.

    Called with s (across, 0 in the middle), v (up, 0 at the foot, 1 at the top), both in units of the
    object's height; px, the pixels in that unit; t (0..1), a random number of the object. It yields
    (opacity, name of the colour, brightness) of each part.
    """

    def __call__(
        self, s: Floats, v: Floats, px: Floats, t: Floats
    ) -> Iterator[tuple[Floats, str, Floats | float]]: ...


def draw_row(
    canvas: Floats,
    numbers: Floats,
    shape: Part,
    colours: dict[str, Floats],
    *,
    base: Floats,
    height: Floats,
    gap: float,
    density: float,
    unevenness: float,
) -> None:
    """Stand a row of objects of one shape into views, in place.

    canvas: (B, 3, S, S) RGB 0..1. numbers: (B, 2 + 3 * CELLS) uniform random numbers, all the variation there is.
    colours: part to (B, 3). base, height: (B,) where the feet stand and how tall the objects are, as shares
    of the picture, y downwards. gap: room between neighbours, in widths. density: the share of the places
    that is taken, evenly enough that a row is never empty by chance. unevenness: the smallest are shorter
    than the tallest by this share.
    """
    size = canvas.shape[-1]
    grid = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    pitch = height * np.float32(WIDTHS[shape] * (1 + gap))
    position = grid / pitch[:, None] + numbers[:, :1]
    cell = np.floor(position)
    lookup = np.minimum(cell, CELLS - 1).astype(np.int64)
    shrunk, shift, t = (
        np.take_along_axis(numbers[:, 2 + k * CELLS : 2 + (k + 1) * CELLS], lookup, 1) for k in range(3)
    )
    taken = numbers[:, 1:2] + cell * _GOLDEN
    taken = ((taken - np.floor(taken)) < density).astype(np.float32)
    tallness = height[:, None] * (1 - np.float32(unevenness) * shrunk)
    # Objects move within their cell only, so that none is cut at its edge.
    across = position - cell - np.float32(0.5) + (shift - np.float32(0.5)) * np.float32(gap / (1 + gap))
    across *= pitch[:, None]
    # Outside these rows of pixels every opacity is exactly 0: leaving them out changes nothing.
    top = max(0, int((float(base.min()) - float(height.max())) * size) - 2)
    bottom = min(size, int(float(base.max()) * size) + 2)
    if bottom <= top:
        return
    px = (tallness * size)[:, None, :]
    s = (across / tallness)[:, None, :]
    v = (base[:, None, None] - grid[None, top:bottom, None]) / tallness[:, None, :]
    inside = soft(v, px)
    inside *= soft(1 - v, px)
    inside *= taken[:, None, :]
    view = canvas[:, :, top:bottom]
    for opacity, name, brightness in shape(s, v, px, t[:, None, :]):
        colour = colours[name][:, :, None, None]
        if isinstance(brightness, np.ndarray):
            colour = colour * brightness[:, None]
        elif brightness != 1.0:
            colour = colour * np.float32(brightness)
        blend(view, opacity * inside, colour)


def conifer(s: Floats, v: Floats, px: Floats, t: Floats) -> Iterator[tuple[Floats, str, Floats | float]]:
    """A spruce: a dark cone in tiers."""
    side = np.abs(s)
    yield soft(0.04 - side, px) * (v < 0.2), "trunk", 1.0
    tier = v * 4
    tier -= np.floor(tier)
    half = (1 - v) * (0.31 - 0.10 * tier)
    opacity = soft(half - side, px) * (v > 0.1)
    yield opacity, "leaf", 1.1 - 0.9 * s - 0.25 * (1 - tier) + 0.4 * (t - 0.5)
    yield opacity * ((tier < 0.45) & (s < 0.04)), "snow", 1.0


def broadleaf(s: Floats, v: Floats, px: Floats, t: Floats) -> Iterator[tuple[Floats, str, Floats | float]]:
    """An oak: a round crown on a trunk."""
    yield soft(0.05 - np.abs(s), px) * (v < 0.4), "trunk", 1.0
    up = v - 0.64
    reach = np.sqrt(s * s + up * up * 1.1)
    opacity = soft(0.36 - reach, px)
    yield opacity, "leaf", 0.95 + 0.9 * up - 0.7 * s + 0.5 * (t - 0.5)
    yield opacity * (up > 0.16), "snow", 1.0


def jungle(s: Floats, v: Floats, px: Floats, t: Floats) -> Iterator[tuple[Floats, str, Floats | float]]:
    """An emergent tree of the rainforest: a pale straight bole under a wide, low crown."""
    yield soft(0.03 - np.abs(s), px) * (v < 0.7), "bole", 1.0
    up = v - 0.74
    reach = np.sqrt(s * s * 0.40 + up * up)
    yield soft(0.26 - reach, px), "leaf", 0.92 + 1.4 * up - 0.7 * s + 0.8 * (t - 0.5)


def palm(s: Floats, v: Floats, px: Floats, t: Floats) -> Iterator[tuple[Floats, str, Floats | float]]:
    """A coconut palm: a leaning thin trunk with drooping fronds."""
    s = s - (t - 0.5) * 0.3 * v * v
    yield soft(0.05 - np.abs(s), px) * (v < 0.8), "bole", 0.75
    side = np.abs(s)
    up = v - 0.78
    square = side * side
    arcs = np.abs(up - side * 1.0 + 2.6 * square)
    for rise, droop in ((0.25, 1.9), (-0.45, 1.6)):
        arcs = np.minimum(arcs, np.abs(up - side * rise + droop * square))
    yield soft(np.minimum(0.065 - arcs * 0.8, 0.42 - side), px), "leaf", 1.1 + 0.6 * up


def acacia(s: Floats, v: Floats, px: Floats, t: Floats) -> Iterator[tuple[Floats, str, Floats | float]]:
    """An umbrella thorn: a flat wide crown on forked branches."""
    side = np.abs(s)
    fork = np.abs(side - np.maximum(v - 0.25, 0) * 0.5)
    yield soft(0.04 - fork, px) * (v < 0.8), "trunk", 1.0
    up = v - 0.78
    yield soft(0.6 - np.sqrt(s * s + up * up * either(up > 0, 8, 60)), px), "leaf", 1.0 + 1.6 * up - 0.3 * s


def bush(s: Floats, v: Floats, px: Floats, t: Floats) -> Iterator[tuple[Floats, str, Floats | float]]:
    """A round bush, or a boulder."""
    opacity = soft(0.75 - np.sqrt(s * s + v * v * 0.6), px)
    yield opacity, "leaf", 0.7 + 0.6 * v - 0.4 * s + 0.5 * (t - 0.5)
    yield opacity * (v > 0.6), "snow", 1.0


def cactus(s: Floats, v: Floats, px: Floats, t: Floats) -> Iterator[tuple[Floats, str, Floats | float]]:
    """A column with two raised arms."""
    side = np.abs(s)
    low = either(s > 0, 0.35, 0.5)
    arm = np.minimum(0.07 - np.abs(side - 0.27), np.minimum(v - low, 0.8 - v))
    elbow = np.minimum(0.06 - np.abs(v - low - 0.05), 0.3 - side)
    yield soft(np.maximum(np.maximum(0.1 - side, arm), elbow), px), "leaf", 1.0 - 1.5 * s


def reed(s: Floats, v: Floats, px: Floats, t: Floats) -> Iterator[tuple[Floats, str, Floats | float]]:
    """A stalk with a brown head (bulrush), bent by the wind."""
    s = s - (t - 0.5) * 0.4 * v * v
    side = np.abs(s)
    yield soft((1 - v) * 0.05 + 0.012 - side, px), "leaf", 0.8 + 0.4 * v + 0.4 * (t - 0.5)
    yield soft(0.05 - side, px) * ((v > 0.7) & (v < 0.92)), "trunk", 0.9


def grass(s: Floats, v: Floats, px: Floats, t: Floats) -> Iterator[tuple[Floats, str, Floats | float]]:
    """A tuft of three blades."""
    side = np.abs(np.abs(s) - v * (0.16 + 0.2 * t))
    blade = np.minimum(side, np.abs(s - 0.1 * (t - 0.5)))
    yield soft((1 - v) * 0.09 - blade, px), "leaf", 0.75 + 0.55 * v


def house(s: Floats, v: Floats, px: Floats, t: Floats) -> Iterator[tuple[Floats, str, Floats | float]]:
    """A house with a pitched roof, a door and two windows."""
    side = np.abs(s)
    yield soft(0.52 - side, px) * (v < 0.56), "wall", 1.0 + 0.25 * (t - 0.5) - 0.25 * s
    yield soft(0.07 - np.abs(side - 0.28), px) * ((v > 0.22) & (v < 0.42)), "window", 1.0
    yield soft(0.08 - side, px) * (v < 0.34), "door", 1.0
    roof = soft((1 - v) * 1.3 + 0.06 - side, px) * (v > 0.52) * (side < 0.64)
    yield roof, "roof", 1.0 + 0.4 * (t - 0.5) - 0.3 * s
    yield roof * (v > 0.6), "snow", 1.0


def hut(s: Floats, v: Floats, px: Floats, t: Floats) -> Iterator[tuple[Floats, str, Floats | float]]:
    """A round hut under a cone of thatch."""
    side = np.abs(s)
    yield soft(0.42 - side, px) * (v < 0.5), "wall", 1.05 - 0.7 * s
    yield soft(0.1 - side, px) * (v < 0.38), "door", 1.0
    yield soft((1 - v) * 1.15 - side, px) * (v > 0.44), "roof", 1.05 - 0.5 * s + 0.3 * (t - 0.5)


def adobe(s: Floats, v: Floats, px: Floats, t: Floats) -> Iterator[tuple[Floats, str, Floats | float]]:
    """A mud-brick house with a flat roof; some have a dome."""
    side = np.abs(s)
    top = either(t > 0.5, 0.75, 0.55)
    dome = soft(0.28 - np.sqrt(s * s + (v - top) * (v - top)), px) * (t > 0.7)
    box = soft(np.minimum(0.55 - side, top - v), px)
    yield np.maximum(box, dome), "wall", 1.05 - 0.5 * s
    yield soft(np.minimum(0.08 - np.abs(side - 0.3), 0.1 - np.abs(v - 0.36)), px), "window", 1.0
    yield soft(np.minimum(0.09 - side, 0.3 - v), px), "door", 1.0


def tower(s: Floats, v: Floats, px: Floats, t: Floats) -> Iterator[tuple[Floats, str, Floats | float]]:
    """A block of flats or offices: rows of windows."""
    half = 0.16 + 0.1 * t
    body = soft(half - np.abs(s), px)
    yield body, "wall", 0.8 + 0.6 * t - 1.2 * s
    # Three pixels from window to window, whatever the size: fewer would be a grey blur.
    floors, columns = v * px / 3, (s + half) * px / 3
    lit = ((floors - np.floor(floors)) > 0.5) & ((columns - np.floor(columns)) > 0.45) & (v < 0.94)
    yield body * lit, "window", 1.0


def church(s: Floats, v: Floats, px: Floats, t: Floats) -> Iterator[tuple[Floats, str, Floats | float]]:
    """A steeple and a nave."""
    s = s + 0.3
    side = np.abs(s)
    nave = np.minimum(0.48 - np.abs(s - 0.5), 0.38 - v - 0.2 * np.abs(s - 0.5))
    yield soft(nave, px), "wall", 0.9
    yield soft(np.minimum(0.12 - side, 0.62 - v), px), "wall", 1.0 - 0.8 * s
    yield soft((1 - v) * 0.4 - side, px) * (v > 0.58), "roof", 1.0 - 0.6 * s


WIDTHS: dict[Part, float] = {
    conifer: 0.60, broadleaf: 0.75, jungle: 0.84, palm: 0.90, acacia: 1.20, bush: 1.50, cactus: 0.72, reed: 0.34,
    grass: 0.56, house: 1.28, hut: 1.16, adobe: 1.12, tower: 0.54, church: 1.40,
}  # fmt: skip
"""Of each shape, in heights."""
