"""Areas of GeoJSON as polygons, whole across the date line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from geobind.errors import GeoBindError, shorten


def read_polygon(value: Any) -> Any:
    """A shapely Polygon or MultiPolygon (longitude, latitude) of GeoJSON: a mapping, its text or the path of a file.

    >>> read_polygon("fiji.geojson").bounds
    (176.9, -19.2, 182.0, -16.0)

    Edges take the short way, so a step from 175 to -175 crosses the date line, and longitudes go on beyond
    180. Parts that were cut at the date line (RFC 7946) are moved together: the bounds are the narrowest that
    hold all. Raises GeoBindError for what is no polygon, is not in degrees, or goes around a pole.
    """
    try:
        import shapely
        from shapely.geometry import shape
    except ImportError:
        raise GeoBindError('a polygon needs shapely: pip install "geobind[gallery]"') from None
    try:
        if isinstance(value, str | Path):
            text = str(value)
            value = json.loads(
                text if text.lstrip().startswith("{") else Path(text).read_text(encoding="utf-8")
            )
        if isinstance(value, Mapping):
            features = value.get("features", [value])
            geometries = [shape(it) for item in features if (it := item.get("geometry", item))]
        else:
            geometries = [value]
        parts = [part for geometry in geometries for part in _unrolled(geometry)]
    except GeoBindError:
        raise
    except OSError as error:
        raise GeoBindError(
            f"polygon {shorten(value)} cannot be read ({error.strerror}): give GeoJSON or its file"
        ) from None
    except Exception as error:  # json's, shapely's and whatever a wrong nesting raises
        raise GeoBindError(
            f"polygon {shorten(value)} is no GeoJSON ({shorten(str(error))}): give a Polygon"
        ) from None
    parts = [part if part.is_valid else part.buffer(0) for part in parts]
    parts = [part for part in parts if part.area > 0]
    if not parts:
        raise GeoBindError(f"polygon {shorten(value)} holds no area: give a Polygon or MultiPolygon")
    return shapely.unary_union(_together(parts))


def _unrolled(geometry: Any) -> list[Any]:
    """Polygons, each without jumps of longitude of more than half a turn."""
    import shapely

    if geometry.geom_type in ("MultiPolygon", "GeometryCollection"):
        return [one for part in geometry.geoms for one in _unrolled(part)]
    if geometry.geom_type != "Polygon":
        raise GeoBindError(f"the area is a {geometry.geom_type}: give a Polygon or MultiPolygon")
    if geometry.is_empty:
        return []
    rings: list[Any] = []
    for ring in (geometry.exterior, *geometry.interiors):
        points = np.asarray(ring.coords)[:, :2].astype(np.float64)
        if np.abs(points[:, 1]).max() > 90 or np.abs(points[:, 0]).max() > 360:
            raise GeoBindError(
                f"the polygon has the point {points[0, 0]:g}, {points[0, 1]:g}, which is not in degrees, it looks like "
                f"metres: give longitude, latitude"
            )
        steps = np.diff(points[:, 0])
        turns = np.concatenate([[0], np.cumsum(-360 * np.round(steps / 360))])
        if turns[-1] != 0:
            raise GeoBindError("the polygon goes around a pole: cut it along a meridian, or use a bbox")
        points[:, 0] += turns
        if rings:  # a hole lies on the turn of its ring
            points[:, 0] += 360 * np.round((rings[0][:, 0].mean() - points[:, 0].mean()) / 360)
        rings.append(points)
    return [shapely.Polygon(rings[0], rings[1:])]


def _together(parts: list[Any]) -> list[Any]:
    """Polygons moved by whole turns so that all of them lie within the fewest degrees, from -180..180 on."""
    from shapely.affinity import translate

    spans = np.array([part.bounds for part in parts])[:, [0, 2]]
    spans -= 360 * np.floor((spans[:, :1] + 180) / 360)
    order = np.argsort(spans[:, 0])
    starts, reach = spans[order, 0], np.maximum.accumulate(spans[order, 1])
    # The gap before each start; that before the first is what is left of the turn after the last end.
    gaps = np.concatenate([[starts[0] + 360 - reach[-1]], starts[1:] - reach[:-1]])
    first = starts[int(gaps.argmax())]
    to = spans[:, 0] + 360 * (spans[:, 0] < first)
    return [translate(part, left - part.bounds[0]) for part, left in zip(parts, to, strict=True)]
