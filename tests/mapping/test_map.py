"""A map's values lie where its coordinates say: each cell holds the similarity of the tile around its centre.

* Centres and positions agree to a thousandth of a cell in degrees, Web Mercator and UTM, across the date line.
* A map made in parts equals one made whole; so does one whose process was killed.
* A file is a valid Cloud-Optimised GeoTIFF with the same numbers, and is there only when it is whole.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
from rasterio.transform import Affine

import geobind
from geobind import GeoBindError
from geobind.mapping import cube
from geobind.mapping.geotiff import read_map
from geobind.mapping.imagery import RasterImagery, open_imagery
from geobind.mapping.run import write_map
from tests import toy  # noqa: F401  registers towers
from tests.mapping.places import AXES, UTM, Spy, colour_space, north_up, write_raster

BOX = (2.0, 48.0, 2.2, 48.1)


@pytest.fixture(scope="module")
def space():
    return colour_space()


@pytest.mark.parametrize(
    ("crs", "step", "area"),
    [
        ("EPSG:4326", 0.05, BOX),
        ("EPSG:4326", 0.5, (179.0, -20.0, -179.0, -18.5)),
        ("EPSG:3857", 2500.0, BOX),
        ("EPSG:3857", 40_000.0, (179.0, -20.0, -179.0, -18.5)),
        ("EPSG:32631", 2500.0, BOX),
        (UTM, 30_000.0, (179.3, 10.0, -178.0, 12.0)),
    ],
)
def test_a_cell_lies_where_its_coordinates_say(space, tmp_path, crs, step, area):
    spy = Spy(crs)
    path = write_map(space, AXES, area, spy, tmp_path / "map.tif", step=step, crs=crs)
    with rasterio.open(path) as file:
        rows, columns = np.meshgrid(np.arange(file.height), np.arange(file.width), indexing="ij")
        x, y = rasterio.transform.xy(file.transform, rows.ravel(), columns.ravel())
        assert file.crs == rasterio.CRS.from_string(crs)
    found = read_map(path)
    np.testing.assert_allclose(np.tile(found.x.values, len(found.y)), x, atol=step / 1000)
    np.testing.assert_allclose(np.repeat(found.y.values, len(found.x)), y, atol=step / 1000)
    # What was asked of the imagery, back in the CRS of the file, is the centre.
    asked = np.array(spy.asked)
    assert len(asked) == len(x)
    assert (np.abs(asked[:, 1]) <= 180).all()
    back = np.array(
        pyproj.Transformer.from_crs(4326, crs, always_xy=True).transform(asked[:, 1], asked[:, 0])
    )
    turn = {"EPSG:4326": 360.0, "EPSG:3857": 2 * np.pi * 6_378_137}.get(crs, np.inf)
    apart = np.asarray(x) - back[0]
    apart -= np.where(np.abs(apart) > turn / 2, np.sign(apart) * turn, 0) if np.isfinite(turn) else 0
    assert np.abs(apart).max() < step / 1000
    np.testing.assert_allclose(back[1], y, atol=step / 1000)
    # All of the area is covered.
    west, south, east, north = area
    longitude = np.array([west, east + 360 * (east < west)])
    corners = pyproj.Transformer.from_crs(4326, crs, always_xy=True).transform(longitude, [south, north])
    if crs != "EPSG:3857":
        assert found.x.values.min() - step / 2 <= corners[0][0] + step / 1000
        assert found.x.values.max() + step / 2 >= corners[0][1] - step / 1000


@pytest.mark.parametrize(
    "transform",
    [
        Affine(10, 0, 500_000, 0, -10, 4_000_000),
        Affine(10, 0, 500_000, 0, 10, 4_000_000),  # south-up
        Affine.translation(500_000, 4_000_000) * Affine.rotation(30) * Affine.scale(10, -10),
    ],
    ids=["north-up", "south-up", "rotated"],
)
def test_a_raster_may_lie_any_way(space, tmp_path, transform):
    raster = write_raster(tmp_path / "raster.tif", "EPSG:32631", transform)
    found = geobind.map(space, AXES, None, raster, step=80, ground=80)
    corners = np.array([transform * c for c in ((0, 0), (96, 0), (0, 96), (96, 96))])
    (left, bottom), (right, top) = corners.min(0), corners.max(0)
    x, y = np.meshgrid(found.x.values, found.y.values)
    red, green, blue = found.values
    known = np.isfinite(blue)
    # Colours are linear in x and y, so the mean of a tile is the colour at its centre, within a grey level
    # and the half pixel by which a window is moved. Tiles at the edge are not whole.
    column, row = ~transform * (x, y)
    whole = (np.minimum(column, row) > 9) & (np.maximum(column, row) < 87)
    assert known[whole].all()
    assert not known[(np.minimum(column, row) < -9) | (np.maximum(column, row) > 105)].any()
    np.testing.assert_allclose((red / blue)[whole], ((x - left) / (right - left))[whole], atol=0.012)
    np.testing.assert_allclose((green / blue)[whole], ((y - bottom) / (top - bottom))[whole], atol=0.012)


def test_a_raster_across_the_date_line_has_no_gap(space, tmp_path):
    raster = north_up(tmp_path / "fiji.tif", "EPSG:4326", 179.0, -17.0, 0.025, 80)  # 179 E to 179 W
    found = geobind.map(space, AXES, (179.2, -18.8, -179.2, -17.2), raster, step=0.2, ground=20_000)
    assert np.isfinite(found.values).all()
    red = (found.values[0] / found.values[2]).mean(0)
    np.testing.assert_allclose(red, (found.x.values - 179) / 2, atol=0.02)


def test_a_map_in_parts_equals_one_made_whole(space, tmp_path):
    raster = north_up(tmp_path / "raster.tif", UTM, 500_000, 1_000_000, 10, 70)
    whole = geobind.map(space, AXES, None, raster, step=10, ground=80)
    assert whole.shape == (3, 70, 70)  # more than one block
    x, y = whole.x.values, whole.y.values
    for rows, columns in ((slice(0, 7), slice(0, 70)), (slice(37, 70), slice(60, 70))):
        box = (x[columns][0] - 5, y[rows][-1] - 5, x[columns][-1] + 5, y[rows][0] + 5)
        part = geobind.map(
            space, AXES, geobind.mapping.area.Area(box, UTM), raster, step=10, ground=80, batch_size=7
        )
        np.testing.assert_array_equal(part.x, x[columns])
        np.testing.assert_array_equal(part.y, y[rows])
        np.testing.assert_allclose(part.values, whole.values[:, rows, columns], atol=2e-7)


def test_no_imagery_and_no_area_are_no_data(space, tmp_path):
    shape = {"type": "Polygon", "coordinates": [[[2.0, 48.0], [2.2, 48.0], [2.0, 48.1], [2.0, 48.0]]]}
    (tmp_path / "park.geojson").write_text(
        json.dumps(
            {
                "type": "FeatureCollection",
                "features": [{"type": "Feature", "properties": {}, "geometry": shape}],
            }
        )
    )
    spy = Spy(hole=lambda latitude, longitude: longitude < 2.05)
    found = geobind.map(space, AXES, tmp_path / "park.geojson", spy, step=0.01)
    x, y = np.meshgrid(found.x.values, found.y.values)
    inside = (x - 2.0) / 0.2 + (y - 48.0) / 0.1 < 1
    np.testing.assert_array_equal(np.isfinite(found.values[0]), inside & (x > 2.05))
    assert len(spy.asked) == inside.sum()  # nothing is cut that is not asked for


def test_a_file_is_a_valid_cog_with_the_same_numbers(space, tmp_path):
    from rio_cogeo.cogeo import cog_validate

    spy = Spy(hole=lambda latitude, longitude: round(latitude * 200) % 101 > 1)
    path = write_map(space, AXES, (2, 48, 8, 53.5), spy, tmp_path / "map.tif", step=0.01, crs="EPSG:4326")
    valid, errors, warnings = cog_validate(path)
    assert valid, (errors, warnings)
    with rasterio.open(path) as file:
        assert file.dtypes == ("float32",) * 3
        assert np.isnan(file.nodata)
        assert file.descriptions == ("r", "g", "b")
        assert file.overviews(1)
        tags = file.tags()
    assert json.loads(tags["GEOBIND_FINGERPRINTS"]) == {"satellite": space.fingerprint("satellite")}
    assert "vector" in tags["GEOBIND_QUERIES"]
    whole = geobind.map(space, AXES, (2, 48, 3, 49), spy, step=0.01)
    part = read_map(path).sel(x=slice(2, 3), y=slice(49, 48))
    np.testing.assert_array_equal(part.values, whole.values)
    assert [p.name for p in tmp_path.iterdir()] == ["map.tif"]


def test_workers_change_nothing(space, tmp_path):
    raster = north_up(tmp_path / "raster.tif", UTM, 500_000, 1_000_000, 10)
    plain, loaded = (geobind.map(space, AXES, None, raster, step=80, ground=80, workers=w) for w in (0, 2))
    np.testing.assert_array_equal(plain.values, loaded.values)


SCRIPT = """
import sys, time
from pathlib import Path
from geobind.mapping.run import write_map
from tests.mapping.places import AXES, Spy, colour_space

