"""Embeddings are repeatable, independent of the batch and survive saving; each tower stands alone on disk."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from geobind import GeoBind, GeoBindError, GeoBindWarning, MediaError, Stage, bind
from tests.spaces import DIM, vector_pairs, vector_space, vector_tower


@pytest.fixture(scope="module")
def bound() -> GeoBind:
    torch.manual_seed(0)
    space = vector_space("satellite", "text")
    bind(
        space,
        Stage(
            learner="satellite",
            target="text",
            pairs=vector_pairs("satellite", "text"),
            epochs=2,
            batch_size=16,
        ),
        progress=False,
    )
    return space


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(50, 24)).astype(np.float32)


def test_embeddings_are_unit_vectors_in_the_order_given(bound, values):
    vectors = bound.embed("satellite", values)
    assert vectors.shape == (50, DIM)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)
    assert np.abs(bound.embed("satellite", values[::-1])[::-1] - vectors).max() <= 1e-6


def test_embed_is_bit_equal_on_repetition_and_independent_of_the_batch(bound, values):
    vectors = bound.embed("satellite", values)
    assert np.array_equal(bound.embed("satellite", values), vectors)
    for batch_size in (1, 7, 50):
        assert np.abs(bound.embed("satellite", values, batch_size=batch_size) - vectors).max() <= 1e-6
    assert np.abs(bound.embed("satellite", values[13:14]) - vectors[13]).max() <= 1e-6
    assert np.array_equal(bound.embed("satellite", values, workers=2), vectors)


def test_embed_in_bfloat16_is_close_and_returns_float32(bound, values):
    exact, short = bound.embed("satellite", values), bound.embed("satellite", values, dtype="bfloat16")
    assert short.dtype == np.float32
    assert 0 < np.abs(exact - short).max() < 0.05


def test_similarity_is_the_cosine(bound, values):
    vectors = bound.embed("satellite", values)
    text = np.random.default_rng(0).normal(size=(3, DIM))
    expected = (text / np.linalg.norm(text, axis=1, keepdims=True)) @ vectors.T
    assert bound.similarity(text, vectors) == pytest.approx(expected, abs=1e-6)
    assert bound.similarity(text[0], vectors).shape == (1, 50)


def test_saving_and_loading_keeps_embeddings_fingerprints_chains_and_temperatures(bound, values, tmp_path):
    bound.save_pretrained(tmp_path)
    loaded = GeoBind.from_pretrained(tmp_path)
    assert loaded.modalities == bound.modalities
    for modality in bound.modalities:
        assert loaded.fingerprint(modality) == bound.fingerprint(modality)
        assert loaded.chain(modality) == bound.chain(modality)
    assert np.array_equal(loaded.embed("satellite", values), bound.embed("satellite", values))
    assert loaded.fingerprint("satellite") == bound.fingerprint(
        "satellite"
    )  # computed again from the loaded weights
    assert loaded.temperatures == bound.temperatures
    assert loaded.trained("text", "satellite")


def test_one_tower_is_loaded_without_reading_another(bound, values, tmp_path):
    bound.save_pretrained(tmp_path)
    for file in (tmp_path / "text").iterdir():
        file.write_bytes(b"not to be read")
    loaded = GeoBind.from_pretrained(tmp_path)
    assert np.array_equal(loaded.embed("satellite", values), bound.embed("satellite", values))
    assert GeoBind.from_pretrained(tmp_path, ["satellite"]).modalities == ["satellite"]


def test_saving_again_leaves_unchanged_towers_alone(bound, tmp_path):
    bound.save_pretrained(tmp_path)
    before = (tmp_path / "satellite" / "model.safetensors").stat().st_mtime_ns
    bound.save_pretrained(tmp_path)
    assert (tmp_path / "satellite" / "model.safetensors").stat().st_mtime_ns == before
    assert not list(tmp_path.glob("*.old")) + list(tmp_path.glob("*.new"))


def test_a_save_cut_off_between_its_two_renames_is_undone(bound, values, tmp_path):
    bound.save_pretrained(tmp_path)
    (tmp_path / "satellite").rename(tmp_path / "satellite.old")
    loaded = GeoBind.from_pretrained(tmp_path)
    assert np.array_equal(loaded.embed("satellite", values), bound.embed("satellite", values))


def test_towers_that_nothing_binds_are_not_comparable(bound):
    space = vector_space("satellite", "audio")
    assert not space.comparable("satellite", "audio")
    assert bound.comparable("satellite", "text")


# --- bad input ---------------------------------------------------------------------------------------------


def test_unreadable_values_raise_by_row_or_become_nan(bound, values):
    broken = [*values[:3], np.full(24, np.nan), np.zeros(5)]
    with pytest.raises(MediaError, match=r"row 3: .*NaN"):
        bound.embed("satellite", broken)
    with pytest.warns(GeoBindWarning, match="2 of 5"):
        vectors = bound.embed("satellite", broken, on_error="skip")
    assert np.isnan(vectors).all(1).tolist() == [False, False, False, True, True]


def test_one_value_instead_of_a_list_is_refused(bound):
    with pytest.raises(GeoBindError, match="a list of values"):
        bound.embed("satellite", "tile.jpg")


def test_unknown_modalities_folders_and_options_are_named(bound, tmp_path):
    with pytest.raises(GeoBindError, match="no tower for 'satelite'; did you mean 'satellite'"):
        bound.embed("satelite", [])
    with pytest.raises(GeoBindError, match=r"no space.json"):
        GeoBind.from_pretrained(tmp_path)
    with pytest.raises(GeoBindError, match="'raise' or 'skip'"):
        bound.embed("satellite", [], on_error="ignore")
    bound.save_pretrained(tmp_path)
    with pytest.raises(GeoBindError, match="no tower for 'audio'"):
        GeoBind.from_pretrained(tmp_path, ["audio"])
    content = json.loads((tmp_path / "space.json").read_text())
    (tmp_path / "space.json").write_text(json.dumps(content | {"format": 99}))
    with pytest.raises(GeoBindError, match="format 99"):
        GeoBind.from_pretrained(tmp_path)


def test_a_tower_of_another_dimension_is_refused():
    with pytest.raises(GeoBindError, match="the space has 99"):
        GeoBind(99, [vector_tower("satellite")])


def test_a_tower_that_gives_nan_is_reported(values):
    space = vector_space("satellite")
    with torch.no_grad():
        space.tower("satellite").head[0].weight.fill_(float("nan"))
    with pytest.raises(GeoBindError, match="gives NaN for row 0"):
        space.embed("satellite", values)
