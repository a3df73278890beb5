"""Scores are what they say: the percentile is the share of the background below, the probability the loss's softmax.

* Percentiles agree with counting, keep the order of cosines, and survive saving; a tower that changes ends them.
* Probabilities sum to 1 over the gallery, under the temperature of the pair, and are refused without one.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from geobind import GeoBind, GeoBindError, calibrate, score
from geobind.cli import app
from geobind.retrieval.scores import backgrounds
from tests.spaces import DIM, vector_pairs, vector_space, vector_tower
from tests.toy import write_recipe

TEXT, SATELLITE = ("text", "satellite"), ("satellite", "text")


def unit(rows: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def space() -> GeoBind:
    space = vector_space("satellite", "text", "audio", "image")
    space.record_binding(["satellite"], {SATELLITE: 0.05})
    space.record_binding(["audio"], {("audio", "satellite"): 0.2})
    return space


@pytest.fixture
def unrelated() -> dict[str, np.ndarray]:
    return {name: unit(200, seed) for seed, name in enumerate(("satellite", "text", "audio", "image"))}


def test_the_percentile_is_the_share_of_the_background_below(space, unrelated):
    calibrate(space, unrelated)
    background = (unrelated["text"] @ unrelated["satellite"].T).ravel()
    asked = np.random.default_rng(5).uniform(-0.9, 0.9, size=(3, 50)).astype(np.float32)
    found = score(space, TEXT, asked, "percentile")
    counted = (background < asked[..., None]).mean(-1)
    assert found.shape == asked.shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, counted, atol=2e-3)
    # Far out the quantiles stand closer: 1 in 1,000 and 1 in 10,000 are told apart.
    for level in (0.001, 0.999, 0.9999):
        cut = np.quantile(background, level)
        assert score(space, TEXT, cut) == pytest.approx(level, rel=1e-3, abs=3e-5)
    np.testing.assert_array_equal(score(space, SATELLITE, asked), found)
    inside = np.sort(background)[100:-100:100]
    assert (np.diff(score(space, TEXT, inside)) > 0).all()


def test_within_a_modality_a_value_is_not_compared_with_itself(space, unrelated):
    calibrate(space, unrelated)
    assert max(space.calibration["satellite", "satellite"]) < 0.999


def test_pairs_that_nothing_binds_are_left_out(space, unrelated):
    calibrate(space, unrelated)
    assert ("audio", "text") in space.calibration
    assert ("image", "text") not in space.calibration


def test_calibration_is_saved_and_ends_with_its_towers(space, unrelated, tmp_path):
    calibrate(space, unrelated)
    space.save_pretrained(tmp_path)
    again = GeoBind.from_pretrained(tmp_path)
    cosines = np.linspace(-1, 1, 100)
    np.testing.assert_array_equal(score(again, TEXT, cosines), score(space, TEXT, cosines))
    again.record_binding(["audio"], {("audio", "satellite"): 0.2})
    assert score(again, TEXT, 0.1) == score(space, TEXT, 0.1)
    with pytest.raises(GeoBindError, match="audio and satellite were never calibrated"):
        score(again, ("audio", "satellite"), cosines)
    again.add(vector_tower("satellite"))
    with pytest.raises(GeoBindError, match="run geobind calibrate"):
        score(again, TEXT, cosines)


def test_large_backgrounds_are_sampled_by_the_seed(space):
    large = {"satellite": unit(3000, 1), "text": unit(3000, 2)}
    calibrate(space, large)
    first = space.calibration["satellite", "text"]
    calibrate(space, large)
    assert space.calibration["satellite", "text"] == first
    calibrate(space, large, seed=1)
    assert space.calibration["satellite", "text"] != first


def test_the_probability_is_the_softmax_of_the_loss_over_the_gallery(space):
    cosines = space.similarity(unit(4, 1), unit(30, 2))
    found = score(space, TEXT, cosines, "probability")
    expected = torch.softmax(torch.as_tensor(cosines) / 0.05, -1).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(score(space, TEXT, cosines, "logit"), cosines / 0.05, rtol=1e-6)
    np.testing.assert_array_equal(score(space, TEXT, cosines, "cosine"), cosines)


@pytest.mark.parametrize("kind", ["logit", "probability"])
def test_emergent_pairs_have_no_probability(space, kind):
    with pytest.raises(GeoBindError, match="no stage has linked audio and text"):
        score(space, ("audio", "text"), [0.2, 0.3], kind)


@pytest.mark.parametrize(
    ("background", "reason"),
    [
        (unit(19, 0), "at least 20 embeddings of 16 numbers"),
        (np.ones((30, 8)), r"shape \(30, 8\)"),
        (np.full((30, DIM), np.nan), "has NaN"),
    ],
)
def test_backgrounds_that_are_none_are_refused(space, background, reason):
    with pytest.raises(GeoBindError, match=reason):
        calibrate(space, {"satellite": background})


def test_unknown_scores_and_modalities_are_named(space):
    with pytest.raises(GeoBindError, match="no score 'percent'; did you mean 'percentile'"):
        score(space, TEXT, [0.1], "percent")
    with pytest.raises(GeoBindError, match="no tower for 'sound'"):
        calibrate(space, {"sound": unit(30, 0)})


def test_backgrounds_are_distinct_values_of_the_held_out_rows_else_of_train(space):
    splits = ["train"] * 60 + ["val"] * 30 + ["test"] * 30
    pairs = vector_pairs("satellite", "text", split=splits)
    found = backgrounds(space, [pairs, pairs])
    assert set(found) == {"satellite", "text"}
    expected = space.embed_rows("text", pairs.split("val"))
    np.testing.assert_allclose(np.sort(found["text"], 0), np.sort(expected, 0), atol=1e-6)
    assert len(backgrounds(space, [pairs], split="train")["text"]) == 60


def test_the_command_calibrates_the_saved_space(tmp_path):
    write_recipe(tmp_path)
    run = str(tmp_path / "run")
    assert CliRunner().invoke(app, ["bind", str(tmp_path / "recipe.yaml"), "--out", run]).exit_code == 0
    before = GeoBind.from_pretrained(run)
    result = CliRunner().invoke(app, ["calibrate", run])
    assert result.exit_code == 0, result.output
    assert "satellite-text" in result.output
    after = GeoBind.from_pretrained(run)
    assert before.fingerprint("satellite") == after.fingerprint("satellite")
    assert 0 < score(after, TEXT, 0.0) < 1
