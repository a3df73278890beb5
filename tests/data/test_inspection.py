"""`geobind data inspect` says what is there, and what is wrong with it.

* Layout, counts, sizes and splits are those of the files; every kind of clip is seen, by rate and channels;
* each broken file, cut-off shard, absent member and broken date is told; good rows around them are counted;
* tiles on both sides of a split are found though stored otherwise, and different tiles are not;
* the recipe's lines open the same pairs.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from geobind import GeoBindError, Recipe
from geobind.cli import app
from geobind.data.duplicates import near_duplicates, perceptual_hash
from geobind.data.inspection import density, inspect
from geobind.data.shards import read_shards
from scripts.make_replicas import SAT2CAP_TRAIN, write_hub, write_sat2cap, write_soundingearth

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(dates are none|lack the member):geobind.errors.GeoBindWarning"
)


def test_what_is_there_is_told_and_the_recipe_opens_it(tmp_path: Path) -> None:
    folder = write_hub(tmp_path / "hub", dataset="geosound", rows=12)
    found = inspect(folder)
    assert (found.layout, len(found.pairs), found.checked, found.broken) == ("GeoSound (Hub)", 18, 18, [])
    facts = {facts.name: facts for facts in found.modalities}
    assert facts["satellite"].like == "picture 48 x 48"
    assert facts["audio"].like == "sound 32 kHz mono, up to 10 s"
    assert facts["audio"].size == sum(len(bytes(row["audio"])) for row in found.pairs)
    assert "'recording " in facts["text"].example
    assert [line for line in found.told if "dates are none" in line]
    recipe = yaml.safe_load(found.recipe)
    recipe["towers"] = {m: {"tower": "vector", "width": 2} for m in ("satellite", "audio", "text")}
    opened = Recipe.parse(recipe).open_pairs("hub")
    assert [*opened] == [*found.pairs]
    counts = density(found.pairs)
    assert counts is not None
    assert counts.sum() == 18


def test_every_kind_of_clip_is_seen(tmp_path: Path) -> None:
    found = inspect(write_soundingearth(tmp_path / "s", places=12))
    like = next(facts.like for facts in found.modalities if facts.name == "audio")
    for kind in ("44.1 kHz mono", "48 kHz stereo", "32 kHz mono", "11.025 kHz stereo"):
        assert kind in like
    assert not found.broken


def test_what_is_broken_is_listed_and_the_rest_is_read(tmp_path: Path) -> None:
    folder = write_sat2cap(tmp_path / "s", samples=4, broken=True)
    first, second = (folder / f"{name}.tar" for name in SAT2CAP_TRAIN)
    first.write_bytes(first.read_bytes()[:5000])
    where = read_shards(second).media["overhead.jpg"].value(3)
    content = bytearray(second.read_bytes())
    content[where.offset : where.offset + 300] = bytes(300)
    second.write_bytes(content)
    found = inspect(folder)
    assert len(found.pairs) == 12
    assert [f"{SAT2CAP_TRAIN[0]}.tar is cut off" in found.broken[0], "cannot be decoded" in found.broken[1]] == [
        True, True,
    ]  # fmt: skip
    assert len(found.broken) == 2
    assert any("3 of 12 samples lack the member groundlevel.jpg" in line for line in found.told)
    for path in (second, folder / "9f248448-1d13-43cb-a336-a7d92bc5359e.tar", *folder.glob("1ae*.tar")):
        path.write_bytes(b"")
    with pytest.raises(GeoBindError, match="cut off"):
        inspect(folder)


def picture(seed: int, *, quality: int = 95, size: int = 96, brightness: int = 0) -> bytes:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(20, 220, (6, 6, 3), dtype=np.uint8))
    pixels = np.asarray(small.resize((size, size), Image.Resampling.BICUBIC)).astype(int) + brightness
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def test_near_duplicates_are_found_and_others_are_not(tmp_path: Path) -> None:
    (tmp_path / "tiles").mkdir()
    values = [picture(seed) for seed in range(40)]
    values += [picture(3, quality=30), picture(7, size=120, brightness=5)]  # in test, as in train
    names = [f"tiles/{number}.jpg" for number in range(len(values))]
    for name, value in zip(names, values, strict=True):
        (tmp_path / name).write_bytes(value)
    flat = io.BytesIO()
    Image.new("RGB", (64, 64), (10, 60, 90)).save(flat, "JPEG")
    for number in (42, 43):
        (tmp_path / f"tiles/{number}.jpg").write_bytes(flat.getvalue())
    splits = ["train"] * 20 + ["test"] * 22 + ["train", "test"]
    rows = [f"tiles/{number}.jpg,caption {number},{split}" for number, split in enumerate(splits)]
    (tmp_path / "pairs.csv").write_text("satellite,text,split\n" + "\n".join(rows))
    found = inspect(tmp_path / "pairs.csv")
    assert found.twins == [
        ("tiles/3.jpg", "train", "tiles/40.jpg", "test"),
        ("tiles/7.jpg", "train", "tiles/41.jpg", "test"),
    ]
    assert found.flat == 2, "open sea is like open sea"
    assert "table: " in found.recipe


def test_hashes_are_compared_in_pieces_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**8, 60).astype(np.uint64)
    colours = np.zeros((60, 3))
    one, other = np.arange(30), np.arange(30, 60)
    whole = near_duplicates(hashes, colours, one, other, bits=1)
    truth = [(i, j) for i in range(30) for j in range(30, 60) if bin(hashes[i] ^ hashes[j]).count("1") <= 1]
    assert whole == truth
    monkeypatch.setattr("geobind.data.duplicates._PAIRS_AT_ONCE", 70)
    assert near_duplicates(hashes, colours, one, other, bits=1) == truth
    assert perceptual_hash(picture(1))[0] != perceptual_hash(picture(2))[0]


def test_the_command_prints_it_all(tmp_path: Path) -> None:
    folder = write_soundingearth(tmp_path / "s", places=10)
    (folder / "images" / "40002.jpg").write_bytes(b"no picture")
    run = CliRunner().invoke(app, ["data", "inspect", str(folder)])
    assert run.exit_code == 0, run.output
    for part in (
        "SoundingEarth (Zenodo), 10 rows of 10 places", "split: split_by_key", "Modalities", "Splits", "Where (",
        "row 2, satellite: image", "dates are none", "media of all rows", f"folder: {folder}",
        "{learner: audio, target: satellite, pairs: s}",
    ):  # fmt: skip
        assert part in run.output, run.output
