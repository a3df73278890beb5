"""Windows of a georeferenced raster, read by centre and size, whichever way up the raster lies."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geobind.errors import GeoBindError

Bounds = tuple[float, float, float, float]
"""left, bottom, right, top in the units of a coordinate reference system."""


class RasterFile:
    """A raster file with a coordinate reference system, of which windows are read; memory holds one window.

    >>> raster = RasterFile("scene.tif")
    >>> pixels, valid = raster.window(500_000.0, 5_400_000.0, 2_240.0, 2_240.0)   # (224, 224, 3), (224, 224)

    A raster that is rotated or south-up is seen through a warp that turns it north-up. It is opened when
    first used, in each process anew, so it may be sent to loader workers.

    `crs`, `bounds` and `resolution` (units a pixel: x, y) are those of the raster as it is seen.
    Raises GeoBindError for what is no raster, has no CRS, or without rasterio.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._open: Any = None
        raster = self._raster()
        self.crs: str = raster.crs.to_string()
        self.bounds: Bounds = tuple(raster.bounds)
        self.resolution: tuple[float, float] = raster.res[0], raster.res[1]
        alpha = _colours().alpha
        self.bands = [i for i, c in zip(raster.indexes, raster.colorinterp, strict=True) if c != alpha]
        self.dtype: str = raster.dtypes[0]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}

    def window(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        bands: list[int] | None = None,
        most: int | None = None,
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Pixels (H, W, bands) of the rectangle around a point, and which of them are valid (H, W).

        The rectangle is moved by less than half a pixel, to whole ones. What lies outside the raster is
        there, and not valid. `most`: pixels a side at most; a larger window is read averaged, from the
        overviews where the raster has them. `bands` count from 1; all but alpha if not given.
        Raises GeoBindError where the file cannot be read.
        """
        from rasterio.enums import Resampling
        from rasterio.errors import RasterioIOError
        from rasterio.windows import Window

        raster = self._raster()
        columns, rows = (max(1, round(side / r)) for side, r in zip((width, height), raster.res, strict=True))
        left = round((x - raster.bounds.left) / raster.res[0] - columns / 2)
        top = round((raster.bounds.top - y) / raster.res[1] - rows / 2)
        shrink = 1.0 if most is None else max(1.0, max(columns, rows) / most)
        shape = max(1, round(rows / shrink)), max(1, round(columns / shrink))
        indexes = bands or self.bands
        pixels = np.zeros((*shape, len(indexes)), self.dtype)
        valid = np.zeros(shape, bool)
        # The part that lies on the raster, in its pixels and in those of the result.
        inside = [
            max(top, 0),
            min(top + rows, raster.height),
            max(left, 0),
            min(left + columns, raster.width),
        ]
        if inside[0] >= inside[1] or inside[2] >= inside[3]:
            return pixels, valid
        there = [
            round((side - first) / whole * size)
            for side, first, whole, size in zip(
                inside, (top, top, left, left), (rows, rows, columns, columns),
                (shape[0], shape[0], shape[1], shape[1]), strict=True,
            )
        ]  # fmt: skip
        size = there[1] - there[0], there[3] - there[2]
        if 0 in size:
            return pixels, valid
        window = Window(inside[2], inside[0], inside[3] - inside[2], inside[1] - inside[0])
        part = slice(there[0], there[1]), slice(there[2], there[3])
        try:
            read = raster.read(
                indexes, window=window, out_shape=(len(indexes), *size), resampling=Resampling.average
            )
            valid[part] = raster.dataset_mask(window=window, out_shape=size) > 0
        except RasterioIOError as error:
            raise GeoBindError(f"raster {self.path} cannot be read ({error}): copy it again") from None
        pixels[part] = read.transpose(1, 2, 0)
        return pixels, valid

    def _raster(self) -> Any:
        if self._open is None:
            self._open = _north_up(self.path)
        return self._open


def need_rasterio() -> Any:
    """The module rasterio. Raises GeoBindError with the command that installs it."""
    try:
        import rasterio
    except ImportError:
        raise GeoBindError('rasters and maps need rasterio: pip install "geobind[geo]"') from None
    return rasterio


def _colours() -> Any:
    from rasterio.enums import ColorInterp

    return ColorInterp


def open_raster(path: str | Path) -> Any:
    """A raster as rasterio opens it, georeferenced or not; the caller closes it.

    Raises GeoBindError for what is no raster, and without rasterio.
    """
    rasterio = need_rasterio()
    from rasterio.errors import NotGeoreferencedWarning, RasterioIOError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            return rasterio.open(path)
        except RasterioIOError as error:
            raise GeoBindError(
                f"raster {path} cannot be opened ({error}): give a readable GeoTIFF or VRT"
            ) from None


def _north_up(path: str) -> Any:
    raster = open_raster(path)
    from rasterio.vrt import WarpedVRT

    if raster.crs is None:
        raise GeoBindError(
            f"raster {path} has no coordinate reference system: set it with gdal_edit.py -a_srs EPSG:... {path}"
        )
    turn = raster.transform
    if turn.b or turn.d or turn.a < 0 or turn.e > 0:
        # Pixels outside the turned raster have to be told from black ones.
        return WarpedVRT(raster, crs=raster.crs, add_alpha=raster.nodata is None and not _has_alpha(raster))
    return raster


def _has_alpha(raster: Any) -> bool:
    return _colours().alpha in raster.colorinterp
