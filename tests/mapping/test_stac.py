"""A map from a STAC search is that of the newest clear scene of each place, read by ranges; failures are told or overcome."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import rasterio
import shapely
from rasterio.warp import transform_bounds

import geobind
from geobind import GeoBind, GeoBindError
from geobind.mapping.imagery import open_imagery
from geobind.mapping.stac import _colour_bands
from geobind.towers.base import build_tower
from tests import toy  # noqa: F401  registers towers
from tests.mapping.places import AXES, Colour, colour_space
from tests.server import Handler, Server, serving

pytest.importorskip("pystac_client")
CRS, PIXEL, SIDE = "EPSG:32601", 100, 1024  # 102.4 km of a scene
CORE = "https://api.stacspec.org/v1.0.0"


class Api(Handler):
    """A STAC API of the server's `items` beside the files of a folder; POST and GET, two items a page."""

    def send(self, content, status=200):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def do_HEAD(self):
        if not self.refused():
            super().do_HEAD()

    def do_GET(self):
        server, path = self.server, urlsplit(self.path).path
        server.agents.add(self.headers["User-Agent"])
        if path == "/v1":
            search = {
                "rel": "search",
                "type": "application/geo+json",
                "href": server.url("v1/search"),
                "method": server.method,
            }
            conforms = [
                f"{CORE}/{part}" for part in ("core", "collections", "item-search", "ogcapi-features")
            ]
            conforms += [f"{CORE}/item-search#sort"] * server.sorts
            self.send({
                "type": "Catalog", "id": "test", "stac_version": "1.0.0", "description": "test", "conformsTo": conforms,
                "links": [{"rel": "self", "href": server.url("v1")}, {"rel": "data", "href": server.url("v1/collections")}, search],
            })  # fmt: skip
        elif path == "/v1/collections":
            self.send({"collections": [server.collection()], "links": []})
        elif path == "/v1/collections/scenes":
            self.send(server.collection())
        elif path.startswith("/v1/collections/"):
            self.send({"code": "NotFound"}, 404)
        elif path == "/v1/search":
            given = {key: value[0] for key, value in parse_qs(urlsplit(self.path).query).items()}
            given["bbox"] = [float(side) for side in given["bbox"].split(",")]
            self.answer(given)
        elif not self.refused():
            super().do_GET()

    def refused(self):
        if self.server.file_failures or self.server.file_status != 200:
            self.server.file_failures = max(0, self.server.file_failures - 1)
            self.send_error(self.server.file_status if self.server.file_status != 200 else 503)
            return True
        return False

    def answer(self, asked):
        server = self.server
        server.searches.append(asked)
        if server.failures:
            server.failures -= 1
            self.send({"code": "overloaded"}, 503)
            return
        west, south, east, north = asked["bbox"]
        boxes = (
            [(west, south, east, north)]
            if west <= east
            else [(west, south, 180, north), (-180, south, east, north)]
        )
        found = [
            item
            for item in server.items
            if any(shapely.box(*box).intersects(server.shapes[item["id"]]) for box in boxes)
        ]
        if asked.get("datetime"):
            start, end = asked["datetime"].split("/")
            found = [item for item in found if start <= item["properties"]["datetime"] <= end]
        if asked.get("sortby"):
            found.sort(key=lambda item: item["properties"]["datetime"], reverse=True)
        start = int(asked.get("token") or 0)
        links = []
        if start + 2 < len(found):
            link = {
                "rel": "next",
                "type": "application/geo+json",
                "href": server.url("v1/search"),
                "method": server.method,
            }
            if server.method == "POST":
                link |= {"body": {"token": str(start + 2)}, "merge": True}
            else:
                box = ",".join(map(str, asked["bbox"]))
                link["href"] += f"?bbox={box}&token={start + 2}"
            links = [link]
        self.send({"type": "FeatureCollection", "features": found[start : start + 2], "links": links})


