"""A Parquet file of embeddings holds what `embed` gives, in the order given, whole or not at all."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from geobind import GeoBindError, GeoBindWarning, MediaError
from geobind import files as module
from geobind.files import embed_to_parquet, read_values
from tests.toy import DIM, toy_space


@pytest.fixture(scope="module")
def space():
    return toy_space()


@pytest.fixture
def tiles(tmp_path):
    """Files in two levels, a hidden file and a hidden folder."""
    folder = tmp_path / "tiles"
    for name in ("b.txt", "a.jpg", "sub/c.jpg", ".hidden.jpg", ".cache/d.jpg", "sub/.e.jpg"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name} badge")
    return folder


def read(path):
    table = pq.read_table(path)
    return table["key"].to_pylist(), np.array(table["embedding"].to_pylist(), np.float32)


def test_rows_are_the_embeddings_in_the_order_given(space, tmp_path):
    sentences = [f"a port {'a' * i}" for i in range(70)][::-1]
    assert embed_to_parquet(space, "text", sentences, tmp_path / "x.parquet", batch_size=16) == (70, 0)
    keys, vectors = read(tmp_path / "x.parquet")
    assert keys == sentences
    np.testing.assert_array_equal(vectors, space.embed("text", sentences, batch_size=16))


def test_the_schema_says_what_the_vectors_are_and_can_be_compared_with(space, tmp_path):
    embed_to_parquet(space, "text", ["a port"], tmp_path / "x.parquet")
    schema = pq.read_schema(tmp_path / "x.parquet")
    assert schema.field("key").type == pa.string()
    assert schema.field("embedding").type == pa.list_(pa.float32(), DIM)
    assert json.loads(schema.metadata[b"geobind"]) == {
        "modality": "text",
        "dim": DIM,
        "fingerprint": space.fingerprint("text"),
        "chain": list(space.chain("text")),
    }


def test_row_groups_are_written_on_the_way_and_change_nothing(space, tmp_path, monkeypatch):
    sentences = [f"{i} bees" for i in range(50)]
    embed_to_parquet(space, "text", sentences, tmp_path / "one.parquet", batch_size=4)
    monkeypatch.setattr(module, "ROW_GROUP", 10)
    embed_to_parquet(space, "text", sentences, tmp_path / "many.parquet", batch_size=4)
    metadata = pq.read_metadata(tmp_path / "many.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [12, 12, 12, 12, 2]
    assert pq.read_table(tmp_path / "one.parquet").equals(pq.read_table(tmp_path / "many.parquet"))


def test_a_stream_leaves_the_callers_torch_as_it_is(space):
    rows = [{"text": "a port"}, {"text": "a farm"}]
    for positions, vectors, errors in space.embed_batches("text", rows, batch_size=1):
        assert len(positions) == len(vectors) == 1
        assert not errors
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


# --- what arguments mean -----------------------------------------------------------------------------------


def test_a_folder_is_its_files_and_those_below_sorted_without_hidden_ones(space, tiles, tmp_path):
    single = str(tiles / ".hidden.jpg")  # named by itself, it is meant
    count, _ = embed_to_parquet(space, "satellite", [str(tiles), single], tmp_path / "x.parquet")
    assert count == 4
    assert read(tmp_path / "x.parquet")[0] == [
        str(tiles / name) for name in ("a.jpg", "b.txt", "sub/c.jpg", ".hidden.jpg")
    ]


def test_text_is_sentences_or_a_file_of_one_a_line(tmp_path):
    path = tmp_path / "captions.txt"
    path.write_text("a port\n\n  un cafe\u0301 \n", encoding="utf-8")
    (part,) = read_values("text", "text", ["a farm", str(path)])
    assert [row["text"] for row in part] == ["a farm", "a port", "un cafe\u0301"] == part.keys.to_pylist()


def test_locations_are_latitude_and_longitude_also_south_and_west(space, tmp_path):
    (part,) = read_values("location", "location", ["-33.9,18.4", "21.3, -157.8", " -1,-2"])
    assert [row["location"] for row in part] == [(-33.9, 18.4), (21.3, -157.8), (-1.0, -2.0)]
    assert part.keys.to_pylist() == ["-33.9,18.4", "21.3, -157.8", "-1,-2"]
    embed_to_parquet(space, "location", ["-33.9,18.4"], tmp_path / "x.parquet")
    np.testing.assert_array_equal(read(tmp_path / "x.parquet")[1], space.embed("location", [(-33.9, 18.4)]))


def test_vectors_come_from_feature_files_one_after_the_other(space, tmp_path):
    vectors = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    keys = [f"cell {i}" for i in range(9)]
    np.savez(tmp_path / "one.npz", key=np.array(keys[:6]), vector=vectors[:6])
    pq.write_table(pa.table({"key": keys[6:], "vector": vectors[6:].tolist()}), tmp_path / "two.parquet")
    arguments = [str(tmp_path / "one.npz"), str(tmp_path / "two.parquet")]
    assert embed_to_parquet(space, "environment", arguments, tmp_path / "x.parquet") == (9, 0)
    found, embeddings = read(tmp_path / "x.parquet")
    assert found == keys
    np.testing.assert_allclose(embeddings, space.embed("environment", vectors), atol=1e-6)


@pytest.mark.parametrize(
    ("takes", "argument", "message"),
    [
        ("text", "missing.txt", "missing.txt cannot be read"),
        ("location", "21.3", "'21.3' is no location: give latitude,longitude"),
        ("location", "here,there", "is no location"),
        ("vector", "missing.npz", "missing.npz does not exist"),
    ],
)
def test_arguments_of_another_form_are_refused(takes, argument, message):
    with pytest.raises(GeoBindError, match=message):
        read_values("x", takes, [argument])


def test_text_files_must_be_utf8(tmp_path):
    (tmp_path / "latin.txt").write_bytes("caf\u00e9".encode("latin-1"))
    with pytest.raises(GeoBindError, match=r"latin\.txt is not UTF-8"):
        read_values("text", "text", [str(tmp_path / "latin.txt")])


@pytest.mark.parametrize("takes", ["file", "text"])
def test_nothing_found_is_an_error(takes, tmp_path):
    (tmp_path / "empty.txt").touch()
    (tmp_path / "folder").mkdir()
    argument = str(tmp_path / ("folder" if takes == "file" else "empty.txt"))
    with pytest.raises(GeoBindError, match=r"nothing to embed in .*: give"):
        read_values("x", takes, [argument])


# --- what cannot be read or written ------------------------------------------------------------------------


def test_skip_leaves_out_counts_and_lists_what_cannot_be_read(space, tiles, tmp_path):
    (tiles / "a.jpg").write_text("")
    arguments = [str(tiles), str(tiles / "missing.jpg")]
    with pytest.warns(
        GeoBindWarning, match=r"2 of 4 satellite values could not be read and are left out: .*a\.jpg"
    ):
        counts = embed_to_parquet(space, "satellite", arguments, tmp_path / "x.parquet", on_error="skip")
    assert counts == (2, 2)
    keys, vectors = read(tmp_path / "x.parquet")
    assert keys == [str(tiles / "b.txt"), str(tiles / "sub/c.jpg")]
    assert np.isfinite(vectors).all()


def test_an_unreadable_value_stops_and_leaves_the_former_file(space, tiles, tmp_path):
    out = tmp_path / "x.parquet"
    embed_to_parquet(space, "satellite", [str(tiles)], out)
    before = out.read_bytes()
    with pytest.raises(MediaError, match=r"missing\.jpg cannot be read"):
        embed_to_parquet(space, "satellite", [str(tiles), str(tiles / "missing.jpg")], out, batch_size=1)
    assert out.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"tiles", "x.parquet"}


def test_a_file_without_a_row_is_not_written(space, tmp_path):
    with pytest.raises(GeoBindError, match=r"none of the 1 satellite values can be read, the first because"):
        embed_to_parquet(space, "satellite", ["missing.jpg"], tmp_path / "x.parquet", on_error="skip")
    assert not list(tmp_path.iterdir())


def test_output_that_cannot_be_written_is_told_before_the_work(space, tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path, tmp_path / "file" / "x.parquet"):
        with pytest.raises(GeoBindError, match=r"^cannot write .*choose another place$"):
            embed_to_parquet(space, "satellite", ["missing.jpg"], out)
    assert {path.name for path in tmp_path.iterdir()} == {"file"}


def test_missing_folders_of_the_output_are_made(space, tmp_path):
    embed_to_parquet(space, "text", ["a port"], tmp_path / "new" / "folder" / "x.parquet")
    assert read(tmp_path / "new" / "folder" / "x.parquet")[0] == ["a port"]


def test_every_family_says_what_it_takes():
    from geobind.towers.clap import AudioProcessor
    from geobind.towers.location import LocationProcessor
    from geobind.towers.pixels import PixelProcessor
    from geobind.towers.small_text import SmallTextProcessor
    from geobind.towers.tokens import TextProcessor
    from geobind.towers.vector import VectorProcessor

    taken = {
        AudioProcessor: "file",
        PixelProcessor: "file",
        LocationProcessor: "location",
        SmallTextProcessor: "text",
        TextProcessor: "text",
        VectorProcessor: "vector",
    }
    assert {processor: processor.takes for processor in taken} == taken
