"""`Pairs` are rows of modalities by index.

* places keep their number through subsets, splits and holdouts; a holdout splits no place;
* keys identify values: equal where the value is, kept by any selection;
* pairs come back from pickle as they were, at a size of the rows, not of the feature files;
* values on both sides of a split are found, counted and warned of once.
"""

from __future__ import annotations

import multiprocessing
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geobind.data.pairs import Pairs
from geobind.errors import GeoBindError, GeoBindWarning


def assert_rows_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        np.testing.assert_equal(other[key], value)


@pytest.fixture
def pairs(tmp_path: Path) -> Pairs:
    np.savez(
        tmp_path / "f.npz", key=[f"{i}.jpg" for i in range(100)], vector=np.arange(300.0).reshape(100, 3)
    )
    rows = np.arange(40)
    return Pairs.from_columns(
        {
            "satellite": [f"{i // 2}.jpg" for i in rows],
            "image": [None if i % 5 == 0 else f"photo_{i}.jpg" for i in rows],
            "text": [f"caption {i}" for i in rows],
            "location": [(i // 2, 2.0 * (i // 2)) for i in rows],
            "environment": np.random.default_rng(0).normal(size=(40, 4)),
        },
        root=tmp_path,
        features={"satellite": tmp_path / "f.npz"},
        split=["train" if i < 30 else "test" for i in rows],
        group=[("port", "farm", None, "")[i % 4] for i in rows],
        datetime=["2020-01-01" if i % 2 else None for i in rows],
    )


def test_rows_hold_what_processors_read(pairs: Pairs, tmp_path: Path) -> None:
    row = pairs[3]
    np.testing.assert_array_equal(row["satellite"], np.array([3, 4, 5], np.float32))
    assert row["satellite"].dtype == row["environment"].dtype == np.float32
    assert row["image"] == tmp_path / "photo_3.jpg"
    assert row["text"] == "caption 3"
    assert row["location"] == (row["latitude"], row["longitude"]) == (1.0, 2.0)
    assert pairs[5]["image"] is None
    assert (len(pairs), pairs[-1]["text"], pairs[np.int64(2)]["text"]) == (40, "caption 39", "caption 2")
    assert [r["text"] for r in pairs[3:9:3]] == ["caption 3", "caption 6"]
    assert pairs.groups[:4].tolist() == ["port", "farm", None, None]
    with pytest.raises(IndexError):
        pairs[40]


def test_what_a_row_gives_is_the_callers_own(pairs: Pairs) -> None:
    pairs[0]["satellite"][:] = -1
    pairs[0]["environment"][:] = -1
    assert (pairs[0]["satellite"] >= 0).all()
    assert (pairs[0]["environment"] != -1).all()


@given(st.lists(st.integers(0, 39), max_size=30), st.lists(st.integers(0, 29), max_size=10))
@settings(max_examples=25, deadline=None)
def test_subsets_of_subsets_are_the_rows_they_name(rows: list[int], again: list[int]) -> None:
    pairs = Pairs.from_columns(
        {"satellite": [f"{i // 3}.jpg" for i in range(40)], "environment": np.arange(40.0)},
        split=[str(i % 2) for i in range(40)],
    )
    again = [i for i in again if i < len(rows)]
    chosen = pairs.subset(rows).subset(again)
    original = [rows[i] for i in again]
    assert len(chosen) == len(original)
    assert chosen.places.tolist() == pairs.places[original].tolist()
    assert chosen.splits.tolist() == pairs.splits[original].tolist()
    assert chosen.keys("satellite").tolist() == pairs.keys("satellite")[original].tolist()
    for mine, theirs in zip(chosen, original, strict=True):
        assert_rows_equal(mine, pairs[theirs])


def test_a_mask_selects_as_its_rows_do(pairs: Pairs) -> None:
    mask = np.arange(40) % 7 == 0
    assert pairs.subset(mask).keys("text").tolist() == pairs.keys("text")[mask].tolist()


@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.9])
def test_a_holdout_splits_no_place(pairs: Pairs, fraction: float) -> None:
    train, held_out = pairs.holdout(fraction, seed=1)
    assert not set(train.places) & set(held_out.places)
    assert len(train) + len(held_out) == len(pairs)
    assert len(set(held_out.places)) == max(1, round(20 * fraction))
    again = pairs.holdout(fraction, seed=1)[1]
    assert again.keys("text").tolist() == held_out.keys("text").tolist()
    assert pairs.holdout(fraction, seed=2)[1].keys("text").tolist() != held_out.keys("text").tolist()


@pytest.mark.parametrize("fraction", [0.0, 1.0, 0.99])
def test_a_holdout_leaves_places_on_both_sides(pairs: Pairs, fraction: float) -> None:
    with pytest.raises(GeoBindError, match="cannot be held out"):
        pairs.holdout(fraction, seed=0)


def test_splits_are_selected_by_name(pairs: Pairs) -> None:
    assert len(pairs.split("test")) == 10
    with pytest.raises(GeoBindError, match="no split 'tset'; did you mean 'test'"):
        pairs.split("tset")
    with pytest.raises(GeoBindError, match="have no splits"):
        Pairs.from_columns({"text": ["a", "b"]}).split("train")


def test_having_keeps_rows_that_lack_nothing(pairs: Pairs) -> None:
    assert pairs.having(["text", "image"]).keys("text").tolist() == [
        f"caption {i}" for i in range(40) if i % 5
    ]
    assert pairs.having(["text"]) is pairs
    with pytest.raises(GeoBindError, match="have no modality 'audio'"):
        pairs.having(["audio"])
    with pytest.raises(GeoBindError, match="no row of pairs 'pairs' has all of text, image"):
        pairs.subset([0, 5]).having(["text", "image"])