class StacServer(Server):
    def __init__(self, folder):
        super().__init__(folder, Api)
        self.folder, self.items, self.shapes = folder, [], {}
        self.method, self.sorts, self.failures, self.file_failures, self.file_status = "POST", True, 0, 0, 200
        self.searches, self.agents = [], set()

    def collection(self):
        return {
            "type": "Collection", "id": "scenes", "stac_version": "1.0.0", "description": "test", "license": "CC-BY-4.0", "links": [],
            "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
            "providers": [{"name": "Example Agency", "roles": ["producer"]}],
        }  # fmt: skip

    def add(self, name, left, top, colour, when, cloud=0.0, *, asset="visual", bands=3, crs=CRS, whole=True):
        """A scene of one colour; not whole: its east half holds nothing."""
        pixels = np.zeros((bands, SIDE, SIDE), np.uint8)
        pixels[:3] = np.array(colour, np.uint8)[:, None, None]
        if not whole:
            pixels[:, :, SIDE // 2 :] = 0
        with rasterio.open(
            self.folder / f"{name}.tif", "w", driver="COG", width=SIDE, height=SIDE, count=bands, dtype="uint8", crs=crs,
            transform=rasterio.Affine(PIXEL, 0, left, 0, -PIXEL, top), nodata=0, blocksize=256,
        ) as file:  # fmt: skip
            file.write(pixels)
        box = transform_bounds(crs, "EPSG:4326", left, top - SIDE * PIXEL, left + SIDE * PIXEL, top)
        shape = shapely.box(box[0], box[1], box[2] + 360 * (box[2] < box[0]), box[3])
        if shape.bounds[2] > 180:  # cut at the date line, as RFC 7946 has it
            east = shapely.affinity.translate(shape.intersection(shapely.box(180, -90, 360, 90)), -360)
            shape = shapely.MultiPolygon([shape.intersection(shapely.box(0, -90, 180, 90)), east])
        self.shapes[name] = shape
        named = [{"name": n} for n in ("red", "green", "blue", "nir")[:bands]]
        self.items.append({
            "type": "Feature", "stac_version": "1.0.0", "id": name, "collection": "scenes", "links": [],
            "bbox": list(shape.bounds), "geometry": shapely.geometry.mapping(shape),
            "properties": {"datetime": f"{when}T00:00:00Z"} | ({} if cloud is None else {"eo:cloud_cover": cloud}),
            "assets": {asset: {"href": self.url(f"{name}.tif"), "bands": named}},
        })  # fmt: skip


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    with serving(StacServer(folder)) as made:
        yield made


def address(server, **options):
    extra = "".join(f"&{key}={value}" for key, value in options.items())
    return f"stac:{server.url('v1')}?collection=scenes{extra}"


def mapped(server, area, **options):
    return geobind.map(
        colour_space(), AXES, area, address(server, **options), step=0.1, ground=5000, crs="EPSG:4326"
    )


LEFT, TOP = 300_000, 1_000_000  # of most scenes, which the area lies in
AREA = (-178.6, 8.4, -178.3, 8.7)
RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)


def colours(found):
    """Which colour each cell has, -1 for none."""
    return np.where(np.isnan(found.values[0]), -1, np.nan_to_num(found.values).argmax(0))


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("sorts", [True, False])
def test_the_newest_clear_scene_of_each_place_is_taken(server, method, sorts):
    server.method, server.sorts = method, sorts
    server.add("old", LEFT, TOP, RED, "2024-06-01")
    server.add("newest_cloudy", LEFT, TOP, BLUE, "2024-08-01", cloud=80)
    server.add("newer", LEFT, TOP, GREEN, "2024-07-01", cloud=5)
    assert (colours(mapped(server, AREA)) == 1).all()
    assert len(server.searches) == (
        1 if sorts else 2
    )  # pages; the first covers the area, if it is known to be the newest
    assert (colours(mapped(server, AREA, cloud=90)) == 2).all()
    assert (colours(mapped(server, AREA, datetime="2024-05-01/2024-06-30")) == 0).all()
    found = mapped(server, AREA)
    assert found.attrs["GEOBIND_ATTRIBUTION"] == "Example Agency; CC-BY-4.0"
    assert server.agents == {"geobind"}
    assert any(asked for asked in server.requests if asked)  # ranges of the scenes


def test_where_the_newest_scene_is_cut_off_an_older_one_stands_in(server):
    server.sorts = False  # a search that sorts ends when the footprints cover the area
    server.add("half", LEFT, TOP, GREEN, "2024-07-01", whole=False)
    server.add("whole", LEFT, TOP, RED, "2024-06-01")
    west, south, east, north = transform_bounds(
        CRS, "EPSG:4326", LEFT + 20_000, TOP - 80_000, LEFT + 80_000, TOP - 20_000
    )
    found = colours(mapped(server, (west, south, east, north)))
    assert set(np.unique(found)) == {0, 1}
    assert (found[:, 0] == 1).all()
    assert (found[:, -1] == 0).all()


