"""Parquet with embedded media, as on the Hub, is rows by index.

* A row's bytes are those that the file holds, whatever wrote it; splits are named by files;
* bytes are laid out once, and only of columns that are used; a kill in between leaves nothing half-written;
* broken files and files with other columns are one line.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from geobind import GeoBind, GeoBindError, Pairs, Recipe, build_tower
from geobind.data.embedded import parquet_shards
from geobind.data.inspection import inspect
from geobind.gallery.embedding import embed_to_gallery
from geobind.gallery.store import Gallery
from geobind.media.audio import load_audio
from geobind.media.images import load_image
from scripts.make_replicas import write_hub
from tests.server import Server

pytestmark = pytest.mark.filterwarnings("ignore:.*dates are none:geobind.errors.GeoBindWarning")


@pytest.mark.parametrize(
    ("dataset", "columns", "tile"),
    [
        ("soundingearth", None, "googleearth_image"),
        ("geosound", None, "bingmap_image"),
        ("geosound", {"satellite": "sentinel_image", "audio": "audio"}, "sentinel_image"),
    ],
)
def test_rows_are_what_the_files_hold(tmp_path: Path, dataset: str, columns: dict | None, tile: str) -> None:
    folder = write_hub(tmp_path / "hub", dataset=dataset, rows=12)
    spec = {"folder": str(folder)} | ({"columns": columns} if columns else {})
    pairs = Recipe.parse({"pairs": {"p": spec}}).open_pairs("p")
    truth = [row for shard in parquet_shards(folder) for row in pq.read_table(shard.source).to_pylist()]
    for row, expected in zip(pairs, truth, strict=True):
        assert bytes(row["satellite"]) == expected[tile]["bytes"]
        assert bytes(row["audio"]) == expected["audio"]["bytes"]
        assert row["location"] == pytest.approx((expected["latitude"], expected["longitude"]), abs=1e-5)
    assert Counter(pairs.splits) == {"train": 12, "val": 3, "test": 3}
    assert load_image(pairs[0]["satellite"]).shape == (48, 48, 3)
    assert len(load_audio(pairs[0]["audio"], 48_000)) == 24_000
    assert (pairs[0].get("text") is None) == (columns is not None)
    again = pickle.loads(pickle.dumps(pairs.split("test")))
    assert again[1]["satellite"] == pairs.split("test")[1]["satellite"]


def test_only_columns_in_use_are_laid_out_and_once(tmp_path: Path) -> None:
    folder = write_hub(tmp_path / "hub", dataset="geosound", rows=8)
    laid = tmp_path / "cache" / "media"
    columns = {"satellite": "sentinel_image", "text": "audio_caption"}
    Pairs.from_folder(folder, columns=columns)
    first = {path: path.stat().st_mtime_ns for path in laid.iterdir()}
    assert len(first) == 2 * 4, "four files of one column: bytes and index"
    Pairs.from_folder(folder, columns=columns)
    assert {path: path.stat().st_mtime_ns for path in laid.iterdir()} == first
    Pairs.from_folder(folder)
    assert len(list(laid.iterdir())) == 3 * 2 * 4


def test_a_kill_leaves_only_what_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_hub(tmp_path / "hub", rows=8)
    code = f"""
import os, signal
from geobind.data import embedded
copy, count = embedded._copy, 0
def killed(path, name, file):
    global count
    count += 1
    if count == 3:
        file.write(b"half"); file.flush(); os.kill(os.getpid(), signal.SIGKILL)
    return copy(path, name, file)
embedded._copy = killed
from geobind import Pairs
Pairs.from_folder({str(folder)!r})
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == -9
    kept = {path.name for path in (tmp_path / "cache" / "media").glob("*.parquet")}
    assert len(kept) == 2
    pairs = Pairs.from_folder(folder)
    truth = [row for shard in parquet_shards(folder) for row in pq.read_table(shard.source).to_pylist()]
    assert [bytes(row["audio"]) for row in pairs] == [row["audio"]["bytes"] for row in truth]