class Slow(Spy):
    def tile(self, *given):
        count = Path(sys.argv[2])
        with count.open("a") as file:
            file.write("x")
        if float(sys.argv[3]): time.sleep(float(sys.argv[3]))
        return super().tile(*given)

write_map(colour_space(), AXES, (2, 48, 2.64, 49.5), Slow(), sys.argv[1], step=0.01)
"""


def test_a_killed_map_goes_on_and_is_never_taken_for_a_whole_one(space, tmp_path):
    out, count = tmp_path / "map.tif", tmp_path / "count"
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}

    def start(pause: str) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", SCRIPT, str(out), str(count), pause], env=environment)

    run = start("0.0001")
    done = tmp_path / "map.tif.work" / "done"
    while run.poll() is None and not (done.exists() and sum(done.read_bytes()) >= 1):
        time.sleep(0.01)
    assert run.poll() is None
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert not out.exists()
    finished, before = done.read_bytes(), len(count.read_bytes())
    assert set(finished) == {0, 1}
    assert start("0").wait() == 0
    cells = [64 * 64, 64 * 64, 64 * 22]
    again = len(count.read_bytes()) - before
    assert again == sum(n for n, whole in zip(cells, finished, strict=True) if not whole)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["count", "map.tif"]
    whole = geobind.map(space, AXES, (2, 48, 2.64, 49.5), Spy(), step=0.01)
    np.testing.assert_array_equal(read_map(out).values, whole.values)


def test_another_job_does_not_go_on_from_the_work_of_this_one(space, tmp_path):
    class Broken(Spy):
        def tile(self, latitude, longitude, ground, pixels):
            if len(self.asked) > 1.2 * cube.BLOCK**2:
                raise GeoBindError("the server is down")
            return super().tile(latitude, longitude, ground, pixels)

    out = tmp_path / "map.tif"
    with pytest.raises(GeoBindError, match="the server is down"):
        write_map(space, AXES, (2, 48, 3, 48.64), Broken(), out, step=0.01)
    assert not out.exists()
    spy = Spy()
    write_map(space, AXES, (2, 48, 3, 48.64), spy, out, step=0.01)
    assert len(spy.asked) == 100 * 64 - cube.BLOCK**2
    with pytest.raises(GeoBindError, match="the server is down"):
        write_map(space, AXES, (2, 48, 3, 48.64), Broken(), out, step=0.01)
    spy = Spy()
    write_map(space, {"r": AXES["g"]}, (2, 48, 3, 48.64), spy, out, step=0.01)
    assert len(spy.asked) == 100 * 64


MEMORY = """
import resource, sys
from geobind.mapping.run import write_map
from geobind.mapping.imagery import NoImagery
from tests.mapping.places import AXES, Spy, colour_space