# --- places and keys -----------------------------------------------------------------------------------------


def test_places_are_ids_else_satellite_else_position_else_rows() -> None:
    columns = {"satellite": ["a", "a", "b", None, None], "location": [(0, 0), (1, 1), (1, 1), (1, 1), None]}

    def numbers(*modalities: str, **options: Any) -> list[int]:
        text = {"text": list("vwxyz")}
        chosen = text | {name: columns[name] for name in modalities}
        places = Pairs.from_columns(chosen, **options).places
        return np.unique(places, return_inverse=True)[1].tolist()

    assert numbers("satellite", "location") == [0, 0, 1, 2, 3]
    assert numbers("location") == [0, 1, 1, 1, 2]
    assert numbers() == [0, 1, 2, 3, 4]
    assert numbers("satellite", place=[5, 5, "x", "x", None]) == [0, 0, 1, 1, 2]


def test_keys_are_equal_where_values_are() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    values = {
        "satellite": [image, image.copy(), image[:2], None],
        "audio": [(np.zeros(8), 16000), (np.zeros(8), 16000), (np.zeros(8), 8000), None],
        "environment": [[1.0, 2.0], [1.0, 2.0], [1.0, 3.0], None],
        "radar": [b"x", b"x", b"y", None],
    }
    pairs = Pairs.from_columns(values)
    for modality in values:
        one, two, three, missing = pairs.keys(modality)
        assert one == two != three
        assert missing is None
    assert pairs[0]["satellite"] is image
    assert pairs[2]["audio"][1] == 8000


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({}, {}, "no modality"),
        ({"text": []}, {}, "no rows"),
        ({"text": ["a"], "satellite": ["a", "b"]}, {}, "2 values of 'satellite' but 1 of 'text'"),
        ({"text": ["a"]}, {"split": []}, "0 values of 'split'"),
        ({"location": [(1, 2, 3)]}, {}, "expected .rows, 2."),
        ({"location": [(1, 2), (3,)]}, {}, "no pairs of latitude and longitude"),
        ({"environment": [[1.0], [2.0, 3.0]]}, {}, "row 1 .*: environment has 2 numbers, before it had 1"),
        ({"environment": np.array([[np.nan]])}, {}, "row 0 .*NaN"),
        ({"text": ["a"]}, {"features": {"audio": "x.npz"}}, "features for 'audio', which is no column"),
        ({"satellite": ["a.jpg"]}, {"root": "no/such/folder"}, "root folder .* does not exist"),
    ],
)
def test_columns_that_do_not_fit_get_one_line(columns: Any, options: Any, message: str) -> None:
    with pytest.raises(GeoBindError, match=message) as caught:
        Pairs.from_columns(columns, **options)
    assert "\n" not in str(caught.value)


# --- both sides of a split -----------------------------------------------------------------------------------


def test_values_on_both_sides_of_a_split_are_warned_of_once() -> None:
    columns = {
        "satellite": ["a", "b", "c", "d", "a"],
        "text": ["port", "farm", "port", "farm", "port"],
        "image": ["1", "2", "3", "4", "5"],
    }
    split = ["train", "train", "test", "val", None]
    with pytest.warns(GeoBindWarning) as caught:
        pairs = Pairs.from_columns(columns, split=split)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    message = str(caught[0].message)
    assert "1 text in train and test (such as 'port')" in message
    assert "1 text in train and val (such as 'farm')" in message
    assert "satellite" not in message.replace("'pairs'", "")
    assert {m: {s: k.tolist() for s, k in found.items()} for m, found in pairs.leaks().items()} == {
        "text": {"test": ["port"], "val": ["farm"]}
    }
    assert pairs.shared("text", "train", "test").tolist() == ["port"]
    assert pairs.shared("image", "train", "test").tolist() == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pairs.split("train").holdout(0.5, seed=0)  # said once is enough


def test_shared_equals_sets(sample: Path) -> None:
    with pytest.warns(GeoBindWarning, match="text in train and test"):
        pairs = Pairs.from_table(sample / "satellite_text.csv")
    expected = set(pairs.split("train").keys("text")) & set(pairs.split("test").keys("text"))
    assert set(pairs.shared("text", "train", "test")) == expected
    assert pairs.leaks().keys() == {"text"}
    assert len(pairs.split("test")) == 1363
    assert len(set(pairs.split("test").places)) == 600


# --- travelling ----------------------------------------------------------------------------------------------


def _caption_and_vector(pairs: Pairs, row: int) -> tuple[str, list[float]]:
    return pairs[row]["text"], pairs[row]["satellite"].tolist()


def test_pairs_travel_to_a_spawned_process(pairs: Pairs) -> None:
    again = pickle.loads(pickle.dumps(pairs))
    for row in range(len(pairs)):
        assert_rows_equal(again[row], pairs[row])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_caption_and_vector, (pairs, 7)) == ("caption 7", [9.0, 10.0, 11.0])


def test_a_subset_is_sent_without_the_rest() -> None:
    n = 20_000
    texts = pa.array([f"a caption of row {i}" for i in range(n)])
    pairs = Pairs.from_columns({"text": texts, "environment": np.zeros((n, 64), np.float32)})
    whole, part = (len(pickle.dumps(p)) for p in (pairs, pairs.subset(np.arange(0, n, 100))))
    assert part < whole / 50
