"""Where tiles come from: the nearest tile of a folder is that of brute force; what is no source is one line."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin
from rasterio.warp import transform

import geobind
from geobind import GeoBind, GeoBindError
from geobind.mapping.area import METRES_OF_DEGREE
from geobind.mapping.imagery import NoImagery, TileFolder, open_imagery
from geobind.towers.base import build_tower
from tests import toy  # noqa: F401  registers towers
from tests.mapping.places import AXES, UTM, Colour, colour_space, north_up
from tests.mapping.test_xyz import tiles


def test_the_tile_of_a_point_is_that_of_brute_force(tmp_path):
    rng = np.random.default_rng(0)
    latitude, longitude = rng.uniform(-21, -15, 60).round(4), rng.uniform(177, 183, 60).round(4)
    longitude = ((longitude + 180) % 360 - 180).round(4)
    for number, (lat, lon) in enumerate(zip(latitude, longitude, strict=True)):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"tile_{lat:.4f}_{lon:.4f}.png")
    (tmp_path / "readme.txt").write_text("no tile")
    folder = open_imagery(tmp_path)
    assert folder.bounds[0] > 176
    assert folder.bounds[2] < 184  # across the date line, and not around the Earth
    lat, lon = np.radians(latitude), np.radians(longitude)
    points = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], -1)
    found = 0
    for y, x in zip(rng.uniform(-21, -15, 200), rng.uniform(177, 183, 200), strict=True):
        a, o = np.radians(y), np.radians(x)
        away = np.linalg.norm(points - [np.cos(a) * np.cos(o), np.cos(a) * np.sin(o), np.sin(a)], axis=1)
        metres = 2 * np.degrees(np.arcsin(away / 2)) * METRES_OF_DEGREE
        if metres.min() <= 40_000:
            found += 1
            assert folder.tile(y, x, 80_000, 4)[0, 0, 0] == metres.argmin()
        else:
            with pytest.raises(NoImagery, match="no tile within 40000 m"):
                folder.tile(y, x, 80_000, 4)
    assert 20 < found < 190


def test_geotiffs_lie_where_their_headers_say_in_any_projection(tmp_path):
    places = {}
    for number, (crs, left, top) in enumerate(
        [
            ("EPSG:32601", 500_000, 1_000_000),
            ("EPSG:3857", 300_000, 5_000_000),
            ("EPSG:4326", 179.9995, 10.0005),
        ]
    ):
        pixel = 0.0001 if crs == "EPSG:4326" else 10
        path = tmp_path / "deep" / f"{number}.tif"
        path.parent.mkdir(exist_ok=True)
        with rasterio.open(
            path, "w", driver="GTiff", width=10, height=10, count=3, dtype="uint8", crs=crs,
            transform=from_origin(left, top, pixel, pixel),
        ) as file:  # fmt: skip
            file.write(np.full((3, 10, 10), 10 * (number + 1), np.uint8))
        x, y = transform(crs, "EPSG:4326", [left + 5 * pixel], [top - 5 * pixel])
        places[number] = y[0], (x[0] + 180) % 360 - 180
    folder = TileFolder(tmp_path)
    for number, (latitude, longitude) in places.items():
        assert folder.tile(latitude, longitude, 2, 10)[0, 0].tolist() == [10 * (number + 1)] * 3


def test_tables_of_tiles_say_what_they_lack(tmp_path):
    (tmp_path / "tiles.csv").write_text("path,latitude,longitude\na.png,1,2\n")
    with pytest.raises(GeoBindError, match=r"holds no located tiles .*'file'.* give GeoTIFFs") as caught:
        open_imagery(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "tiles.csv").write_text("file,latitude,longitude\na.png,1,2\n")
    with pytest.raises(GeoBindError, match=r"a\.png"):  # a missing file is no hole in the map
        geobind.map(colour_space(), AXES, (1.9, 0.9, 2.1, 1.1), tmp_path, step=0.1, ground=30_000)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("geobind.media.http.time.sleep", lambda seconds: None)
    letters = build_tower("letters", modality="text", dim=3, takes="text", head="linear")
    GeoBind(3, [Colour(), letters]).save_pretrained("space")
    north_up(tmp_path / "good.tif", UTM, 500_000, 1_000_000, 10)
    north_up(tmp_path / "one.tif", UTM, 500_000, 1_000_000, 10, count=1)
    north_up(tmp_path / "sixteen.tif", UTM, 500_000, 1_000_000, 10, dtype="uint16")
    north_up(tmp_path / "nowhere.tif", None, 0, 0, 10)
    (tmp_path / "no.tif").write_text("no raster")
    (tmp_path / "empty").mkdir()
    (tmp_path / "metres.geojson").write_text(
        '{"type": "Polygon", "coordinates": [[[450000, 5300000], [460000, 5300000], [460000, 5310000], [450000, 5300000]]]}'
    )
    return tmp_path


@pytest.mark.parametrize(
    ("imagery", "options", "says"),
    [
        ("good.tif", ["--area", "10,48,11,49"], "lies outside the imagery"),
        ("good.tif", ["--area", "2.2,48.1,2.5,48"], "at or above its north"),
        ("good.tif", ["--area", "450000,5300000,460000,5310000"], "looks like metres"),
        ("good.tif", ["--area", "metres.geojson"], "looks like metres"),
        ("good.tif", ["--area", "absent.geojson"], "cannot be read"),
        ("one.tif", [], "has 1 band, the tower takes 3"),
        ("sixteen.tif", [], "give stretch"),
        ("nowhere.tif", [], "no coordinate reference system"),
        ("no.tif", [], "cannot be opened"),
        ("absent.tif", [], "is not there"),
        ("empty", [], "no located tiles"),
        ("http://127.0.0.1:9/{z}/{x}.png", [], "lacks {y}"),
    ],
)
def test_bad_input_is_one_line_through_the_command_line(folder, run, imagery, options, says):
    status, _, error = run("map", "space", "--text", "a", "--out", "map.tif", "--imagery", imagery, *options)
    assert status
    assert says in error
    assert error.count("\n") == 1, error
    assert not (folder / "map.tif").exists()


@pytest.mark.parametrize(
    ("status", "says"),
    [(403, "answers 403"), (503, "no answer after 4 attempts"), (429, "no answer after 4")],
)
def test_a_server_that_refuses_or_is_overloaded_is_one_line_too(folder, run, status, says):
    with tiles() as (server, template):
        server.status = status
        code, _, error = run(
            "map", "space", "--text", "a", "--out", "map.tif", "--imagery", template, "--area", "2,48,2.1,48.1", "--ground", "5000"
        )  # fmt: skip
    assert code
    assert says in error
    assert error.count("\n") == 1, error
    assert not (folder / "map.tif").exists()
