"""A polygon of GeoJSON is the same area however it is written: file, text or mapping; whole or cut at the date line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from geobind import GeoBindError
from geobind.gallery.filters import Filter
from geobind.mapping.area import Area, Cells
from geobind.media.geojson import read_polygon


def box(west, south, east, north):
    return [[[west, south], [east, south], [east, north], [west, north], [west, south]]]


def polygon(*corners):
    return {"type": "Polygon", "coordinates": box(*corners)}


def multi(*boxes):
    return {"type": "MultiPolygon", "coordinates": [box(*corners) for corners in boxes]}


FIJI = {
    "short way": polygon(178, -20, -178, -16),
    "beyond 180": polygon(178, -20, 182, -16),
    "below -180": polygon(-182, -20, -178, -16),
    "cut": multi((178, -20, 180, -16), (-180, -20, -178, -16)),
    "cut, west first": multi((-180, -20, -178, -16), (178, -20, 180, -16)),
    "features": {
        "type": "FeatureCollection",
        "features": [
            {"type": "Feature", "properties": {}, "geometry": polygon(-180, -20, -178, -16)},
            {"type": "Feature", "properties": {}, "geometry": polygon(178, -20, 180, -16)},
            {"type": "Feature", "properties": {}, "geometry": None},
        ],
    },
}


@pytest.mark.parametrize("value", FIJI.values(), ids=FIJI)
def test_maps_and_filters_know_one_area_across_the_date_line(tmp_path, value):
    file = tmp_path / "area.geojson"
    file.write_text(json.dumps(value))
    for given in (value, json.dumps(value), str(file), file):
        assert read_polygon(given).bounds == (178, -20, 182, -16)
    latitude, longitude = np.meshgrid(np.arange(-89.5, 90), np.arange(-179.5, 180))
    latitude, longitude = latitude.ravel(), longitude.ravel()
    inside = (np.abs(latitude + 18) < 2) & (np.abs(longitude) > 178)
    np.testing.assert_array_equal(Filter(polygon=file).inside(latitude, longitude), inside)
    cells = Cells.of(Area.parse(file), "EPSG:4326", 1.0)
    assert cells.shape == (4, 4)
    assert cells.inside(0, 4, 0, 4).all()


def test_a_hole_lies_in_its_ring_and_far_parts_stay_where_they_are():
    ring = {"type": "Polygon", "coordinates": [*box(178, -20, -178, -16), *box(-179.5, -19, -178.5, -17)]}
    assert read_polygon(ring).area == pytest.approx(16 - 2)
    assert read_polygon(multi((-10, 0, -9, 1), (100, 0, 101, 1))).bounds == (-10, 0, 101, 1)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (polygon(450_000, 5_300_000, 460_000, 5_310_000), "looks like metres"),
        ({"type": "Point", "coordinates": [1, 2]}, "give a Polygon"),
        ({"type": "FeatureCollection", "features": []}, "holds no area"),
        ({"type": "Polygon", "coordinates": [[[1, 2], [3, 4], [1, 2], [1, 2]]]}, "holds no area"),
        ("{", "is no GeoJSON"),
        ("absent.geojson", "cannot be read"),
        ({"type": "Polygon", "coordinates": [[[0, 70], [120, 70], [-120, 70], [0, 70]]]}, "around a pole"),
    ],
)
def test_what_is_no_area_is_one_line(value, says):
    with pytest.raises(GeoBindError, match=says) as caught:
        read_polygon(value)
    assert "\n" not in str(caught.value)
