"""A gallery holds every row once, under its key, of one space, whatever and whoever adds."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from geobind import GeoBindError, search
from geobind.gallery.schema import MAJOR_TOM, Origin, rows
from geobind.gallery.store import Gallery
from tests.gallery.conftest import DIM, ORIGIN, N


def test_rows_come_back_as_they_were_added(gallery, known):
    assert (len(gallery), gallery.dim, gallery.modalities) == (N, DIM, ["satellite"])
    batch = next(gallery.batches(row_ids=True))
    ids = batch["_rowid"].to_numpy()[[7, 2, 400]]
    found = gallery.take(
        ids, ["source", "embedding", "centre_lat", "timestamp", "tower", "chain"]
    ).to_pylist()
    assert [row["source"] for row in found] == ["tile_7", "tile_2", "tile_400"]
    np.testing.assert_allclose([row["embedding"] for row in found], known.vectors[[7, 2, 400]], atol=1e-7)
    assert found[1]["centre_lat"] is None
    assert found[0]["centre_lat"] == known.latitude[7]
    assert found[0]["timestamp"] == "20200115T120000"
    assert (found[0]["tower"], found[0]["chain"]) == ("tower-a", ["clip:1"])


def test_columns_are_those_of_major_tom_and_ours(gallery):
    names = gallery.table.schema.names
    assert names[: len(MAJOR_TOM)] == list(MAJOR_TOM)
    assert names[len(MAJOR_TOM) :] == ["modality", "source", "tower", "chain"]


def test_adding_again_adds_nothing_and_overlap_adds_the_rest(known, tmp_path):
    gallery = Gallery(tmp_path / "g")
    assert gallery.add(known.rows(slice(0, 100))) == 100
    assert gallery.add(known.rows(slice(0, 100))) == 0
    assert gallery.add(known.rows(slice(50, 150))) == 50
    twice = known.rows(slice(200, 210)).take([*range(10), *range(10)])
    assert gallery.add(twice) == 10
    assert len(gallery) == 160
    assert gallery.present(known.rows(slice(140, 160))["unique_id"].to_pylist()) == set(
        known.rows(slice(140, 150))["unique_id"].to_pylist()
    )


def test_the_same_source_under_another_tower_is_another_row(known, gallery):
    other = Origin("satellite", "tower-b", ("clip:1",))
    assert gallery.add(rows(known.vectors[:3], origin=other, sources=known.sources[:3])) == 3


def test_a_snapshot_stays_as_it_was(gallery, known):
    before = gallery.snapshot()
    gallery.add(rows(known.vectors[:3], origin=ORIGIN, sources=["a", "b", "c"]))
    assert (len(before), len(gallery)) == (N, N + 3)


def test_others_see_what_was_added(gallery, known):
    other = Gallery(gallery.uri)
    assert len(other) == N
    gallery.add(rows(known.vectors[:3], origin=ORIGIN, sources=["a", "b", "c"]))
    assert len(other) == N + 3


def test_an_address_does_what_a_folder_does(known, tmp_path):
    gallery = Gallery(f"file://{tmp_path}/g")
    assert gallery.add(known.rows(slice(0, 50))) == 50
    assert len(Gallery(f"file://{tmp_path}/g")) == 50
    assert search(None, gallery, known.vectors[7], k=1)[0].source == "tile_7"


def test_an_object_store_that_cannot_be_reached_is_one_line():
    options = {
        "aws_endpoint": "http://127.0.0.1:9", "allow_http": "true", "client_max_retries": "0",
        "aws_access_key_id": "none", "aws_secret_access_key": "none", "aws_region": "none",
    }  # fmt: skip
    with pytest.raises(GeoBindError, match="cannot be reached") as error:
        Gallery("s3://bucket/gallery", storage_options=options)
    assert "\n" not in str(error.value)


# --- of one space ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "fits"),
    [
        (Origin("audio", "x", ("tower-a",)), True),  # bound to the gallery's tower
        (Origin("text", "t", ("clip:1",)), True),  # bound to what that was bound to
        (Origin("image", "clip:1", ()), True),
        (Origin("satellite", "tower-z", ("clip:2",)), False),
    ],
)
def test_only_rows_whose_chain_meets_the_gallerys_are_taken(gallery, known, origin, fits):
    new = rows(known.vectors[:2], origin=origin, sources=["a", "b"])
    if fits:
        assert gallery.add(new) == 2
        return
    with pytest.raises(
        GeoBindError, match=r"of another space: the satellite tower tower-z .* \(clip:2\)"
    ) as error:
        gallery.add(new)
    assert "\n" not in str(error.value)
    assert len(gallery) == N


def test_binding_a_new_modality_leaves_a_gallery_valid(space, tmp_path):
    gallery = Gallery(tmp_path / "g")
    gallery.add(rows(np.eye(8), origin=Origin.of(space, "satellite"), sources=list("abcdefgh")))
    space.record_binding(["environment"], {("environment", "satellite"): 0.05})
    gallery.check(Origin.of(space, "environment"), space.dim)
    gallery.check(Origin.of(space, "satellite"), space.dim)


# --- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda v: v[:, :5], rf"holds vectors of {DIM} numbers, these have 5"),
        (lambda v: v * np.where(np.arange(len(v)) == 1, np.nan, 1)[:, None], "vector of 'b' is NaN"),
        (lambda v: v * np.where(np.arange(len(v)) == 1, 0, 1)[:, None], r"vector of 'b' is zero \(1 such"),
        (lambda v: v[:1], r"shape \(1, 12\), expected \(2, dim\)"),
    ],
)
def test_vectors_that_are_none_are_refused_and_nothing_is_lost(gallery, known, change, reason):
    with pytest.raises(GeoBindError, match=reason):
        gallery.add(rows(change(known.vectors[:2]), origin=ORIGIN, sources=["a", "b"]))
    assert len(gallery) == N


def test_places_off_the_globe_are_refused_and_those_of_0_to_360_turned(known):
    with pytest.raises(GeoBindError, match="'b' lies at 100, 20: expected latitude"):
        rows(known.vectors[:2], origin=ORIGIN, sources=["a", "b"], locations=[(1, 2), (100, 20)])
    turned = rows(known.vectors[:1], origin=ORIGIN, sources=["a"], locations=[(1, 190)])
    assert turned["centre_lon"].to_pylist() == [-170]


def test_a_folder_without_a_gallery_says_how_to_make_one(tmp_path):
    with pytest.raises(GeoBindError, match="holds no gallery: make one with `geobind embed"):
        len(Gallery(tmp_path / "none"))


WRITER = """
import sys
import numpy as np
from geobind.gallery.schema import Origin, rows
from geobind.gallery.store import Gallery

uri, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
gallery = Gallery(uri)
for start in range(first, first + count, 20):
    names = [str(i) for i in range(start, start + 20)]
    vectors = np.random.default_rng(start).normal(size=(20, 4))
    gallery.add(rows(vectors, origin=Origin("satellite", "t"), sources=names))
"""


def test_two_writers_at_once_lose_nothing_and_add_nothing_twice(tmp_path):
    """Both make the gallery, and half of what each adds the other adds too."""
    uri = str(tmp_path / "g")
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, uri, str(first), "80"], stderr=subprocess.PIPE, text=True
        )
        for first in (0, 40)
    ]
    errors = [writer.communicate()[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0], errors
    found = [name for batch in Gallery(uri).batches(["source"]) for name in batch["source"].to_pylist()]
    assert sorted(found, key=int) == [str(i) for i in range(120)]
