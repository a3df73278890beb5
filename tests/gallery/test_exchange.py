"""GeoParquet opens elsewhere and comes back the same; published vectors are read as their makers wrote them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from geobind import GeoBindError
from geobind.gallery.exchange import dequantise, read_alphaearth, read_geoparquet, write_geoparquet
from geobind.gallery.schema import MAJOR_TOM, Origin
from geobind.gallery.store import Gallery
from tests.gallery.conftest import N


def test_a_gallery_comes_back_from_geoparquet_and_geopandas_opens_it(gallery, known, tmp_path):
    geopandas = pytest.importorskip("geopandas")
    assert write_geoparquet(gallery, tmp_path / "x.parquet") == N
    frame = geopandas.read_parquet(tmp_path / "x.parquet")
    assert list(frame.columns[: len(MAJOR_TOM)]) == list(MAJOR_TOM)
    assert frame.crs.to_epsg() == 4326 or frame.crs.to_string() == "OGC:CRS84"
    row = frame[frame["source"] == "tile_9"].iloc[0]
    assert (row.geometry.y, row.geometry.x) == (known.latitude[9], known.longitude[9])
    copy = Gallery(tmp_path / "copy")
    assert read_geoparquet(copy, tmp_path / "x.parquet") == N
    assert read_geoparquet(copy, tmp_path / "x.parquet") == 0
    both = [
        sorted(
            (row["unique_id"], *row["embedding"], row["centre_lat"] or 0, row["timestamp"])
            for b in g.batches()
            for row in b.to_pylist()
        )
        for g in (gallery, copy)
    ]
    assert [r[0] for r in both[0]] == [r[0] for r in both[1]]
    np.testing.assert_allclose([r[1:-1] for r in both[0]], [r[1:-1] for r in both[1]], atol=1e-6)


def test_only_what_an_sql_condition_keeps_is_written(gallery, tmp_path):
    assert write_geoparquet(gallery, tmp_path / "x.parquet", where="source = 'tile_9'") == 1


def test_a_table_of_major_tom_is_read_under_the_tower_that_it_is_said_to_be_of(tmp_path, run):
    vectors = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32)
    table = pa.table(
        {
            "unique_id": [f"{i:064x}" for i in range(30)],
            "embedding": pa.array(list(vectors), pa.list_(pa.float32())),
            "timestamp": ["20230119T161811"] * 30,
            "grid_row_u": pa.array(range(30), pa.int16()),
            "centre_lat": pa.array(np.linspace(-80, 80, 30), pa.float32()),
            "centre_lon": pa.array(np.linspace(-170, 170, 30), pa.float32()),
            "pixel_bbox": pa.array([[0, 0, 224, 224]] * 30, pa.list_(pa.int64())),
        }
    )  # fmt: skip
    pq.write_table(table, tmp_path / "m.parquet")
    gallery = Gallery(tmp_path / "g")
    with pytest.raises(GeoBindError, match="or an origin that says which tower"):
        read_geoparquet(gallery, tmp_path / "m.parquet")
    assert (
        read_geoparquet(gallery, tmp_path / "m.parquet", origin=Origin("satellite", "majortom:dinov2")) == 30
    )
    _, out, _ = run(
        "gallery", tmp_path / "same", "--add", tmp_path / "m.parquet", "--tower", "majortom:dinov2"
    )
    assert out.startswith("30 rows")
    assert Gallery(tmp_path / "same").record["towers"] == ["majortom:dinov2"]
    row = next(gallery.batches(where="grid_row_u = 3")).to_pylist()[0]
    np.testing.assert_allclose(row["embedding"], vectors[3] / np.linalg.norm(vectors[3]), atol=1e-6)
    assert (row["pixel_bbox"], row["timestamp"]) == ([0, 0, 224, 224], "20230119T161811")


def test_alphaearth_is_dequantised_to_unit_length_with_places_and_years(tmp_path, run):
    rasterio = pytest.importorskip("rasterio")
    from pyproj import Transformer
    from rasterio.transform import from_origin

    rng = np.random.default_rng(0)
    unit = rng.normal(size=(64, 6, 8))
    unit /= np.linalg.norm(unit, axis=0)
    stored = np.round(np.sign(unit) * np.sqrt(np.abs(unit)) * 127.5).clip(-127, 127).astype(np.int8)
    stored[:, 2, 3] = -128
    (tmp_path / "2021").mkdir()
    path = tmp_path / "2021" / "x-0000008192-0000000000.tiff"
    options = {"crs": "EPSG:32610", "transform": from_origin(500_000, 4_000_000, 10, 10), "nodata": -128}
    with rasterio.open(
        path, "w", driver="GTiff", count=64, dtype="int8", height=6, width=8, **options
    ) as file:
        file.write(stored)
    parts = list(read_alphaearth(path))
    vectors, places, years = (np.concatenate(part) for part in zip(*parts, strict=True))
    assert vectors.shape == (47, 64)
    np.testing.assert_allclose(vectors[0], unit[:, 0, 0], atol=0.01)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    lon, lat = Transformer.from_crs(32610, 4326, always_xy=True).transform(500_015, 3_999_995)
    np.testing.assert_allclose(places[1], [lat, lon], atol=1e-9)
    assert set(years) == {np.datetime64("2021-01-01T00:00:00")}
    assert np.isnan(dequantise([[-128] * 64])).all()
    for added in (47, 0):  # through the command line; twice adds nothing
        status, out, _ = run("gallery", tmp_path / "alphaearth", "--add", path)
        assert (status, out.split()[0]) == (0, str(added))
    stored = next(
        Gallery(tmp_path / "alphaearth").batches(["embedding", "centre_lat", "timestamp"])
    ).to_pydict()
    np.testing.assert_allclose(sorted(stored["centre_lat"]), sorted(places[:, 0]), atol=1e-9)
    assert set(stored["timestamp"]) == {"20210101T000000"}
    assert run("gallery", tmp_path / "coarse", "--add", path, "--step", 4)[1].startswith("4 rows")


@pytest.mark.parametrize("content", ["nothing", None])
def test_a_table_that_is_none_is_named(gallery, tmp_path, content):
    if content:
        (tmp_path / "x.parquet").write_text(content)
    with pytest.raises(GeoBindError, match=r"x\.parquet cannot be read"):
        read_geoparquet(gallery, tmp_path / "x.parquet")
