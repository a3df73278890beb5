"""Georeferenced rasters: where they lie, and big ones as tiles, read window by window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geobind.errors import GeoBindError, MediaError
from geobind.media.windows import open_raster

TIFF = (".tif", ".tiff", ".gtiff")


@dataclass(frozen=True, eq=False)
class Windows(Sequence[bytes]):
    """A raster as square tiles, each the bytes of a GeoTIFF such as the tile alone would be.

    >>> tiles = Windows("scene.tif", 256)
    >>> len(tiles), tiles.names([0]), tiles.corners([0]).shape
    (1600, ['scene.tif#0,0,256,256'], (1, 4, 2))

    Tiles stand side by side; the last of a row or column is moved in, so that all are of one size and no
    pixel is left out. Only one window is in memory, whatever the size of the raster.
    Raises GeoBindError for a file that is no raster, MediaError for a tile without a valid pixel.
    """

    path: str
    tile: int

    def __post_init__(self) -> None:
        with open_raster(self.path) as raster:
            sides = raster.height, raster.width
        for name, side in zip(("tops", "lefts"), sides, strict=True):
            object.__setattr__(self, name, _starts(side, self.tile))
        object.__setattr__(self, "shape", tuple(min(side, self.tile) for side in sides))

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)  # type: ignore[attr-defined]

    def window(self, position: int) -> tuple[int, int, int, int]:
        """(left, top, width, height) in pixels."""
        row, column = divmod(position, len(self.lefts))  # type: ignore[attr-defined]
        height, width = self.shape  # type: ignore[attr-defined]
        return self.lefts[column], self.tops[row], width, height  # type: ignore[attr-defined]

    def __getitem__(self, position: int) -> bytes:  # type: ignore[override]
        from rasterio.enums import ColorInterp
        from rasterio.io import MemoryFile
        from rasterio.windows import Window

        window = Window(*self.window(range(len(self))[position]))
        with open_raster(self.path) as raster:
            bands = [
                i
                for i, colour in zip(raster.indexes, raster.colorinterp, strict=True)
                if colour != ColorInterp.alpha
            ]
            if not raster.dataset_mask(window=window).any():
                raise MediaError(f"tile {self.names([position])[0]} has no valid pixel")
            profile = {
                "driver": "GTiff", "count": len(bands), "dtype": raster.dtypes[0], "nodata": raster.nodata,
                "width": window.width, "height": window.height, "crs": raster.crs,
                "transform": raster.window_transform(window), "photometric": "RGB" if len(bands) == 3 else "MINISBLACK",
            }  # fmt: skip
            pixels = raster.read(bands, window=window)
        with MemoryFile() as memory:
            with memory.open(**profile) as file:
                file.write(pixels)
            return memory.read()

    def names(self, positions: Sequence[int]) -> list[str]:
        """Sources of some tiles: the path and left, top, width, height in pixels."""
        return [f"{self.path}#{','.join(map(str, self.window(i)))}" for i in positions]

    def corners(self, positions: Sequence[int]) -> NDArray[np.float64] | None:
        """(n, 4, 2): longitude, latitude of the corners of some tiles; None where the raster is not georeferenced."""
        windows = np.array([self.window(i) for i in positions], np.float64).reshape(-1, 4)
        with open_raster(self.path) as raster:
            return _corners(raster, windows)


def footprint(path: str | Path) -> NDArray[np.float64] | None:
    """(4, 2): longitude, latitude of the corners of a TIFF; None for one that says nothing of its place."""
    try:
        with open_raster(path) as raster:
            found = _corners(raster, np.array([[0, 0, raster.width, raster.height]], np.float64))
    except GeoBindError:  # unreadable, or no rasterio: reading it as an image will tell
        return None
    return None if found is None else found[0]


def centres(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 2): latitude, longitude of the middle of corners (n, 4, 2), also across the date line."""
    longitude = corners[..., 0]
    longitude = longitude[..., :1] + (longitude - longitude[..., :1] + 180) % 360 - 180
    middle = (longitude.mean(-1) + 180) % 360 - 180
    return np.stack([corners[..., 1].mean(-1), middle], axis=-1)


def polygons(corners: NDArray[np.float64]) -> list[bytes]:
    """Footprints (n, 4, 2) as WKB polygons, a ring from the north-west corner clockwise."""
    import shapely

    return list(shapely.to_wkb(shapely.polygons(corners)))


def is_big(path: Path, tile: int) -> bool:
    """Whether a TIFF is larger than one tile."""
    with open_raster(path) as raster:
        return max(raster.height, raster.width) > tile


def _starts(side: int, tile: int) -> list[int]:
    starts = list(range(0, max(side - tile, 0) + 1, tile))
    if starts[-1] + tile < side:
        starts.append(side - tile)
    return starts


def _corners(raster: Any, windows: NDArray[np.float64]) -> NDArray[np.float64] | None:
    from rasterio.transform import xy
    from rasterio.warp import transform

    if raster.crs is None:
        return None
    left, top, width, height = windows.T
    columns = np.stack([left, left + width, left + width, left], axis=1)
    rows = np.stack([top, top, top + height, top + height], axis=1)
    x, y = xy(raster.transform, rows.ravel(), columns.ravel(), offset="ul")
    longitude, latitude = transform(raster.crs, "EPSG:4326", x, y)
    return np.stack([longitude, latitude], axis=1).reshape(-1, 4, 2)
