"""Areas and their cells: which part of the Earth is asked for, and the square cells that a map has there."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geobind.errors import GeoBindError, shorten
from geobind.media.geojson import read_polygon
from geobind.media.windows import Bounds, need_rasterio

DEGREES = "EPSG:4326"
METRES_OF_DEGREE = 111_195.0  # of a great circle
MERCATOR = "EPSG:3857"
MERCATOR_WORLD = 2 * math.pi * 6_378_137.0  # metres around its equator
MERCATOR_HIGHEST = 85.05112877980659  # latitude at which it is a square, where the tiles of the web end
_EXAMPLE = "give west,south,east,north in degrees, such as 2.2,48.8,2.5,49.0"


@dataclass(frozen=True)
class Area:
    """A part of the Earth: bounds (left, bottom, right, top) in a CRS, and shapes (WKB) that narrow them.

    >>> Area.parse("2.2,48.8,2.5,49.0"), Area.parse("park.geojson"), Area.parse("scene.tif")

    East of the date line longitudes go on beyond 180: 170,-20,-170,-10 is 20 degrees wide.
    """

    bounds: Bounds
    crs: str = DEGREES
    shapes: tuple[bytes, ...] = ()

    @classmethod
    def parse(cls, value: str | Path | tuple[float, float, float, float] | Area) -> Area:
        """west,south,east,north in degrees, a GeoJSON file (longitude, latitude), or a raster's extent.

        Raises GeoBindError for numbers that are no such box, and files that are neither.
        """
        if isinstance(value, Area):
            return value
        if not isinstance(value, str | Path):
            return cls(_checked_box(tuple(map(float, value)), shorten(value)))
        text = str(value).strip()
        if Path(text).suffix.lower() in (".json", ".geojson"):
            return _from_geojson(text)
        if Path(text).exists():
            from geobind.media.windows import RasterFile

            raster = RasterFile(text)
            return cls(raster.bounds, raster.crs)
        try:
            numbers = tuple(float(part) for part in text.split(","))
        except ValueError:
            raise GeoBindError(
                f"area {shorten(text)} is neither a box nor a file that exists: {_EXAMPLE}"
            ) from None
        return cls(_checked_box(numbers, shorten(text)))


@dataclass(frozen=True)
class Cells:
    """The square cells of a map, north up: (height, width), whose edges are whole multiples of the step.

    >>> cells = Cells.of(Area.parse("2.2,48.8,2.5,49.0"), "EPSG:3857", 1000.0)
    >>> cells.shape, cells.degrees(*cells.centres(0, 1, 0, 1))

    So any two maps of one CRS and step share their cells where they meet. `step` is in units of the CRS:
    degrees or metres. Cells of which the shapes do not hold the centre belong to no map.
    """

    crs: str
    step: float
    column: int
    row: int  # of the first cell: the top edge lies at -row * step
    shape: tuple[int, int]
    shapes: tuple[bytes, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, area: Area, crs: str, step: float) -> Cells:
        """The cells that cover an area. Raises GeoBindError for a step that cannot be of this CRS."""
        geographic = is_geographic(crs)
        if not step > 0 or (geographic and step > 90):
            unit = "degrees" if geographic else "metres"
            raise GeoBindError(f"step {step:g} in {unit} ({crs}): give the side of a cell in {unit}, above 0")
        left, bottom, right, top = project_bounds(area.bounds, area.crs, crs)
        if not geographic and step < 0.01:
            raise GeoBindError(f"step {step:g} is in metres ({crs}): it looks like degrees; give metres")
        near = 1e-6  # an edge that rounding moved off a multiple by less is one
        column, row = math.floor(left / step + near), math.floor(-top / step + near)
        width = max(1, math.ceil(right / step - near) - column)
        height = max(1, math.ceil(-bottom / step - near) - row)
        if height * width > 1 << 40:
            raise GeoBindError(f"a map of {height:,} x {width:,} cells: give a larger step than {step:g}")
        shapes = (
            area.shapes if area.crs == crs else tuple(_project_shape(s, area.crs, crs) for s in area.shapes)
        )
        return cls(crs, step, column, row, (height, width), shapes)

    @property
    def bounds(self) -> Bounds:
        left, top = self.column * self.step, -self.row * self.step
        return left, top - self.shape[0] * self.step, left + self.shape[1] * self.step, top

    @property
    def transform(self) -> Any:
        """The affine transform of rasterio."""
        from rasterio.transform import from_origin

        return from_origin(self.column * self.step, -self.row * self.step, self.step, self.step)

    def centres(self, top: int, height: int, left: int, width: int) -> tuple[NDArray, NDArray]:
        """x and y (height * width,) of the centres of a block, row by row, in the CRS."""
        x = (self.column + left + np.arange(width) + 0.5) * self.step
        y = -(self.row + top + np.arange(height) + 0.5) * self.step
        both = np.meshgrid(x, y)
        return both[0].ravel(), both[1].ravel()

    def degrees(self, x: ArrayLike, y: ArrayLike) -> tuple[NDArray, NDArray]:
        """Latitude and longitude, -180 to 180, of points of the CRS."""
        longitude, latitude = project(x, y, self.crs, DEGREES)
        return latitude, (longitude + 180) % 360 - 180

    def inside(self, top: int, height: int, left: int, width: int) -> NDArray[np.bool_]:
        """(height * width,): which cells of a block belong to the area."""
        x, y = self.centres(top, height, left, width)
        inside = np.abs(self.degrees(x, y)[0]) <= 90
        if self.shapes:
            import shapely

            within = np.zeros(len(x), bool)
            for geometry in self._geometries:
                within |= shapely.contains_xy(geometry, x, y)
            inside &= within
        return inside

    @cached_property
    def _geometries(self) -> list[Any]:
        import shapely

        found = [shapely.from_wkb(shape) for shape in self.shapes]
        shapely.prepare(found)
        return found


def is_geographic(crs: str) -> bool:
    """Whether a CRS has degrees. Raises GeoBindError for one that is unknown."""
    need_rasterio()
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        return CRS.from_user_input(crs).is_geographic
    except CRSError:
        raise GeoBindError(
            f"no coordinate reference system {shorten(crs)}: give one such as EPSG:32633"
        ) from None


def project(x: ArrayLike, y: ArrayLike, source: str, target: str) -> tuple[NDArray, NDArray]:
    """Points from one CRS to another; x is the longitude where it has degrees.

    In Web Mercator x is linear in the longitude and goes on beyond the date line.
    """
    from pyproj import Transformer

    x, y = np.asarray(x, float), np.asarray(y, float)
    if source == target:
        return x, y
    px, py = Transformer.from_crs(source, target, always_xy=True).transform(x, y)
    if source == DEGREES and target == MERCATOR:
        px = x / 360 * MERCATOR_WORLD
    return np.asarray(px), np.asarray(py)


def project_bounds(bounds: Bounds, source: str, target: str) -> Bounds:
    """Bounds around the same area in another CRS. Raises GeoBindError where it does not hold the area."""
    if source == target:
        return bounds
    left, bottom, right, top = bounds
    along = np.linspace(0, 1, 33)
    x = np.concatenate([left + along * (right - left)] * 2 + [np.full(33, left), np.full(33, right)])
    y = np.concatenate([np.full(33, bottom), np.full(33, top)] + [bottom + along * (top - bottom)] * 2)
    if target == MERCATOR and source == DEGREES:
        y = np.clip(y, -MERCATOR_HIGHEST, MERCATOR_HIGHEST)
    px, py = project(x, y, source, target)
    if target == DEGREES and px.max() - px.min() > 180 and right - left > 0:
        px = np.where(px < 0, px + 360, px)  # across the date line
    if not (np.isfinite(px).all() and np.isfinite(py).all()):
        raise GeoBindError(
            f"the area {shorten(bounds)} ({source}) lies outside of {target}: give another CRS"
        )
    return float(px.min()), float(py.min()), float(px.max()), float(py.max())


def world_width(crs: str) -> float:
    """How far apart in x two names of one place are; 0 for a CRS that does not repeat."""
    return {DEGREES: 360.0, MERCATOR: MERCATOR_WORLD}.get(crs, 0.0)


def narrowest(longitude: ArrayLike) -> tuple[float, float]:
    """West and east of the narrowest span that holds all longitudes; west in -180..180, east perhaps beyond.

    >>> narrowest([179.0, -178.0])
    (179.0, 182.0)
    """
    turned = np.sort((np.asarray(longitude, float).ravel() + 180) % 360 - 180)
    gaps = np.append(np.diff(turned), turned[0] + 360 - turned[-1])
    gap = int(gaps.argmax()) if gaps.max() > gaps[-1] else len(gaps) - 1
    if gap == len(gaps) - 1:
        return float(turned[0]), float(turned[-1])
    return float(turned[gap + 1]), float(turned[gap] + 360)


def units_of_metre(crs: str, latitude: float, longitude: float) -> tuple[float, float]:
    """Units of the CRS along x and y that a metre on the ground is long at a point."""
    if is_geographic(crs):
        return 1 / (METRES_OF_DEGREE * max(math.cos(math.radians(latitude)), 1e-3)), 1 / METRES_OF_DEGREE
    from pyproj import Proj

    factors = Proj(crs).get_factors(longitude, latitude)
    scale = math.sqrt(factors.areal_scale)
    return scale, scale


def _project_shape(shape: bytes, source: str, target: str) -> bytes:
    import shapely

    def moved(points: NDArray) -> NDArray:
        return np.column_stack(project(points[:, 0], points[:, 1], source, target))

    return shapely.to_wkb(shapely.transform(shapely.from_wkb(shape), moved))


def _checked_box(numbers: tuple[float, ...], text: str) -> Bounds:
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        raise GeoBindError(f"area {text} has {len(numbers)} numbers: {_EXAMPLE}")
    west, south, east, north = numbers
    if max(abs(south), abs(north)) > 90 or max(abs(west), abs(east)) > 360:
        raise GeoBindError(f"area {text} is not in degrees, it looks like metres: {_EXAMPLE}")
    if south >= north:
        raise GeoBindError(
            f"area {text} has its south ({south:g}) at or above its north ({north:g}): {_EXAMPLE}"
        )
    if west == east:
        raise GeoBindError(f"area {text} has no width: {_EXAMPLE}")
    return west, south, east + 360 if east < west else east, north


def _from_geojson(path: str) -> Area:
    polygon = read_polygon(Path(path))
    return Area(_checked_box(polygon.bounds, path), DEGREES, (polygon.wkb,))
