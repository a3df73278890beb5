"""Which rows of a gallery a search may return: area, time, modality, any column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geobind.errors import GeoBindError, shorten
from geobind.gallery.schema import time_text
from geobind.media.geojson import read_polygon


@dataclass(frozen=True)
class Filter:
    """Conditions that all hold; None is none.

    >>> Filter(bbox=(170, -25, -170, -10), time=("2021-06", "2021-09"), where="product_id LIKE 'S2A%'")

    bbox: west, south, east, north in degrees; west above east is a box across the date line.
    polygon: GeoJSON (mapping, text or path of a file) of a Polygon or MultiPolygon; edges take the short way,
    so that a step from 175 to -175 crosses the date line. Both are asked of a row's centre.
    time: from, to (both included, either None) as ISO 8601 of any precision: "2021" is the whole year.
    modality: of the row. where: an SQL condition on the columns of the table.
    Raises GeoBindError for what is no box, polygon or time.
    """

    bbox: Sequence[float] | None = None
    polygon: Any = None
    time: tuple[str | None, str | None] | None = None
    modality: str | None = None
    where: str | None = None

    def __post_init__(self) -> None:
        if self.bbox is not None:
            box = tuple(float(side) for side in self.bbox)
            ordered = len(box) == 4 and -90 <= box[1] <= box[3] <= 90
            if not ordered or not all(-180 <= x <= 180 for x in box[::2]):
                raise GeoBindError(
                    f"bbox {shorten(self.bbox)}: give west,south,east,north in degrees, south below north "
                    f"(west above east crosses the date line)"
                )
            object.__setattr__(self, "bbox", box)
        if self.polygon is not None:
            object.__setattr__(self, "polygon", read_polygon(self.polygon))

    def sql(self) -> str | None:
        """The conditions on time, modality and other columns; None where there are none."""
        parts = []
        if self.modality is not None:
            parts.append(f"modality = {_quoted(self.modality)}")
        if self.time is not None:
            start, end = self.time
            if start:
                parts.append(f"timestamp >= {_quoted(str(time_text(_moment(start))))}")
            if end:
                parts.append(f"timestamp < {_quoted(str(time_text(_moment(end) + np.timedelta64(1))))}")
            parts.append("timestamp IS NOT NULL")
        if self.where is not None:
            parts.append(f"({self.where})")
        return " AND ".join(parts) or None

    def box_sql(self) -> str | None:
        """The bounding box as a condition on the centre; None where there is none."""
        if self.bbox is None:
            return None
        west, south, east, north = self.bbox
        joined = "AND" if west <= east else "OR"
        return (
            f"(centre_lon >= {west} {joined} centre_lon <= {east}) AND centre_lat BETWEEN {south} AND {north}"
        )

    @property
    def any(self) -> bool:
        """Whether there is a condition."""
        return self.spatial or self.sql() is not None

    @property
    def spatial(self) -> bool:
        """Whether there is an area."""
        return self.bbox is not None or self.polygon is not None

    def inside(self, latitude: NDArray[Any], longitude: NDArray[Any]) -> NDArray[np.bool_]:
        """(n,): is the place within the area; NaN is not."""
        keep = np.ones(len(latitude), bool)
        if self.bbox is not None:
            west, south, east, north = self.bbox
            keep = (latitude >= south) & (latitude <= north)
            east_of, west_of = longitude >= west, longitude <= east
            keep &= (east_of & west_of) if west <= east else (east_of | west_of)
        if self.polygon is not None:
            import shapely

            rows = np.flatnonzero(keep & ~np.isnan(latitude))
            x, y = np.asarray(longitude)[rows], np.asarray(latitude)[rows]
            shapely.prepare(self.polygon)
            within = np.zeros(len(rows), bool)
            for turn in (-360, 0, 360):  # a polygon across the date line goes on beyond 180
                within |= shapely.intersects_xy(self.polygon, x + turn, y)
            keep = np.zeros(len(latitude), bool)
            keep[rows[within]] = True
        return keep


def _moment(text: str) -> np.datetime64:
    """A time at the precision it is written in, so that one unit later is the end of what it means."""
    try:
        moment = np.datetime64(text.strip().removesuffix("Z"))
    except ValueError:
        raise GeoBindError(
            f"time {text!r}: give ISO 8601 in UTC, such as 2021, 2021-06 or 2021-06-30T12:00"
        ) from None
    if np.isnat(moment):
        raise GeoBindError(f"time {text!r}: give ISO 8601 in UTC, such as 2021-06")
    return moment


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
