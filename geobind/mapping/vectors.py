"""A gallery in place of imagery: a map's vectors are there, and nothing is cut or embedded."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geobind.errors import GeoBindError
from geobind.gallery.filters import Filter
from geobind.gallery.schema import Origin
from geobind.gallery.store import Gallery
from geobind.mapping.area import DEGREES, METRES_OF_DEGREE, Cells, narrowest, project, world_width
from geobind.mapping.imagery import Imagery
from geobind.mapping.nearest import Nearest
from geobind.media.windows import Bounds
from geobind.retrieval.query import VECTOR
from geobind.space import GeoBind

_SAMPLE = 33  # rows whose distance to the next place is measured
_APART = 1.0  # metres: nearer rows are of one place
_COVERED = 0.5  # share of cells among the rows that must have a vector


class _Extent(NamedTuple):
    bounds: Bounds
    spacing: float  # metres to the next place, the median; infinite for one place


class GalleryImagery(Imagery):
    """The vectors of a gallery's rows, by the place of their centres.

    >>> geobind.map(space, "a harbour", "coast.geojson", GalleryImagery("africa"), step=0.01)

    A cell has the mean, of unit length, of the vectors that lie in it; one without has that of the nearest
    row at most the ground size away, or no data. The ground size is the distance between the rows, if not given.
    Vectors that a space's towers meet are compared as they are. Others, such as AlphaEarth's, go through the
    space's `vector` tower of that modality and width. Rows are read block by block, by a condition on their
    centres, which `geobind gallery --index` speeds up.
    Raises GeoBindError for a gallery of another space, and one without rows that have a place.
    """

    def __init__(self, uri: str, *, modality: str = "satellite", attribution: str = "") -> None:
        self.gallery = Gallery(uri).snapshot()
        self.modality, self.attribution = modality, attribution
        self.identity = f"{self.gallery.uri} {self.gallery.record['id']} {self.gallery.version} {modality}"
        self.through_tower = False  # whether the vectors are what a tower reads; `of` finds out

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "gallery": self.gallery.uri, "_extent": self._extent}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= {**state, "gallery": Gallery(state["gallery"]).snapshot()}

    def of(self, space: GeoBind, modality: str, asked: Sequence[str]) -> GalleryImagery:
        """The rows of a modality, for queries of the modalities `asked`. Raises GeoBindError for another space's."""
        if modality == self.modality:
            found = copy.copy(self)
        else:
            found = GalleryImagery(self.gallery.uri, modality=modality, attribution=self.attribution)
        try:
            for one in set(asked) - {VECTOR}:
                found.gallery.check(Origin.of(space, one), space.dim)
            if found.gallery.dim != space.dim:
                raise GeoBindError(
                    f"gallery {found.gallery.uri} holds vectors of {found.gallery.dim} numbers, the query has {space.dim}: "
                    f"use the space that it was made with"
                )
        except GeoBindError:
            processor = space.tower(modality).processor if modality in space.modalities else None
            if getattr(processor, "takes", "") != "vector" or processor.width != found.gallery.dim:  # type: ignore[union-attr]
                raise
            found.through_tower = True
        return found

    @property
    def bounds(self) -> Bounds:  # type: ignore[override]
        return self._extent.bounds

    def tile(self, latitude: float, longitude: float, ground: float, pixels: int) -> NDArray[Any]:
        raise GeoBindError(f"gallery {self.gallery.uri} has vectors and no tiles: give it to a map")

    def default_ground(self, pixels: int) -> float:
        if np.isinf(self._extent.spacing):
            raise GeoBindError(
                f"the rows of gallery {self.gallery.uri} are of one place: give the ground size of a tile"
            )
        return self._extent.spacing

    def check_cells(self, step: float, ground: float) -> None:
        """Raises GeoBindError where most cells among the rows would have no vector; both in metres."""
        spacing = self._extent.spacing
        if np.isfinite(spacing) and max(step**2, np.pi * ground**2) < _COVERED * spacing**2:
            raise GeoBindError(
                f"gallery {self.gallery.uri} is too sparse: its rows lie about {spacing:,.0f} m apart, the cells are "
                f"{step:,.0f} m wide and take rows up to {ground:,.0f} m away: give --ground {spacing:.0f}, or a larger step"
            )

    def vectors(
        self, cells: Cells, window: tuple[int, int, int, int], index: NDArray[np.intp], ground: float
    ) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Of the cells `index` of a block: those (n,) that have a vector, and the vectors (n, dim)."""
        x, y = cells.centres(*window)
        latitude, longitude = cells.degrees(x[index], y[index])
        total = np.zeros((len(x), self.gallery.dim))
        count = np.zeros(len(x), np.int64)
        wanted = np.zeros(len(x), bool)
        wanted[index] = True
        metres = np.full(len(index), np.inf)
        nearest = np.zeros((len(index), self.gallery.dim), np.float32)
        for batch in self._near(cells, latitude, longitude, ground):
            rows = _vectors(batch)
            places = batch["centre_lat"].to_numpy(), batch["centre_lon"].to_numpy()
            cell = _cell_of(cells, window, *places)
            mine = np.flatnonzero((cell >= 0) & wanted[cell])
            mine = mine[np.argsort(cell[mine], kind="stable")]
            if len(mine):
                here, starts, n = np.unique(cell[mine], return_index=True, return_counts=True)
                total[here] += np.add.reduceat(rows[mine].astype(np.float64), starts, axis=0)
                count[here] += n
            empty = np.flatnonzero(count[index] == 0)
            row, away = Nearest(*places)(latitude[empty], longitude[empty], ground)
            better = away < metres[empty]
            metres[empty[better]], nearest[empty[better]] = away[better], rows[row[better]]
        found = np.where(count[index, None] > 0, total[index], nearest)
        length = np.linalg.norm(found, axis=1)
        known = length > 1e-9
        return index[known], (found[known] / length[known, None]).astype(np.float32)

    def _near(
        self, cells: Cells, latitude: NDArray, longitude: NDArray, ground: float
    ) -> Iterator[pa.RecordBatch]:
        """The rows in cells and around them, and perhaps some more."""
        if not len(latitude):
            return
        x, y = project(longitude, latitude, DEGREES, cells.crs)
        half = cells.step / 2
        lats, lons = (  # (4, n): corners, where a cell reaches farthest
            np.stack(part)
            for part in zip(
                *(cells.degrees(x + i, y + j) for i in (-half, half) for j in (-half, half)), strict=True
            )
        )
        wide = np.nanmax(np.abs((lons[2:] - lons[:2] + 180) % 360 - 180), initial=0)
        lats = np.concatenate([latitude, lats[np.isfinite(lats)]])
        lons = np.concatenate([longitude, lons[np.isfinite(lons)]])
        margin = 1.01 * ground / METRES_OF_DEGREE
        south, north = max(lats.min() - margin, -90.0), min(lats.max() + margin, 90.0)
        west, east = narrowest(lons)
        cosine = np.cos(np.radians(max(abs(south), abs(north))))
        margin = margin / cosine if cosine > 1e-6 else 360.0
        # Around a pole, or where the gap could be a cell, every longitude is near.
        if east - west + 2 * margin > 350 or 360 - (east - west) <= wide or np.abs(lats).max() > 89:
            box = -180.0, south, 180.0, north
        else:
            box = (west - margin + 180) % 360 - 180, south, (east + margin + 180) % 360 - 180, north
        keep = Filter(bbox=box, modality=self.modality)
        where = f"{keep.box_sql()} AND {keep.sql()}"
        for batch in self.gallery.batches(["embedding", "centre_lat", "centre_lon"], where=where):
            if batch.num_rows:
                yield batch

    @cached_property
    def _extent(self) -> _Extent:
        rng = np.random.default_rng(0)
        seen = np.zeros(3600, bool)  # tenths of a degree of longitude
        sample, keys, lats = np.zeros((0, 2)), np.zeros(0), [90.0, -90.0]
        for places in self._places():
            seen[np.floor((places[:, 1] + 180) * 10).astype(np.int64) % 3600] = True
            lats = [min(lats[0], places[:, 0].min()), max(lats[1], places[:, 0].max())]
            sample, keys = np.concatenate([sample, places]), np.concatenate([keys, rng.random(len(places))])
            chosen = np.argsort(keys)[:_SAMPLE]
            sample, keys = sample[chosen], keys[chosen]
        if not len(sample):
            raise GeoBindError(
                f"gallery {self.gallery.uri} has no row of {self.modality} with a place: embed GeoTIFFs, files named "
                f"LAT_LON.jpg, or a table with latitude and longitude"
            )
        first = narrowest(np.flatnonzero(seen) / 10 - 180)[0]
        away, east = np.full(len(sample), np.inf), 0.0
        west = 360.0
        for places in self._places():
            turned = (places[:, 1] - first) % 360
            turned = np.where(turned > 359.9, turned - 360, turned)  # rounding of a tenth
            west, east = min(west, turned.min()), max(east, turned.max())
            away = np.minimum(away, _next_place(sample, places))
        spacing = float(np.median(away))
        pad = (spacing / 2 if np.isfinite(spacing) else 10.0) / METRES_OF_DEGREE
        wide = pad / max(np.cos(np.radians(max(map(abs, lats)))), 1e-3)
        west, east = float(first + west - wide), float(first + east + wide)
        if east - west >= 360:
            west, east = -180.0, 180.0
        return _Extent((west, max(lats[0] - pad, -90.0), east, min(lats[1] + pad, 90.0)), spacing)

    def _places(self) -> Iterator[NDArray[np.float64]]:
        """(n, 2) latitude, longitude of the rows, batch by batch."""
        where = (
            f"{Filter(modality=self.modality).sql()} AND centre_lat IS NOT NULL AND centre_lon IS NOT NULL"
        )
        for batch in self.gallery.batches(["centre_lat", "centre_lon"], where=where):
            if batch.num_rows:
                yield np.stack([batch["centre_lat"].to_numpy(), batch["centre_lon"].to_numpy()], axis=1)


def _vectors(batch: pa.RecordBatch) -> NDArray[np.float32]:
    return batch["embedding"].flatten().to_numpy().reshape(batch.num_rows, -1)


def _cell_of(
    cells: Cells, window: tuple[int, int, int, int], latitude: NDArray, longitude: NDArray
) -> NDArray[np.int64]:
    """(n,) the cell of a block, row by row, that a place lies in; -1 for none."""
    top, height, left, width = window
    x, y = project(longitude, latitude, DEGREES, cells.crs)
    world = world_width(cells.crs)
    if world:
        middle = (cells.column + left + width / 2) * cells.step
        x = x + world * np.round((middle - x) / world)
    there = np.isfinite(x) & np.isfinite(y)
    column = np.floor(np.where(there, x, 0) / cells.step) - cells.column - left
    row = np.floor(np.where(there, -y, 0) / cells.step) - cells.row - top
    there &= (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return np.where(there, row * width + column, -1).astype(np.int64)


def _next_place(sample: NDArray, places: NDArray) -> NDArray[np.float64]:
    """(m,) metres from places (m, 2) to the nearest of others (n, 2) that is not the same."""
    east = (sample[:, None, 1] - places[None, :, 1] + 180) % 360 - 180
    a = np.sin(np.radians(sample[:, None, 0] - places[None, :, 0]) / 2) ** 2
    a = (
        a
        + np.cos(np.radians(sample[:, None, 0]))
        * np.cos(np.radians(places[:, 0]))
        * np.sin(np.radians(east) / 2) ** 2
    )
    metres = 2 * np.degrees(np.arcsin(np.sqrt(np.minimum(a, 1)))) * METRES_OF_DEGREE
    return np.where(metres > _APART, metres, np.inf).min(1)
