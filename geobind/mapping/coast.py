"""Coastlines of the miniature Earth."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from geobind.data.earth.world import World

_STEP = 0.25  # degrees


def coastlines(world: World) -> list[NDArray[np.float64]]:
    """Lines (n, 2) of longitude, latitude: where the distance to the coast changes its sign; islets are left out."""
    from contourpy import LineType, contour_generator

    latitude = 90 - (np.arange(round(180 / _STEP)) + 0.5) * _STEP
    longitude = (np.arange(round(360 / _STEP)) + 0.5) * _STEP - 180
    both = np.meshgrid(latitude, longitude, indexing="ij")
    km = world.coast_distance(both[0].ravel(), both[1].ravel()).reshape(both[0].shape)
    generator = contour_generator(longitude, latitude, km, line_type=LineType.Separate)
    return [line for line in cast("list[NDArray]", generator.lines(0)) if len(line) > 8]
