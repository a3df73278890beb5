"""Imagery: where the tile around a point comes from. Local rasters, located tiles, the miniature Earth."""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geobind.errors import GeoBindError, MediaError, did_you_mean, shorten
from geobind.mapping.area import (
    DEGREES,
    MERCATOR,
    MERCATOR_WORLD,
    METRES_OF_DEGREE,
    project,
    units_of_metre,
)
from geobind.media.images import load_image
from geobind.media.windows import Bounds, RasterFile

EARTH = "earth"
_VALID = 0.5  # share of a tile that has to be there
_KINDS = "a raster (.tif, .vrt), a folder of located tiles, an XYZ template with {z}/{x}/{y}, or `earth`"


class NoImagery(MediaError):
    """There is no picture of this point; its cell has no data."""


class Imagery(ABC):
    """A source of tiles. Objects go to loader workers, so they must be picklable.

    * `crs`, `bounds`: the reference system that its maps have if none is asked for, and what it covers there
      (None: everything);
    * `ground`: metres of a tile's side if none is asked for; None: that depends on the tower, see `sides`;
    * `attribution`: who has to be credited, "" for nobody;
    * `identity`: what a map in work must find unchanged to go on.
    """

    crs: str = DEGREES
    bounds: Bounds | None = None
    ground: float | None = None
    attribution: str = ""
    identity: str = ""

    @abstractmethod
    def tile(self, latitude: float, longitude: float, ground: float, pixels: int) -> NDArray[Any]:
        """(H, W, bands) of the square of `ground` metres around a point (degrees), about `pixels` a side.

        Raises NoImagery where there is none, GeoBindError where it cannot be had.
        """

    def default_ground(self, pixels: int) -> float:
        """Metres of a tile's side: at the source's own resolution, `pixels` of the tower wide."""
        if self.ground is None:
            raise GeoBindError("this imagery has no resolution of its own: give the ground size of a tile")
        return self.ground

    def check(self, channels: int, mean: tuple[float, ...]) -> None:  # noqa: B027  most take what comes
        """Raises GeoBindError where a tower of so many channels cannot take the tiles."""


class RasterImagery(Imagery):
    """A raster or VRT of any CRS, lying any way.

    >>> RasterImagery("sentinel2.tif", bands=[4, 3, 2], stretch=(0, 3000))

    `bands`: which, counted from 1 and in the tower's order; `stretch`: the values that become 0 and 255,
    for a tower of pictures; values stay as they are without. Raises GeoBindError for what is no raster.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        bands: list[int] | None = None,
        stretch: tuple[float, float] | None = None,
        attribution: str = "",
    ) -> None:
        self.raster = RasterFile(path)
        self.crs, self.bounds = self.raster.crs, self.raster.bounds
        self.bands, self.stretch = bands or self.raster.bands, stretch
        if missing := set(self.bands) - set(range(1, max(self.raster.bands) + 1)):
            raise GeoBindError(
                f"raster {path} has {len(self.raster.bands)} bands, not number {min(missing)}: give others"
            )
        if stretch is not None and not stretch[0] < stretch[1]:
            raise GeoBindError(f"stretch {stretch[0]:g},{stretch[1]:g}: give the lower value first")
        self.attribution = attribution
        status = Path(path).stat() if Path(path).exists() else None
        self.identity = f"{path} {status and (status.st_size, status.st_mtime_ns)} {self.bands} {stretch}"

    def tile(self, latitude: float, longitude: float, ground: float, pixels: int) -> NDArray[Any]:
        x, y = self._position(latitude, longitude)
        along, up = units_of_metre(self.crs, latitude, longitude)
        read, valid = self.raster.window(x, y, ground * along, ground * up, bands=self.bands, most=2 * pixels)
        if valid.mean() < _VALID:
            raise NoImagery(f"{self.raster.path} has no pixels around {latitude:.5f}, {longitude:.5f}")
        if self.stretch is not None:
            low, high = self.stretch
            share = (read.astype(np.float32) - low) / (high - low)
            read = np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)
        return fill(read, valid)

    def default_ground(self, pixels: int) -> float:
        centre = (self.bounds[0] + self.bounds[2]) / 2, (self.bounds[1] + self.bounds[3]) / 2  # type: ignore[index]
        longitude, latitude = (float(v) for v in project(*centre, self.crs, DEGREES))
        return pixels * self.raster.resolution[1] / units_of_metre(self.crs, latitude, longitude)[1]

    def check(self, channels: int, mean: tuple[float, ...]) -> None:
        name = self.raster.path
        if len(self.bands) != channels:
            raise GeoBindError(
                f"raster {name} has {len(self.bands)} band{'s' * (len(self.bands) != 1)}, the tower takes {channels}: "
                f"choose them with bands ({','.join(map(str, range(1, channels + 1)))}), or give another raster"
            )
        if mean and max(mean) <= 1 and self.raster.dtype != "uint8" and self.stretch is None:
            raise GeoBindError(
                f"raster {name} holds {self.raster.dtype}, the tower takes pictures of 8 bit: give stretch (LOW,HIGH), "
                f"the values that become black and white, such as 0,3000"
            )

    def _position(self, latitude: float, longitude: float) -> tuple[float, float]:
        """A point in the raster's CRS, on the turn of longitude that the raster lies on."""
        x, y = (float(v) for v in project(longitude, latitude, DEGREES, self.crs))
        left, _, right, _ = self.bounds  # type: ignore[misc]
        world = {DEGREES: 360.0, MERCATOR: MERCATOR_WORLD}.get(self.crs, 0.0)
        if world and not left <= x <= right:
            x = next((moved for moved in (x + world, x - world) if left <= moved <= right), x)
        return x, y


