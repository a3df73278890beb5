"""A raster's tiles cover every pixel at one size, each as a file of it alone, and lie where their pixels do."""

from __future__ import annotations

import numpy as np
import pytest

from geobind import GeoBindError, MediaError
from geobind.gallery.embedding import embed_to_gallery
from geobind.gallery.store import Gallery
from geobind.gallery.tiles import Windows, centres, footprint, polygons
from geobind.media.images import load_image
from geobind.media.rasters import load_bands

rasterio = pytest.importorskip("rasterio")


def write(path, pixels, crs="EPSG:32633", west=500_000.0, north=5_000_000.0, size=10.0, **options):
    from rasterio.transform import from_origin

    with rasterio.open(
        path, "w", driver="GTiff", count=len(pixels), dtype=pixels.dtype, height=pixels.shape[1],
        width=pixels.shape[2], crs=crs, transform=from_origin(west, north, size, size), **options,
    ) as file:  # fmt: skip
        file.write(pixels)
    return str(path)


@pytest.fixture
def scene(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 150, 230), dtype=np.uint8)
    return write(tmp_path / "scene.tif", pixels), pixels


def test_tiles_are_the_pixels_of_their_windows_and_leave_none_out(scene):
    path, pixels = scene
    tiles = Windows(path, 64)
    seen = np.zeros(pixels.shape[1:], int)
    for i in range(len(tiles)):
        left, top, width, height = tiles.window(i)
        assert (width, height) == (64, 64)
        seen[top : top + height, left : left + width] += 1
        part = pixels[:, top : top + height, left : left + width]
        np.testing.assert_array_equal(load_bands(tiles[i]), part)
        np.testing.assert_array_equal(load_image(tiles[i]), part.transpose(1, 2, 0))
    assert seen.min() == 1
    assert len(tiles) == 3 * 4


def test_corners_and_centre_are_where_the_projection_puts_them(scene):
    from pyproj import Transformer

    to_degrees = Transformer.from_crs(32633, 4326, always_xy=True).transform
    tiles = Windows(scene[0], 64)
    corners = tiles.corners([1])
    np.testing.assert_allclose(corners[0, 0], to_degrees(500_640, 5_000_000), atol=1e-9)
    np.testing.assert_allclose(corners[0, 2], to_degrees(501_280, 4_999_360), atol=1e-9)
    lon, lat = to_degrees(500_960, 4_999_680)
    np.testing.assert_allclose(centres(corners)[0], [lat, lon], atol=1e-6)
    assert footprint(scene[0]).shape == (4, 2)


def test_a_centre_across_the_date_line_lies_on_it():
    corners = np.array([[[179.0, 1], [-179, 1], [-179, -1], [179, -1]]])
    np.testing.assert_allclose(np.abs(centres(corners)), [[0, 180]])


def test_a_big_raster_goes_into_a_gallery_by_tiles_with_their_footprints(scene, tmp_path):
    import shapely

    from geobind import GeoBind, build_tower

    space = GeoBind(8, [build_tower("small", modality="satellite", dim=8, size=32, width=64)])
    gallery = Gallery(tmp_path / "g")
    counts = embed_to_gallery(space, "satellite", [scene[0]], gallery, tile=64)
    assert counts.added == 12
    tiles = Windows(scene[0], 64)
    rows = {row["source"]: row for batch in gallery.batches() for row in batch.to_pylist()}
    row = rows[tiles.names([5])[0]]
    np.testing.assert_allclose(row["embedding"], space.embed("satellite", [tiles[5]])[0], atol=1e-5)
    assert shapely.from_wkb(row["geometry"]).equals(shapely.from_wkb(polygons(tiles.corners([5]))[0]))


def test_tiles_without_a_valid_pixel_are_reported(tmp_path):
    pixels = np.zeros((1, 32, 64), np.uint8)
    pixels[:, :, 32:] = 7
    tiles = Windows(write(tmp_path / "x.tif", pixels, nodata=0), 32)
    assert load_bands(tiles[1]).min() == 7
    with pytest.raises(MediaError, match=r"x\.tif#0,0,32,32 has no valid pixel"):
        tiles[0]


def test_a_file_that_is_no_raster_is_named(tmp_path):
    (tmp_path / "x.tif").write_text("no")
    with pytest.raises(GeoBindError, match=r"x\.tif cannot be opened"):
        Windows(str(tmp_path / "x.tif"), 32)
    assert footprint(tmp_path / "x.tif") is None
