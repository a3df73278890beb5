"""Real pictures for the benchmarks of input and training, as published data sets hold them."""

from __future__ import annotations

import io

import numpy as np
import simplejpeg
from PIL import Image

from geobind.data.earth.world import blue_marble

SIDE, QUALITY = 800, 90  # Sat2Cap's side; its tiles are JPEGs
_NORTH, _SOUTH = (
    500,
    2000,
)  # rows of the Blue Marble (5400 x 2700) that are mostly land, without the polar ice


def jpegs(count: int, seed: int = 0) -> list[bytes]:
    """Windows of 800 x 800 pixels of NASA's Blue Marble, at its own resolution, as JPEGs of quality 90 (4:2:0)."""
    marble = simplejpeg.decode_jpeg(blue_marble().read_bytes())
    rng = np.random.default_rng(seed)
    files = []
    for _ in range(count):
        top, left = rng.integers(_NORTH, _SOUTH - SIDE), rng.integers(0, marble.shape[1] - SIDE)
        file = io.BytesIO()
        Image.fromarray(marble[top : top + SIDE, left : left + SIDE]).save(file, "JPEG", quality=QUALITY)
        files.append(file.getvalue())
    return files