class TileFolder(Imagery):
    """A folder of tiles with their places: `tiles.csv` (file, latitude, longitude), or GeoTIFFs.

    >>> TileFolder("tiles/", reach=800)

    A point has the tile whose centre is nearest, if it is at most `reach` metres away (half of the ground
    size if not given). Raises GeoBindError for a folder without located tiles.
    """

    def __init__(self, folder: str | Path, *, reach: float | None = None) -> None:
        root = Path(folder)
        self.paths, self.latitude, self.longitude = _located(root)
        self.reach = reach
        self.identity = f"{root} {len(self.paths)}"
        rest = self.longitude
        if rest.max() - rest.min() > 180:  # across the date line
            rest = np.where(rest < 0, rest + 360, rest)
        self.bounds = tuple(
            float(v)
            for v in (
                rest.min() - 0.01,
                self.latitude.min() - 0.01,
                rest.max() + 0.01,
                self.latitude.max() + 0.01,
            )
        )  # type: ignore[assignment]

    def tile(self, latitude: float, longitude: float, ground: float, pixels: int) -> NDArray[Any]:
        east = (self.longitude - longitude + 180) % 360 - 180
        apart = np.hypot(self.latitude - latitude, east * np.cos(np.radians(latitude))) * METRES_OF_DEGREE
        best = int(apart.argmin())
        if apart[best] > (ground / 2 if self.reach is None else self.reach):
            raise NoImagery(f"no tile within {apart[best]:.0f} m of {latitude:.5f}, {longitude:.5f}")
        return load_image(self.paths[best])


class EarthImagery(Imagery):
    """The miniature Earth of `geobind demo`: the Blue Marble, in squares of 2 degrees of a great circle."""

    ground = 2 * METRES_OF_DEGREE
    bounds = (-180.0, -90.0, 180.0, 90.0)
    attribution = "NASA Blue Marble"
    identity = EARTH

    def __init__(self) -> None:
        self._world: Any = None
        self._load()

    def __getstate__(self) -> dict[str, Any]:
        return {"_world": None}

    def tile(self, latitude: float, longitude: float, ground: float, pixels: int) -> NDArray[Any]:
        return self._load().tiles(
            [latitude], [longitude], size=pixels, ground_degrees=ground / METRES_OF_DEGREE
        )[0]

    def _load(self) -> Any:
        if self._world is None:
            from geobind.data.earth.world import World

            self._world = World.load()
        return self._world


def open_imagery(
    source: str | Path | Imagery,
    *,
    bands: list[int] | None = None,
    stretch: tuple[float, float] | None = None,
    attribution: str = "",
) -> Imagery:
    """The imagery that a path, an XYZ template or the word `earth` names.

    >>> open_imagery("scene.tif"), open_imagery("tiles/"), open_imagery("https://host/{z}/{x}/{y}.png")

    `bands`, `stretch` are of rasters. Raises GeoBindError for anything else.
    """
    if isinstance(source, Imagery):
        return source
    text = str(source)
    if text == EARTH:
        return EarthImagery()
    if "{" in text or text.startswith(("http://", "https://")):
        from geobind.mapping.xyz import XYZ

        return XYZ(text, attribution=attribution)
    path = Path(text).absolute()  # for processes that run elsewhere
    if path.is_dir():
        return TileFolder(path)
    if not path.exists():
        raise GeoBindError(
            f"imagery {shorten(text)} is not there{did_you_mean(text, [EARTH]) if len(text) < 8 else ''}: give {_KINDS}"
        )
    return RasterImagery(path, bands=bands, stretch=stretch, attribution=attribution)


def fill(pixels: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[Any]:
    """Pixels (H, W, bands) with the invalid ones at the mean of the others, so that they say little; NaN if float."""
    if valid.all():
        return pixels
    filled = pixels.copy()
    if pixels.dtype.kind == "f":
        filled[~valid] = np.nan
    else:
        filled[~valid] = pixels[valid].mean(0).astype(pixels.dtype)
    return filled


def _located(root: Path) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    table = root / "tiles.csv"
    rows: list[tuple[str, float, float]] = []
    if table.exists():
        with table.open(encoding="utf-8", newline="") as file:
            try:
                for row in csv.DictReader(file):
                    rows.append((str(root / row["file"]), float(row["latitude"]), float(row["longitude"])))
            except (KeyError, ValueError, TypeError) as error:
                raise GeoBindError(
                    f"{table} cannot be read ({error}): give columns file, latitude, longitude"
                ) from None
    else:
        for path in sorted([*root.rglob("*.tif"), *root.rglob("*.tiff")]):
            raster = RasterFile(path)
            left, bottom, right, top = raster.bounds
            longitude, latitude = project((left + right) / 2, (bottom + top) / 2, raster.crs, DEGREES)
            rows.append((str(path), float(latitude), float(longitude)))
    if not rows:
        raise GeoBindError(
            f"{root} holds no located tiles: give GeoTIFFs, or tiles.csv (file, latitude, longitude)"
        )
    return [row[0] for row in rows], np.array([row[1] for row in rows]), np.array([row[2] for row in rows])
