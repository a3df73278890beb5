"""Embedding into a gallery: every value once, whenever it was killed, and of each where and when it is."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from PIL import Image

from geobind import GeoBind, GeoBindError, MediaError, build_tower
from geobind.gallery import embedding as module
from geobind.gallery.embedding import embed_to_gallery
from geobind.gallery.store import Gallery
from tests.data.test_shards import write_tar
from tests.server import serving


def content(gallery, *columns):
    """Rows by source."""
    found = [row for batch in gallery.batches(["source", *columns]) for row in batch.to_pylist()]
    assert len(found) == len({row["source"] for row in found})
    return {row["source"]: row for row in found}


def test_a_folder_is_embedded_with_the_places_of_its_names(space, tiles, tmp_path):
    gallery = Gallery(tmp_path / "g")
    counts = embed_to_gallery(space, "satellite", [str(tiles)], gallery)
    assert (counts.added, counts.present, len(counts.unreadable)) == (120, 0, 1)
    assert "broken.jpg is empty" in counts.unreadable[0]
    for source, row in content(gallery, "embedding", "centre_lat", "centre_lon", "tower").items():
        stem = source.rpartition("/")[2].removesuffix(".jpg")
        assert stem == f"{row['centre_lat']:.4f}_{row['centre_lon']:.4f}"
        assert row["tower"] == space.fingerprint("satellite")
    path = next(iter(tiles.rglob("0/*.jpg")))
    np.testing.assert_allclose(
        content(gallery, "embedding")[str(path)]["embedding"], space.embed("satellite", [path])[0], atol=1e-6
    )


def test_the_same_call_again_embeds_only_what_is_new(space, tiles, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 32)
    gallery = Gallery(tmp_path / "g")
    embed_to_gallery(space, "satellite", [str(tiles / "0")], gallery)
    version = gallery.version
    again = embed_to_gallery(space, "satellite", [str(tiles / "0")], gallery)
    assert (again.added, again.present, gallery.version) == (0, 60, version)
    rest = embed_to_gallery(space, "satellite", [str(tiles)], gallery)
    assert (rest.added, rest.present, len(gallery)) == (60, 60, 120)


EMBED = """
import sys
from geobind import GeoBind
from geobind.gallery import embedding
from geobind.gallery.store import Gallery
from tests import toy