class Sparse(Spy):  # one tile of a thousand, so that the map is large and quick
    def tile(self, latitude, longitude, ground, pixels):
        if round(longitude * 1e5) % 997:
            raise NoImagery("a hole")
        self.asked.clear()
        return super().tile(latitude, longitude, ground, pixels)

write_map(colour_space(), AXES, (0, 0, float(sys.argv[2]), 3), Sparse(), sys.argv[1], step=0.01, batch_size=512)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_area(tmp_path):
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    peak = [
        int(subprocess.run([sys.executable, "-c", MEMORY, str(tmp_path / "map.tif"), degrees],
                           env=environment, capture_output=True, text=True, check=True).stdout)
        for degrees in ("1", "4")
    ]  # fmt: skip
    assert peak[1] < peak[0] * 1.1


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"area": (10, 48, 11, 49)}, "outside the imagery"),
        ({"area": "2.2,48.1,2.1,48"}, "south .48.1. at or above its north"),
        ({"area": "450000,5300000,460000,5310000"}, "looks like metres"),
        ({"area": "1,2,3"}, "3 numbers"),
        ({"area": "nowhere"}, "neither a box nor a file"),
        ({"step": 0.001}, "looks like degrees"),
        ({"step": 500, "crs": "EPSG:4326"}, "side of a cell in degrees"),
        ({"crs": "EPSG:1"}, "no coordinate reference system"),
        ({"when": ["2024-07-01"]}, "not conditioned on time"),
        ({"values": "percentile"}, "geobind calibrate"),
        ({"spread": True}, "at least two templates"),
        ({"modality": "audio"}, "no tower for 'audio'"),
        ({"grond": 3}, "no option grond"),
        ({"query": {}}, "needs a query"),
    ],
)
def test_bad_input_is_one_line_with_the_remedy(space, tmp_path, given, says):
    raster = north_up(tmp_path / "raster.tif", "EPSG:32631", 450_000, 5_330_000, 10)
    query, area = given.pop("query", AXES), given.pop("area", None)
    if given.get("values"):
        query = {"r": AXES["r"]}
    with pytest.raises(GeoBindError, match=says) as caught:
        geobind.map(space, query, area, raster, **given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"count": 1}, "has 1 band, the tower takes 3"),
        ({"dtype": "uint16"}, "holds uint16.*stretch"),
        ({"crs": None}, "no coordinate reference system: set it"),
    ],
)
def test_rasters_that_no_tower_takes(space, tmp_path, options, says):
    crs = options.pop("crs", UTM)
    raster = north_up(tmp_path / "raster.tif", crs, 500_000, 1_000_000, 10, **options)
    with pytest.raises(GeoBindError, match=says) as caught:
        geobind.map(space, AXES, None, raster)
    assert "\n" not in str(caught.value)


