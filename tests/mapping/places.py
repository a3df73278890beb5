"""Rasters whose colours say where they are, and a space whose embeddings are the mean colours of tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.transform import Affine

from geobind import GeoBind, Query, Term, Tower, register
from geobind.mapping.area import DEGREES
from geobind.mapping.imagery import Imagery, NoImagery
from geobind.media.images import ImageTransform
from geobind.towers.pixels import PixelProcessor

AXES = {name: Query([Term("vector", np.eye(3)[i])]) for i, name in enumerate("rgb")}
SQUARE = (1000.0, 2000.0, 1960.0, 2960.0)  # offsets in metres, of the rasters in projected systems
UTM = "EPSG:32601"  # its west edge lies on the date line


@register("colour")
class Colour(Tower):
    """The mean colour."""

    def __init__(self, modality: str = "satellite", size: int = 8) -> None:
        transform = ImageTransform(size, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        super().__init__(modality, width=3, processor=PixelProcessor(modality, transform))
        self.scale = torch.nn.Parameter(torch.ones(1))

    def encode(self, pixels):
        return self.scale * pixels.mean((2, 3)) + 1e-6


def colour_space() -> GeoBind:
    return GeoBind(3, [Colour()])


def write_raster(path: Path, crs: str | None, transform: Affine, side: int = 96, **options) -> Path:
    """RGB: red is x and green y over the square of the transform's pixels (0 to 250), blue 250."""
    columns, rows = np.meshgrid(np.arange(side) + 0.5, np.arange(side) + 0.5)
    x, y = (
        transform @ (columns.ravel(), rows.ravel())
        if hasattr(transform, "__matmul__")
        else transform * (columns, rows)
    )
    x, y = np.reshape(x, (side, side)), np.reshape(y, (side, side))
    corners = np.array([transform * c for c in ((0, 0), (side, 0), (0, side), (side, side))])
    (left, bottom), (right, top) = corners.min(0), corners.max(0)
    red, green = (x - left) / (right - left) * 250, (y - bottom) / (top - bottom) * 250
    pixels = np.stack([red, green, np.full_like(red, 250)]).round()
    dtype = options.pop("dtype", "uint8")
    count = options.pop("count", 3)
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=count, dtype=dtype, crs=crs,
        transform=transform, **options,
    ) as file:  # fmt: skip
        file.write(pixels[:count].astype(dtype))
    return path


def north_up(path: Path, crs: str, left: float, top: float, pixel: float, side: int = 96, **options) -> Path:
    return write_raster(path, crs, Affine(pixel, 0, left, 0, -pixel, top), side, **options)


class Spy(Imagery):
    """In place of imagery: remembers what it is asked, and answers with a colour of the place."""

    ground = 1000.0
    identity = "spy"

    def __init__(self, crs: str = DEGREES, hole=None) -> None:
        self.crs, self.asked, self.hole = crs, [], hole

    def tile(self, latitude, longitude, ground, pixels):
        self.asked.append((latitude, longitude))
        if self.hole is not None and self.hole(latitude, longitude):
            raise NoImagery("a hole")
        colour = [(latitude * 37) % 1 * 200, (longitude * 53) % 1 * 200, 50]
        return np.full((pixels, pixels, 3), colour, np.uint8)
