"""Imagery: where the tile around a point comes from. Local rasters, located tiles, the miniature Earth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geobind.errors import GeoBindError, MediaError, did_you_mean, shorten
from geobind.mapping.area import (
    DEGREES,
    METRES_OF_DEGREE,
    Area,
    narrowest,
    project,
    project_bounds,
    units_of_metre,
    world_width,
)
from geobind.mapping.nearest import Nearest
from geobind.media.images import load_image
from geobind.media.windows import Bounds, RasterFile

EARTH = "earth"
GALLERY = "gallery.lance"  # the folder of a gallery's table
_VALID = 0.5  # share of a tile that has to be there
_KINDS = "a raster (.tif, .vrt), a folder of located tiles, a gallery, an XYZ template with {z}/{x}/{y}, a search stac:URL?collection=NAME, or `earth`"
_LOCATED = "give GeoTIFFs, pictures named LAT_LON.jpg, or tiles.csv (file, latitude, longitude)"


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

    def area(self, asked: str | Path | tuple[float, float, float, float] | Area | None) -> Area:
        """The area asked for (see `Area.parse`), all of the imagery for None. Raises GeoBindError for one outside."""
        if self.bounds is None:
            if asked is None:
                raise GeoBindError(
                    "this imagery covers the whole Earth: give an area, such as 2.2,48.8,2.5,49.0"
                )
            return Area.parse(asked)
        if asked is None:
            return Area(self.bounds, self.crs)
        area = Area.parse(asked)
        there, here = (
            project_bounds(bounds, crs, DEGREES)
            for bounds, crs in ((self.bounds, self.crs), (area.bounds, area.crs))
        )
        if max(there[1], here[1]) < min(there[3], here[3]) and any(
            max(there[0], here[0] + turn) < min(there[2], here[2] + turn) for turn in (-360, 0, 360)
        ):
            return area
        raise GeoBindError(
            f"the area ({', '.join(f'{v:g}' for v in here)}) lies outside the imagery "
            f"({', '.join(f'{v:g}' for v in there)} in degrees): give west,south,east,north within it"
        )

    def over(self, area: Area) -> Imagery:
        """The imagery as it is over an area: where it has to be searched for, that is done here."""
        return self

    def check(self, channels: int, mean: tuple[float, ...]) -> None:  # noqa: B027  most take what comes
        """Raises GeoBindError where a tower of so many channels cannot take the tiles."""

    def check_cells(self, step: float, ground: float) -> None:  # noqa: B027
        """Raises GeoBindError where cells and tiles of so many metres cannot be had."""


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
        world = world_width(self.crs)
        if world and not left <= x <= right:
            x = next((moved for moved in (x + world, x - world) if left <= moved <= right), x)
        return x, y


class TileFolder(Imagery):
    """A folder of tiles with their places: GeoTIFFs, pictures named LAT_LON.jpg, or `tiles.csv` (file, latitude, longitude).

    >>> TileFolder("tiles/", reach=800)

    A point has the tile whose centre is nearest, if it is at most `reach` metres away (half of the ground
    size if not given). Raises GeoBindError for a folder without located tiles.
    """

    def __init__(self, folder: str | Path, *, reach: float | None = None) -> None:
        root = Path(folder)
        self.paths, places = _located(root)
        self.reach = reach
        self.identity = f"{root} {len(self.paths)}"
        self.nearest = Nearest(*places.T)
        west, east = narrowest(places[:, 1])
        south, north = places[:, 0].min(), places[:, 0].max()
        self.bounds = (west - 0.01, float(south) - 0.01, east + 0.01, float(north) + 0.01)

    def tile(self, latitude: float, longitude: float, ground: float, pixels: int) -> NDArray[Any]:
        reach = ground / 2 if self.reach is None else self.reach
        (best,), _ = self.nearest([latitude], [longitude], reach)
        if best < 0:
            raise NoImagery(f"no tile within {reach:.0f} m of {latitude:.5f}, {longitude:.5f}")
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
    """The imagery that a path, a gallery's address, an XYZ template or the word `earth` names.

    >>> open_imagery("scene.tif"), open_imagery("tiles/"), open_imagery("https://host/{z}/{x}/{y}.png")

    `bands`, `stretch` are of rasters and of a search's. Raises GeoBindError for anything else.
    """
    if isinstance(source, Imagery):
        return source
    text = str(source)
    if text.startswith("stac:"):
        from geobind.mapping.stac import StacImagery

        return StacImagery(text, bands=bands, stretch=stretch, attribution=attribution)
    if text == EARTH:
        return EarthImagery()
    if "{" in text or text.startswith(("http://", "https://")):
        from geobind.mapping.xyz import XYZ

        return XYZ(text, attribution=attribution)
    path = Path(text).absolute()  # for processes that run elsewhere
    if text.startswith(("s3://", "gs://", "az://")) or (path / GALLERY).is_dir():
        from geobind.mapping.vectors import GalleryImagery

        return GalleryImagery(text, attribution=attribution)
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


def _located(root: Path) -> tuple[list[Path], NDArray[np.float64]]:
    """The tiles of a folder that have a place, and the places (n, 2)."""
    from geobind.gallery.sources import open_sources

    table = root / "tiles.csv"
    try:
        if table.exists():
            parts, _ = open_sources("satellite", "file", [str(table)], column="file")
        else:
            parts, _ = open_sources("satellite", "file", [str(root)])
        known = [part.known(range(len(part))) for part in parts]
    except GeoBindError as error:
        raise GeoBindError(f"{root} holds no located tiles ({error}): {_LOCATED}") from None
    files = [
        (Path(source), place)
        for part in known
        if part.locations is not None
        for source, place in zip(part.sources, part.locations, strict=True)
        if not np.isnan(place).any()
    ]
    if not files:
        raise GeoBindError(f"{root} holds no located tiles: {_LOCATED}")
    return [file for file, _ in files], np.stack([place for _, place in files])