def test_bands_of_16_bit_are_chosen_and_stretched(space, tmp_path):
    eight = north_up(tmp_path / "eight.tif", UTM, 500_000, 1_000_000, 10)
    with rasterio.open(eight) as file:
        profile, pixels = file.profile, file.read()
    sixteen = tmp_path / "sixteen.tif"
    with rasterio.open(sixteen, "w", **{**profile, "dtype": "uint16", "photometric": "MINISBLACK"}) as file:
        file.write(pixels[::-1].astype(np.uint16) * 10 + 100)
    imagery = RasterImagery(sixteen, bands=[3, 2, 1], stretch=(100, 2650))
    expected = geobind.map(space, AXES, None, eight, step=80, ground=80)
    np.testing.assert_allclose(
        geobind.map(space, AXES, None, imagery, step=80, ground=80), expected, atol=3e-3
    )
    with pytest.raises(GeoBindError, match="has 3 bands, not number 9"):
        RasterImagery(sixteen, bands=[9, 2, 1])


def test_a_folder_of_located_tiles(space, tmp_path):
    from PIL import Image

    folder = tmp_path / "tiles"
    folder.mkdir()
    lines = ["file,latitude,longitude"]
    for number, (latitude, longitude) in enumerate(((10.05, 20.05), (10.05, 20.15), (10.15, -179.95))):
        colour = [0, 0, 0]
        colour[number] = 200
        Image.new("RGB", (16, 16), tuple(colour)).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{latitude},{longitude}")
    (folder / "tiles.csv").write_text("\n".join(lines))
    found = geobind.map(space, AXES, (20.0, 10.0, 20.3, 10.2), folder, step=0.1, ground=6000)
    assert found.shape == (3, 2, 3)
    np.testing.assert_allclose(found.values[:, 1, 0], [1, 0, 0], atol=1e-3)
    np.testing.assert_allclose(found.values[:, 1, 1], [0, 1, 0], atol=1e-3)
    assert np.isnan(found.values[0, 1, 2])
    assert np.isnan(found.values[:, 0]).all()
    with pytest.raises(GeoBindError, match="no located tiles"):
        open_imagery(tmp_path)


def test_a_half_written_file_has_no_name(space, tmp_path, monkeypatch):
    def full(*given, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("geobind.mapping.geotiff.os.replace", full)
    with pytest.raises(GeoBindError, match="No space left"):
        write_map(space, AXES, BOX, Spy(), tmp_path / "map.tif", step=0.05)
    assert not (tmp_path / "map.tif").exists()


def test_the_command_writes_a_map_and_its_picture(tmp_path, capsys, monkeypatch):
    from geobind.cli import main
    from geobind.towers.base import build_tower
    from tests.mapping.places import Colour

    space = geobind.GeoBind(
        3, [Colour(), build_tower("letters", modality="text", dim=3, takes="text", head="linear")]
    )
    space.save_pretrained(tmp_path / "space")
    north_up(tmp_path / "raster.tif", UTM, 500_000, 1_000_000, 10)
    monkeypatch.chdir(tmp_path)
    command = (
        "geobind map space --text a --imagery raster.tif --step 80 --ground 80 --out map.tif --png map.png"
    )
    monkeypatch.setattr(
        "sys.argv",
        [
            *command.split(),
            "--query",
            "+text:b -text:c@0.5",
            "--template",
            "{}",
            "--template",
            "{}!",
            "--spread",
        ],
    )
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    assert "2 queries written to map.tif" in capsys.readouterr().out
    found = read_map("map.tif")
    assert found.band.values.tolist() == [
        "a",
        "a (spread)",
        "+text:b -text:c@0.5",
        "+text:b -text:c@0.5 (spread)",
    ]
    assert np.isfinite(found.values).any()
    assert (found.sel(band="a (spread)").values[np.isfinite(found.values[0])] >= 0).all()
    assert (tmp_path / "map.png").stat().st_size > 10_000