embedding.BLOCK = 4
counts = embedding.embed_to_gallery(
    GeoBind.from_pretrained(sys.argv[1]), "satellite", [sys.argv[2]], Gallery(sys.argv[3]), batch_size=2
)
print(counts.added)
"""


def test_killed_at_random_moments_it_ends_with_every_value_once(space, tiles, tmp_path):
    """kill -9, three times, somewhere between its first transaction and its end."""
    space.save_pretrained(tmp_path / "space")
    command = [sys.executable, "-c", EMBED, str(tmp_path / "space"), str(tiles), str(tmp_path / "g")]
    gallery, rng, partly = Gallery(tmp_path / "g"), random.Random(1), 0
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = len(gallery) if gallery.exists else 0
        while process.poll() is None and not (gallery.exists and len(gallery) > before):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.15))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        partly += 0 < len(gallery) < 120
    assert partly, "no run was killed in the middle"
    there = len(gallery)
    last = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(last.stdout) == 120 - there
    assert len(content(gallery)) == 120


# --- tables, shards, rasters -------------------------------------------------------------------------------


def test_tables_give_places_times_and_vectors(space, tmp_path):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 5)).astype(np.float32)
    table = pa.table(
        {
            "unique_id": [f"id{i}" for i in range(40)],
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 5),
            "centre_lat": rng.uniform(-80, 80, 40).astype(np.float32),
            "centre_lon": rng.uniform(-180, 180, 40).astype(np.float32),
            "timestamp": ["20230119T161811"] * 40,
        }
    )
    pq.write_table(table, tmp_path / "major.parquet", row_group_size=16)
    gallery = Gallery(tmp_path / "g")
    assert embed_to_gallery(space, "environment", [str(tmp_path / "major.parquet")], gallery).added == 40
    row = content(gallery, "embedding", "centre_lat", "timestamp")[f"{tmp_path}/major.parquet#id7"]
    np.testing.assert_allclose(row["embedding"], space.embed("environment", vectors[7:8])[0], atol=1e-6)
    assert row["centre_lat"] == pytest.approx(table["centre_lat"][7].as_py(), abs=1e-6)
    assert row["timestamp"] == "20230119T161811"


def test_a_csv_of_files_and_one_of_texts(space, tiles, tmp_path):
    names = sorted(str(path.relative_to(tiles)) for path in tiles.rglob("0/*.jpg"))[:10]
    table = pa.table(
        {"tile": names, "text": ["a port"] * 5 + ["a bed"] * 5, "lat": [1.0] * 10, "lon": [2.0] * 10}
    )
    pa.csv.write_csv(table, tiles / "sites.csv")
    gallery = Gallery(tmp_path / "g")
    added = embed_to_gallery(space, "satellite", [str(tiles / "sites.csv")], gallery, column="tile").added
    assert added == 10
    assert embed_to_gallery(space, "text", [str(tiles / "sites.csv")], gallery).added == 2
    rows = content(gallery, "centre_lon", "modality")
    assert rows[str(tiles / names[3])]["centre_lon"] == 2
    assert rows["a port"]["modality"] == "text"
    with pytest.raises(GeoBindError, match=r"no column 'satellite'.* --column"):
        embed_to_gallery(space, "satellite", [str(tiles / "sites.csv")], gallery)


def test_tar_shards_in_a_folder_or_over_http(tmp_path):
    """One value a sample, with its place; the member is found by its name or said; a shard grows by what is new."""
    space = GeoBind(64, [build_tower("small", modality="satellite", dim=64, size=32, width=64)])
    shards, tiles = tmp_path / "shards", {}
    for shard in range(2):
        for i in range(20):
            key = f"{shard}{i:02d}"
            picture = Image.effect_noise((40, 40), 10 + i).convert("RGB")
            picture.save(tmp_path / f"{key}.png")
            tiles[key] = tmp_path / f"{key}.png"
        samples = [key for key in tiles if key[0] == str(shard)]
        members = [
            (f"{key}.{kind}", value)
            for key in samples
            for kind, value in (
                ("tile.png", tiles[key].read_bytes()),
                (
                    "json",
                    json.dumps({"latitude": int(key) - 100, "longitude": 5.5}).encode() if shard else b"{}",
                ),
            )
        ]
        write_tar(shards / f"{shard:05d}.tar", members)
    gallery = Gallery(tmp_path / "g")
    with pytest.raises(GeoBindError, match=r"shards has no satellite.* say with --column"):
        embed_to_gallery(space, "satellite", [str(shards)], gallery)
    assert embed_to_gallery(space, "satellite", [str(shards)], gallery, column="tile.png").added == 40
    assert embed_to_gallery(space, "satellite", [str(shards)], gallery, column="tile.png").present == 40
    with serving(shards) as server:
        remote = Gallery(tmp_path / "r")
        address = server.url("{00000..00001}.tar")
        assert embed_to_gallery(space, "satellite", [address], remote, column="tile.png").added == 40
    for rows in (content(gallery, "embedding", "centre_lat"), content(remote, "embedding", "centre_lat")):
        for key, path in tiles.items():
            (row,) = (row for source, row in rows.items() if source.endswith(f"/{key}.tile.png"))
            np.testing.assert_allclose(row["embedding"], space.embed("satellite", [path])[0], atol=1e-5)
            assert row["centre_lat"] == (int(key) - 100 if key[0] == "1" else None)


def test_positions_and_sentences(space, tmp_path):
    gallery = Gallery(tmp_path / "g")
    embed_to_gallery(space, "location", ["-33.9,18.4", "21.3,-157.8"], gallery)
    assert content(gallery, "centre_lat")["-33.9,18.4"]["centre_lat"] == -33.9


# --- bad input ---------------------------------------------------------------------------------------------


def test_unreadable_values_stop_it_on_request_and_a_folder_of_nothing_else_always(space, tiles, tmp_path):
    with pytest.raises(MediaError, match=r"broken\.jpg is empty"):
        embed_to_gallery(space, "satellite", [str(tiles)], Gallery(tmp_path / "a"), on_error="raise")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.jpg").write_text("")
    with pytest.raises(GeoBindError, match="none of the 1 satellite values can be read"):
        embed_to_gallery(space, "satellite", [str(tmp_path / "bad")], Gallery(tmp_path / "b"))


def test_a_gallery_of_another_space_is_refused_before_anything_is_read(space, gallery):
    with pytest.raises(GeoBindError, match="holds vectors of 12 numbers, these have 8"):
        embed_to_gallery(space, "satellite", ["absent.jpg"], gallery)
