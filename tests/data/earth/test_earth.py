"""The miniature Earth on disk.

* The same seed gives the same files, bit for bit, whatever the number of processes; another seed does not.
* What is written is an ordinary data set: `Pairs.from_table` reads it, and every file opens.
* Tiles of test places never overlap those of training places, sentences are never on both sides.
* A finished Earth is reused, an interrupted one made again, and what cannot work is refused at once.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from geobind.data.earth import cells
from geobind.data.earth import earth as module
from geobind.data.earth.attributes import FIELDS, Attributes
from geobind.data.earth.earth import ENVIRONMENT, draw_places, make_earth
from geobind.data.earth.world import unit_vectors
from geobind.data.pairs import Pairs
from geobind.errors import GeoBindError
from geobind.media.audio import load_audio
from geobind.media.images import load_image

ALL = {
    **{name: name for name in ("satellite", "image", "audio", "text")},
    "environment": list(ENVIRONMENT),
}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_same_seed_gives_the_same_files(small_earth, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_PLACES_A_TASK", 16)
    again = contents(make_earth(tmp_path / "again", places=60, seed=0, processes=2))
    assert again == contents(small_earth)


def test_another_seed_gives_another_earth(small_earth, tmp_path):
    other = make_earth(tmp_path / "other", places=8, seed=1, processes=1)
    digests = [json.loads((folder / "earth.json").read_text())["digest"] for folder in (small_earth, other)]
    assert digests[0] != digests[1]


def test_pairs_read_it_and_every_file_opens(small_earth):
    pairs = Pairs.from_table(small_earth / "places.parquet", columns=ALL)  # a leak would be an error here
    assert len(pairs) == 60
    assert set(pairs.modalities) == {*ALL, "location"}
    assert len(set(pairs.places.tolist())) == 60
    assert {"train", "test"} <= set(pairs.splits) <= {"train", "val", "test"}
    held_out = [row for row in range(60) if pairs.splits[row] != "train"]
    assert all(pairs[row][name] is not None for row in held_out for name in pairs.modalities)
    assert any(pairs[row]["audio"] is None for row in range(60))
    for row in map(pairs.__getitem__, range(60)):
        assert load_image(row["satellite"]).shape == (32, 32, 3)
        assert row["environment"].shape == (len(ENVIRONMENT),)
        if row["image"] is not None:
            assert load_image(row["image"]).shape == (48, 48, 3)
        if row["audio"] is not None:
            assert load_audio(row["audio"], module.RATE).shape == (module.SECONDS * module.RATE,)


def test_captions_of_views(small_earth):
    captions = Pairs.from_table(small_earth / "captions.parquet")
    assert captions.modalities == ("image", "text")
    images = list((small_earth / "image").iterdir())
    assert len(captions) == module.CAPTIONS * len(images)
    assert len(np.unique(captions.places)) == len(images)
    places = Pairs.from_table(small_earth / "places.parquet", columns=ALL)
    text = {str(row["image"]): row["text"] for row in map(places.__getitem__, range(60)) if row["image"]}
    assert {str(captions[row]["image"]) for row in range(len(captions))} == set(text)
    assert captions[0]["text"] == text[str(captions[0]["image"])]


def test_the_table_tells_what_the_world_tells(small_earth, world):
    table = pq.read_table(small_earth / "places.parquet").to_pydict()
    attributes = Attributes.at(world, table["latitude"], table["longitude"])
    for field in FIELDS:
        assert attributes.names(field) == table[field]
    assert table["cell"] == cells.cell_of(table["latitude"], table["longitude"]).tolist()
    tiles = world.tiles(table["latitude"], table["longitude"])
    for tile, name in zip(tiles, table["satellite"], strict=True):
        written = load_image(small_earth / name).astype(int)
        assert np.abs(written - tile).mean() < 3, "the file is the tile, but for its compression"
    np.testing.assert_allclose(
        table["elevation"], world.elevation(table["latitude"], table["longitude"]), atol=0.01
    )


def test_tiles_of_test_and_training_places_do_not_overlap(world):
    drawn = draw_places(world, 3000, seed=3)
    split = drawn.split
    assert set(np.unique(split)) == {cells.TRAIN, cells.VAL, cells.TEST}
    assert (cells.split_cells(3)[cells.cell_of(drawn.latitude, drawn.longitude)] == split).all()
    points = unit_vectors(drawn.latitude, drawn.longitude)
    closest = np.degrees(np.arccos((points[split == cells.TEST] @ points[split == cells.TRAIN].T).max()))
    assert closest > module.TILE_DEGREES * 2**0.5
    water = drawn.attributes.cover == 0
    assert 0.05 < water.mean() < 0.25, "mostly land"
    sentences = {
        name: {caption.text for row in np.flatnonzero(split == name) for caption in drawn.captions[row]}
        for name in (cells.TRAIN, cells.TEST)
    }
    assert sentences[cells.TRAIN].isdisjoint(sentences[cells.TEST])


def test_a_finished_earth_is_reused_and_a_broken_off_one_made_again(small_earth, tmp_path):
    folder = tmp_path / "earth"
    shutil.copytree(small_earth, folder)
    calls: list[tuple[int, int]] = []
    (folder / "satellite" / "00000.jpg").unlink()  # would come back if anything were rendered
    make_earth(folder, places=60, seed=0, processes=1, progress=lambda *done: calls.append(done))
    assert not calls
    assert not (folder / "satellite" / "00000.jpg").exists()
    marker = json.loads((folder / "earth.json").read_text())
    (folder / "earth.json").write_text(json.dumps(marker | {"digest": None}))
    (folder / "satellite" / "99999.jpg").touch()
    make_earth(folder, places=60, seed=0, processes=1, progress=lambda *done: calls.append(done))
    assert calls == [(60, 60)]
    assert contents(folder) == contents(small_earth)


def test_an_interruption_leaves_an_unfinished_earth(world, tmp_path, monkeypatch):
    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "render_views", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_earth(tmp_path / "earth", places=8, processes=1)
    assert json.loads((tmp_path / "earth" / "earth.json").read_text())["digest"] is None


def test_what_cannot_work_is_refused_before_any_work(world, tmp_path, monkeypatch):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("mine")
    with pytest.raises(GeoBindError, match=r"holds no Earth \(earth.json\): choose an empty or a new folder"):
        make_earth(taken, places=8)
    with pytest.raises(GeoBindError, match="holds no Earth"):
        make_earth(taken / "thesis.txt", places=8)
    with pytest.raises(GeoBindError, match="cannot write"):
        make_earth(taken / "thesis.txt" / "earth", places=8)
    assert contents(taken) == {"thesis.txt": b"mine"}
    with pytest.raises(GeoBindError, match=r"places \(0\)"):
        make_earth(tmp_path / "none", places=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    with pytest.raises(GeoBindError, match="takes 400 MB and 1 MB are free"):
        make_earth(tmp_path / "full", places=10_000)


def test_without_the_extra_nothing_is_written(tmp_path, monkeypatch):
    def missing() -> Path:
        raise GeoBindError('pip install "geobind[demo]"')

    monkeypatch.setattr(module, "blue_marble", missing)
    with pytest.raises(GeoBindError, match="pip install"):
        make_earth(tmp_path / "earth", places=8)
    assert not (tmp_path / "earth").exists()