def test_scenes_across_the_date_line(server):
    server.add("fiji", 120_000, TOP, RED, "2024-06-01")  # west of zone 1's west edge
    found = mapped(server, (179.8, 8.4, -179.8, 8.7))
    assert (colours(found) == 0).all()
    assert server.searches[0]["bbox"][0] > server.searches[0]["bbox"][2]


def test_a_map_has_the_scenes_own_crs_and_resolution(server):
    server.add("scene", LEFT, TOP, GREEN, "2024-06-01")
    found = geobind.map(colour_space(), AXES, AREA, address(server))
    assert found.attrs["crs"] == CRS
    assert float(found.attrs["GEOBIND_GROUND_METRES"]) == pytest.approx(8 * PIXEL, rel=0.01)


def test_naip_has_its_colours_taken_of_four_bands_and_no_clouds(server):
    server.add("naip", LEFT, TOP, BLUE, "2024-06-01", cloud=None, asset="image", bands=4)
    assert (colours(mapped(server, AREA)) == 2).all()
    assert _colour_bands(
        {
            "eo:bands": [
                {"name": "B08", "common_name": "nir"},
                *({"common_name": c} for c in ("blue", "green", "red")),
            ]
        }
    ) == (4, 3, 2)
    assert _colour_bands({"bands": [{"name": "B1"}]}) is None


def test_workers_read_the_scenes_too_and_a_map_goes_on_only_with_the_same_scenes(server):
    server.add("scene", LEFT, TOP, GREEN, "2024-06-01")
    given = {"step": 0.1, "ground": 5000, "crs": "EPSG:4326"}
    plain, loaded = (
        geobind.map(colour_space(), AXES, AREA, address(server), workers=w, **given) for w in (0, 1)
    )
    np.testing.assert_array_equal(plain.values, loaded.values)
    imagery = open_imagery(address(server))
    before = imagery.over(imagery.area(AREA)).identity
    assert imagery.over(imagery.area(AREA)).identity == before
    server.add("newer", LEFT, TOP, RED, "2024-07-01")
    assert imagery.over(imagery.area(AREA)).identity != before


def test_overloaded_servers_are_asked_again(server):
    server.add("scene", LEFT, TOP, GREEN, "2024-06-01")
    server.failures, server.file_failures = 1, 1
    assert (colours(mapped(server, AREA)) == 1).all()
    assert len(server.searches) == 2


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("urllib3.util.Retry.sleep", lambda *given: None)
    letters = build_tower("letters", modality="text", dim=3, takes="text", head="linear")
    GeoBind(3, [Colour(), letters]).save_pretrained("space")
    return tmp_path


def test_failures_are_one_line_through_the_command_line(server, folder, run):
    server.add("cloudy", LEFT, TOP, GREEN, "2024-06-01", cloud=60)
    base = server.url("v1")

    def fails(source, *options):
        area = ",".join(map(str, AREA))
        status, _, error = run(
            "map", "space", "--text", "a", "--out", "map.tif", f"--area={area}", "--imagery", source, *options
        )
        assert status
        assert error.count("\n") == 1, error
        assert not (folder / "map.tif").exists()
        return error

    assert "none of 1 has at most 20 % cloud: raise cloud" in fails(address(server))
    assert "no scene of scenes" in fails(address(server, datetime="2020-01-01/2020-02-01"))
    assert "no collection scene" in (error := fails(f"stac:{base}?collection=scene"))
    assert "did you mean" in error
    assert "name one of visual with asset=" in fails(address(server, cloud=90, asset="B04"))
    assert "no option clouds" in fails(address(server, clouds=90))
    assert "is no STAC search: write stac:https://" in fails(f"stac:{base}")
    assert "cloud is 'few'" in fails(address(server, cloud="few"))
    server.file_status = 403
    assert "asks for a login or signed addresses" in fails(address(server, cloud=90))
    server.file_status, server.failures = 200, 99
    assert "the search fails" in fails(address(server))
    (Path(server.folder) / "page").write_text("{}")
    assert server.url("page") in fails(f"stac:{server.url('page')}?collection=scenes")
    with pytest.raises(GeoBindError, match="covers the whole Earth: give an area"):
        geobind.map(colour_space(), AXES, None, address(server))


def test_a_search_without_its_library_says_how_to_get_it(server, monkeypatch):
    monkeypatch.setitem(sys.modules, "pystac_client", None)
    with pytest.raises(GeoBindError, match=r'pip install "geobind\[geo,stac\]"'):
        mapped(server, AREA)
