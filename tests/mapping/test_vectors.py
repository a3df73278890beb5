"""A map of a gallery is what brute force makes of its rows: in a cell their mean, else the nearest within the ground size."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

import geobind
from geobind import GeoBind, GeoBindError, Query, Term
from geobind.gallery.schema import Origin, rows
from geobind.gallery.store import Gallery
from geobind.mapping.area import METRES_OF_DEGREE, narrowest, project
from geobind.mapping.geotiff import read_map
from geobind.mapping.imagery import open_imagery
from geobind.mapping.nearest import Nearest
from geobind.mapping.run import write_map
from geobind.towers.base import build_tower
from tests import toy  # noqa: F401  registers towers
from tests.mapping.places import UTM, Spy

DIM = 5
QUERY = {
    "q": Query([Term("vector", np.arange(1.0, DIM + 1))]),
    "first": Query([Term("vector", np.eye(DIM)[0])]),
}
ORIGIN = Origin("satellite", "tower-a")


def filled(path, latitude, longitude, *, modality="satellite", seed=0):
    vectors = np.random.default_rng(seed).normal(size=(len(latitude), DIM)).astype(np.float32) + 0.5
    origin = Origin(modality, ORIGIN.tower)
    sources = [f"{modality}{i}" for i in range(len(vectors))]
    gallery = Gallery(path)
    gallery.add(rows(vectors, origin=origin, sources=sources, locations=np.stack([latitude, longitude], 1)))
    return gallery, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def distance(latitude, longitude, other_latitude, other_longitude):
    """(n, m) metres on the sphere."""

    def points(lat, lon):
        lat, lon = np.radians(lat), np.radians(lon)
        return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], -1)

    chord = np.linalg.norm(
        points(latitude, longitude)[:, None] - points(other_latitude, other_longitude)[None], axis=-1
    )
    return 2 * np.degrees(np.arcsin(chord / 2)) * METRES_OF_DEGREE


def brute_force(found, crs, step, ground, vectors, latitude, longitude):
    """Each cell by itself: (cells, dim), NaN where there is nothing."""
    x, y = (part.ravel() for part in np.meshgrid(found.x.values, found.y.values))
    lon, lat = project(x, y, crs, "EPSG:4326")
    px, py = project(longitude, latitude, "EPSG:4326", crs)
    world = {"EPSG:4326": 360.0, "EPSG:3857": 2 * np.pi * 6_378_137}.get(crs)
    result = np.full((len(x), DIM), np.nan)
    for i, away in enumerate(distance(lat, lon, latitude, longitude)):
        east = px - x[i]
        if world:
            east = (east + world / 2) % world - world / 2
        inside = (np.abs(east) < step / 2) & (np.abs(py - y[i]) < step / 2)
        if inside.any():
            result[i] = vectors[inside].mean(0)
        elif away.min() <= ground:
            result[i] = vectors[away.argmin()]
    return result / np.linalg.norm(result, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("crs", "step", "ground", "area", "count"),
    [
        ("EPSG:4326", 0.1, 9_000, (2, 48, 9, 50), 1000),  # more than one block, means and nearest
        ("EPSG:4326", 0.5, 60_000, (178, -20, -178, -16), 60),
        ("EPSG:3857", 50_000, 60_000, (178, -20, -178, -16), 60),
        (UTM, 30_000, 40_000, (179.3, 10, -178, 12), 60),
        ("EPSG:4326", 10, 300_000, (-180, -90, 180, 90), 800),  # poles
        ("EPSG:4326", 90, 3e6, (-180, -90, 180, 90), 40),
        ("EPSG:3413", 100_000, 150_000, (-180, 80, 180, 90), 300),  # around a pole
    ],
)
def test_a_map_is_brute_force(tmp_path, crs, step, ground, area, count):
    rng = np.random.default_rng(1)
    west, south, east, north = area
    longitude = rng.uniform(west - 1, east + 360 * (east < west) + 1, count)
    longitude = (longitude + 180) % 360 - 180
    latitude = rng.uniform(max(south - 1, -90), min(north + 1, 90), count)
    _, vectors = filled(tmp_path / "g", latitude, longitude)
    filled(tmp_path / "g", latitude[:20], longitude[:20] + 1e-3, modality="image", seed=9)  # of no concern
    found = geobind.map(GeoBind(DIM), QUERY, area, tmp_path / "g", crs=crs, step=step, ground=ground)
    expected = brute_force(found, crs, step, ground, vectors, latitude, longitude)
    query = np.arange(1, DIM + 1) / np.linalg.norm(np.arange(1, DIM + 1))
    values = found.values.reshape(2, -1)
    np.testing.assert_array_equal(np.isnan(values[0]), np.isnan(expected[:, 0]))
    np.testing.assert_allclose(values, np.stack([expected @ query, expected[:, 0]]), atol=1e-5)
    assert np.isfinite(values).mean() > 0.2


def test_nearest_is_brute_force():
    rng = np.random.default_rng(0)
    latitude, longitude = rng.uniform(-90, 90, 500), rng.uniform(-180, 180, 500)
    lat, lon = (
        np.append(rng.uniform(-90, 90, 200), [90, -90, 0]),
        np.append(rng.uniform(-180, 180, 200), [0, 77, 180]),
    )
    away = distance(lat, lon, latitude, longitude)
    index, metres = Nearest(latitude, longitude)(lat, lon)
    np.testing.assert_array_equal(index, away.argmin(1))
    np.testing.assert_allclose(metres, away.min(1), rtol=1e-6)
    index, metres = Nearest(latitude, longitude)(lat, lon, 300_000)
    np.testing.assert_array_equal(index, np.where(away.min(1) <= 300_000, away.argmin(1), -1))
    assert (np.isinf(metres) == (index < 0)).all()


@pytest.mark.parametrize(
    ("longitudes", "span"),
    [([179, -178], (179, 182)), ([-10, 20], (-10, 20)), ([5], (5, 5)), ([-170, 100, 170], (100, 190))],
)
def test_the_narrowest_span_of_longitudes(longitudes, span):
    assert narrowest(longitudes) == span


def test_ground_step_and_area_come_from_the_rows(tmp_path):
    latitude, longitude = (
        part.ravel() for part in np.meshgrid(np.arange(-18.95, -18, 0.1), np.arange(179.55, 180.5, 0.1))
    )
    filled(tmp_path / "g", latitude, (longitude + 180) % 360 - 180)
    path = write_map(GeoBind(DIM), QUERY, None, tmp_path / "g", tmp_path / "map.tif")
    found = read_map(path)
    among = found.sel(x=slice(179.55, 180.45), y=slice(-18.05, -18.95))
    assert np.isfinite(among.values).all()
    spacing = 0.1 * METRES_OF_DEGREE * np.cos(np.radians(18.5))
    assert float(found.attrs["GEOBIND_GROUND_METRES"]) == pytest.approx(spacing, rel=0.01)
    assert 179.3 < found.x.values.min() < 179.6
    assert 180.4 < found.x.values.max() < 180.7


def test_a_source_is_light_to_send_and_names_its_version(tmp_path):
    gallery, _ = filled(tmp_path / "g", np.array([1.0, 1.1]), np.array([2.0, 2.1]))
    imagery = open_imagery(tmp_path / "g", attribution="Example")
    again = pickle.loads(pickle.dumps(imagery))
    assert (again.bounds, again.identity, again.attribution) == (imagery.bounds, imagery.identity, "Example")
    gallery.add(rows(np.ones((1, DIM)), origin=ORIGIN, sources=["new"], locations=[[1.0, 2.05]]))
    assert (
        open_imagery(tmp_path / "g").identity != imagery.identity
    )  # a map in work does not go on with other rows


def test_vectors_of_another_kind_go_through_their_tower(tmp_path):
    """AlphaEarth's or Major TOM's vectors are what a `vector` tower reads."""
    tower = build_tower("vector", modality="satellite", width=DIM, dim=3, standardize=False, head="linear")
    space = GeoBind(3, [tower])
    latitude, longitude = np.array([1.05, 1.15]), np.array([2.05, 2.15])
    _, vectors = filled(tmp_path / "g", latitude, longitude)
    query = np.array([1.0, 2, 3])
    found = geobind.map(
        space, {"q": Query([Term("vector", query)])}, None, tmp_path / "g", step=0.1, ground=1000
    )
    expected = space.embed("satellite", list(vectors)) @ (query / np.linalg.norm(query))
    values = [
        found.sel(x=x, y=y, method="nearest").values[0] for x, y in zip(longitude, latitude, strict=True)
    ]
    np.testing.assert_allclose(values, expected, atol=1e-5)


def letters(dim):
    return build_tower("letters", modality="text", dim=dim, takes="text", head="linear")


def test_the_command_draws_a_gallery_and_its_errors_are_one_line(tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space = GeoBind(DIM, [letters(DIM)])
    space.save_pretrained("space")
    latitude, longitude = (
        part.ravel() for part in np.meshgrid(np.arange(0.05, 1, 0.1), np.arange(0.05, 1, 0.1))
    )
    origin = Origin("satellite", "made", (GeoBind.from_pretrained("space").fingerprint("text"),))
    vectors = np.random.default_rng(0).normal(size=(100, DIM))
    given = {"sources": [str(i) for i in range(100)], "locations": np.stack([latitude, longitude], 1)}
    Gallery("mine").add(rows(vectors, origin=origin, **given))
    Gallery("other").add(rows(vectors, origin=Origin("satellite", "of-another-space"), **given))
    Gallery("nowhere").add(rows(vectors, origin=origin, sources=given["sources"]))
    command = ["map", "space", "--text", "a", "--out", "map.tif", "--imagery"]
    status, out, _ = run(*command, "mine", "--step", "0.1", "--area", "0,0,1,1")
    assert (status, "1 query written" in out) == (0, True)
    found = read_map("map.tif")
    text = space.embed("text", ["a"])[0]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = (unit @ text).reshape(10, 10).T[::-1]
    np.testing.assert_allclose(found.values[0], expected, atol=1e-5)
    assert "mine" in found.attrs["GEOBIND_IMAGERY"]
    assert json.loads(found.attrs["GEOBIND_FINGERPRINTS"]) == {"text": space.fingerprint("text")}
    for imagery, options, says in [
        ("other", [], "is of another space"),
        ("nowhere", [], "no row of satellite with a place"),
        ("mine", ["--modality", "audio"], "no row of audio with a place"),
        ("mine", ["--ground", "100", "--step", "0.001"], "too sparse"),
        ("mine", ["--area", "50,50,51,51"], "outside the imagery"),
        ("mine", ["--when", "2024-07-01"], "leave when out"),
    ]:
        status, _, error = run(*command, imagery, *options)
        assert status
        assert says in error
        assert error.count("\n") == 1


def test_a_picture_source_is_not_one_of_vectors(tmp_path):
    filled(tmp_path / "g", np.array([1.0]), np.array([2.0]))
    imagery = open_imagery(tmp_path / "g")
    with pytest.raises(GeoBindError, match="of one place: give the ground size"):
        imagery.default_ground(8)
    with pytest.raises(GeoBindError, match="vectors and no tiles"):
        imagery.tile(1.0, 2.0, 100, 8)
    assert Spy().area((1, 2, 3, 4)).bounds == (1, 2, 3, 4)