def test_what_datasets_writes(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(decode=False), "caption": datasets.Value("string")})
    rows = {"image": [{"bytes": b"one", "path": "1.jpg"}, None], "caption": ["a port", "a farm"]}
    dataset = datasets.Dataset.from_dict(rows, features=features)
    (tmp_path / "hub").mkdir()
    dataset.to_parquet(tmp_path / "hub" / "train-00000-of-00001.parquet")
    pairs = Pairs.from_folder(tmp_path / "hub")
    assert bytes(pairs[0]["image"]) == b"one"
    assert pairs[1] == {"image": None, "text": "a farm"}
    assert set(pairs.splits) == {"train"}
    table = Pairs.from_table(tmp_path / "hub" / "train-00000-of-00001.parquet", columns={"image": "image"})
    assert [row["image"] for row in table] == [b"one", None]


def test_geoparquet_in_parts_has_its_points(tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    for part in range(2):
        points = geopandas.points_from_xy([5.5, 5.5, -70.25], [50.0, 50.0, part])
        frame = geopandas.GeoDataFrame({"tile": [b"1", b"2", b"3"]}, geometry=points, crs=4326)
        (tmp_path / "geo").mkdir(exist_ok=True)
        frame.to_parquet(tmp_path / "geo" / f"part-{part}.parquet")
    pairs = Pairs.from_folder(tmp_path / "geo", columns={"satellite": "tile"})
    assert [row["location"] for row in pairs][2:4] == [(0.0, -70.25), (50.0, 5.5)]
    assert bytes(pairs[5]["satellite"]) == b"3"
    assert pairs.places[0] == pairs.places[1] == pairs.places[3] != pairs.places[5], (
        "one position is one place"
    )


def test_broken_and_strange_files_are_named(tmp_path: Path) -> None:
    folder = write_hub(tmp_path / "hub", rows=8)
    path = folder / "data" / "val-00000-of-00001.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(GeoBindError, match=r"val-00000-of-00001\.parquet is no whole Parquet file .* again"):
        Pairs.from_folder(folder)
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(GeoBindError, match="has other columns than"):
        Pairs.from_folder(folder)
    damaged = bytearray(whole)
    damaged[100:5000] = bytes(4900)
    path.write_bytes(damaged)
    with pytest.raises(GeoBindError, match=r"val-00000-of-00001\.parquet is no whole"):
        Pairs.from_folder(folder)


def test_tables_beside_folders_of_media_are_no_shards(tmp_path: Path) -> None:
    for name in ("satellite/a.jpg", "audio/a.ogg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    pq.write_table(pa.table({"x": [1]}), tmp_path / "labels.parquet")
    assert Pairs.from_folder(tmp_path).modalities == ("audio", "satellite")


def test_of_a_data_set_on_the_hub_the_columns_in_use_travel(host: Server, tmp_path: Path) -> None:
    local = tmp_path / "host" / "datasets" / "owner" / "name" / "resolve" / "main"
    columns = {"satellite": "googleearth_image", "text": "audio_caption"}
    recipe = {"pairs": {"p": {"folder": "hf://datasets/owner/name", "columns": columns}}}
    host.break_off, host.breaks = 3000, 2
    pairs = Recipe.parse(recipe).pairs["p"].open("p", data="elsewhere")
    expected = Pairs.from_folder(local, columns=columns)
    assert [bytes(row["satellite"]) for row in pairs] == [bytes(row["satellite"]) for row in expected]
    assert [row["text"] for row in pairs] == [row["text"] for row in expected]
    assert pairs.splits.tolist() == expected.splits.tolist()
    sounds = sum(len(bytes(row["audio"])) for row in Pairs.from_folder(local))
    assert host.sent < sounds / 2, "sounds stayed where they are; footers of 64 kB travel"
    first, host.sent = host.sent, 0
    Pairs.from_folder("hf://datasets/owner/name", columns=columns)
    assert host.sent < first - 12_000, "the tiles came from the cache"
    space = GeoBind(64, [build_tower("small", modality="satellite", dim=64, size=32, width=64)])
    embed = partial(
        embed_to_gallery, space, "satellite", ["hf://datasets/owner/name"], Gallery(tmp_path / "g")
    )
    there = len(set(pairs.keys("satellite").tolist()))
    assert (embed(column="googleearth_image").added, embed(column="googleearth_image").present) == (
        there,
        there,
    )
    with pytest.raises(GeoBindError, match="geobind data fetch hub:owner/name"):
        inspect("hf://datasets/owner/name")
