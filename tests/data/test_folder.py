"""Folders become rows: `<lat>_<lon>.jpg`, or sub-folders by modality with equal stems.

* what a folder holds is what its rows say, whatever the order of the file system;
* one stem is one place, with as many rows as captions; splits are folders;
* files that fit nowhere are left out with a counted warning; layouts that are neither are refused.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from geobind.data.pairs import Pairs
from geobind.errors import GeoBindError, GeoBindWarning


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("a port\n\n  two boats \n" if name.endswith(".txt") else "")


def test_positions_in_names_are_locations(tmp_path: Path) -> None:
    touch(tmp_path, "40.1_-88.25.jpg", "a_7_-33.5_151.jpeg", "b_-33.5_151.jpeg", ".hidden_1_2.jpg")
    pairs = Pairs.from_folder(tmp_path)
    assert pairs.name == tmp_path.name
    assert pairs.modalities == ("satellite", "location")
    assert [row["location"] for row in pairs] == [(40.1, -88.25), (-33.5, 151.0), (-33.5, 151.0)]
    assert pairs[0]["satellite"] == tmp_path / "40.1_-88.25.jpg"
    assert pairs[0]["latitude"] == 40.1
    assert pairs.keys("satellite").tolist() == ["40.1_-88.25.jpg", "a_7_-33.5_151.jpeg", "b_-33.5_151.jpeg"]
    assert pairs.places[1] == pairs.places[2] != pairs.places[0]


def test_a_name_off_the_globe_is_refused_by_file(tmp_path: Path) -> None:
    touch(tmp_path, "95_10.jpg")
    with pytest.raises(GeoBindError, match=r"95_10\.jpg: latitude 95 .* <lat>_<lon>"):
        Pairs.from_folder(tmp_path)


def test_equal_stems_are_one_place_and_each_caption_is_a_row(tmp_path: Path) -> None:
    touch(tmp_path, "satellite/t2.jpg", "satellite/t1.tif", "audio/t1.ogg", "text/t2.txt", "text/t1.txt")
    pairs = Pairs.from_folder(tmp_path, name="harbours")
    assert pairs.name == "harbours"
    assert sorted(pairs.modalities) == ["audio", "satellite", "text"]
    assert pairs.keys("text").tolist() == ["a port", "two boats"] * 2
    assert pairs.keys("audio").tolist() == ["audio/t1.ogg"] * 2 + [None] * 2
    assert pairs[0]["satellite"] == tmp_path / "satellite" / "t1.tif"
    assert pairs[2]["audio"] is None
    assert pairs.places[0] == pairs.places[1] != pairs.places[2] == pairs.places[3]
    assert pairs.splits.tolist() == [None] * 4


def test_stems_may_lie_in_folders_and_hold_positions(tmp_path: Path) -> None:
    touch(tmp_path, "satellite/x/40.5_-88.25.jpg", "audio/x/40.5_-88.25.ogg", "radar/tile_01_02.tif")
    touch(tmp_path, "satellite/tile_01_02.jpg", "satellite/big_1234.5_10.5.jpg", "radar/big_1234.5_10.5.tif")
    pairs = Pairs.from_folder(tmp_path)
    by_key = {row["satellite"].name: row["location"] for row in pairs}
    assert by_key == {"40.5_-88.25.jpg": (40.5, -88.25), "tile_01_02.jpg": None, "big_1234.5_10.5.jpg": None}


def test_split_folders_are_splits(tmp_path: Path) -> None:
    touch(tmp_path, "train/satellite/a.jpg", "train/audio/a.ogg", "test/satellite/a.jpg", "test/audio/a.ogg")
    pairs = Pairs.from_folder(tmp_path)
    assert pairs.splits.tolist() == ["test", "train"]
    assert pairs.places[0] != pairs.places[1]  # equal numbering in two splits is not the same place
    assert pairs.split("train")[0]["audio"] == tmp_path / "train" / "audio" / "a.ogg"
    with pytest.raises(GeoBindError, match="has split folders"):
        Pairs.from_folder(tmp_path, split="test")


def test_split_names_all_rows_of_a_plain_folder(tmp_path: Path) -> None:
    touch(tmp_path, "satellite/a.jpg", "audio/a.ogg")
    assert len(Pairs.from_folder(tmp_path, split="test").split("test")) == 1


def test_captions_on_both_sides_of_split_folders_are_warned_of(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *(f"{split}/{kind}" for split in ("train", "val") for kind in ("satellite/a.jpg", "text/a.txt")),
    )
    with pytest.warns(GeoBindWarning, match="2 text in train and val"):
        Pairs.from_folder(tmp_path)


def test_what_fits_nowhere_is_counted(tmp_path: Path) -> None:
    touch(tmp_path, "satellite/a.jpg", "audio/a.ogg", "satellite/b.jpg", "text/a.md", "audio/c.ogg")
    with pytest.warns(GeoBindWarning, match=r"3 files left out, such as 'text/a\.md'") as caught:
        pairs = Pairs.from_folder(tmp_path)
    assert len(pairs) == 1
    assert caught[0].filename == __file__
    touch(tmp_path / "flat", "1.5_2.5.jpg", "notes.txt")
    with pytest.warns(GeoBindWarning, match="1 files left out"):
        Pairs.from_folder(tmp_path / "flat")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "no pairs"),
        (("a.jpg", "b.jpg"), r"no pairs \(2 files do not fit, such as 'a\.jpg'\)"),
        (("satellite/a.jpg",), "one sub-folder 'satellite'"),
        (("satellite/a.jpg", "audio/b.ogg"), "no pairs"),
        (("satellite/a.jpg", "satellite/a.png", "audio/a.ogg"), "have one stem"),
    ],
)
def test_other_layouts_are_refused(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    touch(tmp_path, *names)
    with pytest.raises(GeoBindError, match=message):
        Pairs.from_folder(tmp_path)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GeoBindError, match="does not exist"):
        Pairs.from_folder(tmp_path / "absent")
