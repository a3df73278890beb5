"""SoundingEarth is read as it is published, quirks included.

* Every row's tile and clip are its key's files, `.jpg` or `.jpeg`; mono and stereo clips of any rate decode;
* the split is by the last digit of the key, or GeoCLAP's files, in which clips under 16 kHz are in none;
* recordings at one position are one place; broken dates are missing; absent files are counted.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from geobind import GeoBindError, Pairs
from geobind.errors import GeoBindWarning
from geobind.media.audio import load_audio
from geobind.media.images import load_image
from scripts.make_replicas import write_soundingearth

pytestmark = pytest.mark.filterwarnings("ignore:.*(dates are none|both sides of a split):UserWarning")


def records(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metadata.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_zenodo_rows_are_their_keys_files(tmp_path: Path) -> None:
    folder = write_soundingearth(tmp_path / "s", places=20)
    pairs = Pairs.from_folder(folder)
    table = records(folder)
    assert pairs.modalities == ("satellite", "audio", "text", "location")
    for row, record in zip(pairs, table, strict=True):
        assert row["satellite"] == folder / "images" / f"{record['key']}.jpg"
        assert row["audio"] == folder / "raw_audio" / record["long_key"] / record["mp3name"]
        assert row["text"] == (record["description"] or None)
        assert row["location"] == (float(record["latitude"]), float(record["longitude"]))
        assert load_image(row["satellite"]).shape == (48, 48, 3)
        assert 0.4 < len(load_audio(row["audio"], 48_000)) / 48_000 < 0.7
    last_digit = {"7": "val", "2": "test", "5": "test"}
    assert pairs.splits.tolist() == [last_digit.get(record["key"][-1], "train") for record in table]
    assert pairs[4]["datetime"] is None
    assert pairs[3]["datetime"].isoformat() == "2013-04-13T03:30:00+00:00"


def test_geoclaps_splits_and_tiles(tmp_path: Path) -> None:
    folder = write_soundingearth(tmp_path / "s", places=20, geoclap=True)
    pairs = Pairs.from_folder(folder, columns={"satellite": "sentinel", "audio": "audio", "text": "address"})
    slow = [int(record["mp3samplerate"]) < 16_000 for record in records(folder)]
    assert sum(slow) == 5
    assert [split is None for split in pairs.splits] == slow
    assert {split: (pairs.splits == split).sum() for split in ("train", "val", "test")} == {
        "train": 10, "val": 2, "test": 3,
    }  # fmt: skip
    assert pairs[0]["satellite"] == folder / "images" / "sentinel_geoclap" / "40000.jpeg"
    assert pairs[2]["audio"] is None, "corrupt_ids_final.csv names it"
    assert Pairs.from_folder(folder, split="split_by_key").splits[7] == "val"
    assert Pairs.from_folder(folder)[0]["satellite"].suffix == ".jpg"


def test_one_position_is_one_place(tmp_path: Path) -> None:
    folder = write_soundingearth(tmp_path / "s", places=4)
    rows = records(folder)
    rows[1] |= {axis: rows[0][axis] for axis in ("latitude", "longitude")}
    with open(folder / "metadata.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    places = Pairs.from_folder(folder).places
    assert places[0] == places[1]
    assert len(set(places.tolist())) == 3


def test_absent_files_are_counted_and_rows_lack_them(tmp_path: Path) -> None:
    folder = write_soundingearth(tmp_path / "s", places=6)
    (folder / "images" / "40003.jpg").rename(folder / "images" / "40003.jpeg")
    (folder / "images" / "40001.jpg").unlink()
    next((folder / "raw_audio" / "aporee_9001_10002").iterdir()).unlink()
    clip = next((folder / "raw_audio" / "aporee_9002_10004").iterdir())
    clip.rename(clip.with_name("another name.mp3"))
    with pytest.warns(GeoBindWarning) as caught:
        pairs = Pairs.from_folder(folder)
    told = [str(warning.message) for warning in caught if "is not there" in str(warning.message)]
    assert ["googleearth of 1 of 6" in told[0], "clip of 1 of 6" in told[1]] == [True, True]
    assert pairs[1]["satellite"] is None
    assert pairs[3]["satellite"].suffix == ".jpeg"
    assert pairs[2]["audio"] is None
    assert pairs[4]["audio"].name == "another name.mp3"


def test_options_of_tables_do_not_fit_plain_folders(tmp_path: Path) -> None:
    (tmp_path / "1.5_2.5.jpg").touch()
    with pytest.raises(GeoBindError, match="'columns' belongs to a table, not to the folder of files"):
        Pairs.from_folder(tmp_path, columns={"satellite": "x"})
