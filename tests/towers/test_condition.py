"""Towers conditioned on place and time: invariants.

* The published encoding is Sat2Cap's twelve numbers; ours gives every place and time its own, without a seam.
* An embedding is the picture's plus what the encoder of place and time gives; what is missing is a learned
  unknown, for each of the two alone and for both, and bare values say so once.
* What a sample forgets while learning is drawn from its generator alone, and never in evaluation.
* Conditioning is saved, fingerprinted, cached and learned with its tower; plain transformers opens the rest.
"""

from __future__ import annotations

import itertools
import math
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from geobind import (
    Evaluation,
    GeoBind,
    GeoBindError,
    GeoBindWarning,
    MediaError,
    Pairs,
    Stage,
    bind,
    evaluate,
)
from geobind.binding.cache import cache_targets
from geobind.retrieval.baseline import with_stand_ins
from geobind.retrieval.ranks import Partners, partner_ranks
from geobind.towers.base import build_tower, fingerprint, load_tower
from geobind.towers.clip import ClipVision
from geobind.towers.hf import HfVision
from geobind.towers.place_time import NUMBERS, Condition, PlaceTime, encode_place, encode_time
from tests.models import CLIP_CONFIG

VIT = {
    "model_type": "vit", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
    "num_attention_heads": 4, "image_size": 32, "patch_size": 8,
}  # fmt: skip
DUSK = datetime(2021, 5, 30, 18, 30, tzinfo=UTC)


def scene(seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def tower(condition="sat2cap", *, seed: int = 0, **options) -> ClipVision:
    """A tiny CLIP whose encoder of place and time is all but zero."""
    torch.manual_seed(seed)
    made = ClipVision("satellite", config=CLIP_CONFIG, condition=condition, **options)
    for parameter in made.geo_encoder.parameters():
        torch.nn.init.normal_(parameter)
    return made.eval()


def embed(made, **row) -> torch.Tensor:
    with torch.inference_mode():
        return made(**made.processor.collate([made.processor({"satellite": scene(), **row})]))


# --- encodings ---------------------------------------------------------------------------------------------


def test_sat2cap_is_the_published_twelve_numbers():
    place = encode_place("sat2cap", 30.0, -120.0)
    turns = [math.pi * 30 / 90, math.pi * -120 / 180]
    assert place == pytest.approx([f(turn) for turn in turns for f in (math.sin, math.cos)])
    time = encode_time("sat2cap", datetime(2018, 7, 9, 15, 45))
    turns = [2 * math.pi * turn for turn in ((2018 - 2015) / 15, 7 / 12, 9 / 31, 15 / 23)]
    assert time == pytest.approx([f(turn) for turn in turns for f in (math.sin, math.cos)])


@pytest.mark.parametrize(("encoding", "same"), [("sat2cap", True), ("sphere", False)])
def test_only_the_published_encoding_has_aliases(encoding, same):
    poles = encode_place(encoding, 90, 0), encode_place(encoding, -90, 0)
    hours = encode_time(encoding, datetime(2020, 5, 1, 0)), encode_time(encoding, datetime(2020, 5, 1, 23))
    years = encode_time(encoding, datetime(2000, 5, 1)), encode_time(encoding, datetime(2015, 5, 1))
    for one, other in (poles, hours, years):
        assert np.allclose(one, other) == same


def test_sphere_has_no_seam_and_one_point_a_place():
    for longitude in (-180, -37, 121, 180):
        assert np.allclose(encode_place("sphere", 90, longitude), [0, 0, 1])
    assert np.allclose(encode_place("sphere", 12, -180), encode_place("sphere", 12, 180))
    grid = list(itertools.product(range(-80, 81, 20), range(-180, 180, 20)))
    points = np.array([encode_place("sphere", *place) for place in grid])
    assert np.linalg.norm(points, axis=1) == pytest.approx(1)
    gaps = np.linalg.norm(points[:, None] - points, axis=2) + 9 * np.eye(len(points))
    assert gaps.min() > 0.05
    for leap in (2020, 2021):  # one second apart: new year, midnight, the end of February
        for before in (datetime(leap, 12, 31, 23, 59, 59), datetime(leap, 2, 28, 23, 59, 59)):
            one, other = (encode_time("sphere", t) for t in (before, before + timedelta(seconds=1)))
            assert np.abs(np.subtract(one, other)).max() < 1e-4
    half = encode_time("sphere", datetime(2021, 7, 2, 12))  # half a year, half a day
    assert half == pytest.approx([0, -1, 0, -1, 6.5 / 15], abs=1e-3)


# --- the tower ---------------------------------------------------------------------------------------------


def test_names_and_shapes_are_the_published_ones():
    shapes = {key: tuple(value.shape) for key, value in tower().state_dict().items() if "geo_" in key}
    assert shapes == {
        "geo_encoder.fc1.weight": (64, 12), "geo_encoder.fc1.bias": (64,),
        "geo_encoder.fc2.weight": (24, 64), "geo_encoder.fc2.bias": (24,),
        "geo_encoder.unknown_place": (4,), "geo_encoder.unknown_time": (8,), "geo_encoder.unknown": (24,),
    }  # fmt: skip


@pytest.mark.parametrize("encoding", ["sat2cap", "sphere"])
def test_an_embedding_is_the_pictures_plus_what_place_and_time_give(encoding):
    made = tower(encoding)
    geo = made.geo_encoder
    numbers = encode_place(encoding, 10, 20) + encode_time(encoding, datetime(2021, 5, 30, 18, 30))
    added = geo.fc2(torch.relu(geo.fc1(torch.tensor([numbers])))).detach()
    bare = embed(made) - geo.unknown.detach()
    torch.testing.assert_close(embed(made, latitude=10, longitude=20, datetime=DUSK), bare + added)
    with torch.inference_mode():
        pixels = made.processor({"satellite": scene()})["pixels"][None]
        torch.testing.assert_close(bare, made.model(pixel_values=pixels).image_embeds)


def test_a_new_tower_of_the_sphere_is_the_picture_alone():
    torch.manual_seed(0)
    plain = ClipVision("satellite", config=CLIP_CONFIG).eval()
    torch.manual_seed(0)
    made = ClipVision("satellite", config=CLIP_CONFIG, condition="sphere").eval()
    assert torch.equal(embed(made, latitude=10, longitude=20, datetime=DUSK), embed(plain))


@pytest.mark.parametrize("encoding", ["sat2cap", "sphere"])
def test_what_is_missing_is_its_own_unknown(encoding):
    """Each learned vector matters exactly to the rows that lack its part."""
    rows = {
        "both": {"latitude": 10.0, "longitude": 20.0, "datetime": DUSK},
        "place": {"latitude": 10.0, "longitude": 20.0, "datetime": None},
        "time": {"latitude": None, "longitude": float("nan"), "datetime": "2021-05-30T20:30:00+02:00"},
        "none": {"latitude": None, "longitude": None, "datetime": np.datetime64("NaT")},
    }
    before = {name: embed(tower(encoding), **row) for name, row in rows.items()}
    for part, moved in (("unknown_time", "place"), ("unknown_place", "time"), ("unknown", "none")):
        made = tower(encoding)
        torch.nn.init.ones_(getattr(made.geo_encoder, part))
        after = {name: embed(made, **row) for name, row in rows.items()}
        assert {name for name in rows if not torch.equal(after[name], before[name])} == {moved}
    assert torch.equal(before["none"], embed(tower(encoding)))  # a row without these columns


def test_forms_of_a_time_are_the_same_time():
    made = tower("sphere")
    times = [
        DUSK, "2021-05-30T18:30", "2021-05-30 18:30:00Z", np.datetime64("2021-05-30T18:30"),
        datetime(2021, 5, 30, 18, 30),
    ]  # fmt: skip
    first = embed(made, datetime=times[0])
    assert all(torch.equal(embed(made, datetime=time), first) for time in times[1:])


# --- a space -----------------------------------------------------------------------------------------------


def test_embed_takes_place_and_time_one_for_all_or_one_each():
    space, tiles = GeoBind(24, [tower("sphere")]), [scene(0), scene(1), scene(2)]
    times = [datetime(2021, month, 1) for month in (1, 5, 9)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        each = space.embed(
            "satellite", tiles, latitude=np.array([1, 2, 3]), longitude=[4, 5, 6], datetime=times
        )
        alone = space.embed("satellite", tiles[1:2], latitude=2.0, longitude=5.0, datetime="2021-05-01")
        same = space.embed("satellite", tiles, datetime=np.datetime64("2021-05-01"))
    np.testing.assert_allclose(each[1:2], alone, atol=1e-6)
    rows = [{"satellite": tile, "datetime": "2021-05-01"} for tile in tiles]
    assert np.array_equal(same, space.embed_rows("satellite", rows))
    assert not np.allclose(each, same, atol=1e-3)


def test_bare_values_are_unknown_and_say_so_once():
    space = GeoBind(24, [tower()])
    with pytest.warns(GeoBindWarning) as caught:
        bare = space.embed("satellite", [scene()] * 5, batch_size=2)
    assert len(caught) == 1
    assert "latitude, longitude, datetime" in str(caught[0].message)
    assert caught[0].filename == __file__
    rows = [{"satellite": scene(), "latitude": None, "longitude": None, "datetime": None}]
    np.testing.assert_allclose(bare[:1], space.embed_rows("satellite", rows), atol=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"latitude": 1}, "both latitude= and longitude="),
        ({"latitude": [1, 2], "longitude": 3}, "latitude has 2 values for 1 of satellite"),
        ({"latitude": 100, "longitude": 3}, "outside -90..90"),
        ({"datetime": "yesterday"}, "'yesterday' is no time; expected ISO 8601"),
        ({"latitude": [None], "longitude": [3]}, "needs both, or neither"),
    ],
)
def test_wrong_places_and_times_are_one_line(given, message):
    with pytest.raises(GeoBindError, match=message) as caught:
        GeoBind(24, [tower()]).embed("satellite", [scene()], **given)
    assert "\n" not in str(caught.value)


def test_a_tower_without_conditions_takes_none():
    space = GeoBind(24, [ClipVision("satellite", config=CLIP_CONFIG)])
    with pytest.raises(GeoBindError, match="reads no datetime"):
        space.embed("satellite", [scene()], datetime=DUSK)


@pytest.mark.parametrize(
    ("condition", "message"),
    [("circle", "'sat2cap' or 'sphere'"), ({"dropout": 1}, "dropout"), ({"drop": 0.1}, "drop")],
)
def test_wrong_options_are_one_line(condition, message):
    with pytest.raises(GeoBindError, match=message) as caught:
        build_tower("clip", modality="satellite", dim=24, config=CLIP_CONFIG, condition=condition)
    assert "\n" not in str(caught.value)


# --- learning ----------------------------------------------------------------------------------------------


def test_what_is_forgotten_is_drawn_from_the_generator_alone():
    row = {"latitude": 10, "longitude": 20, "datetime": DUSK}
    for encoding, shares in (("sat2cap", (0.7, 0, 0, 0.3)), ("sphere", (0.49, 0.21, 0.21, 0.09))):
        processor = PlaceTime(Condition(encoding=encoding, dropout=0.3))
        assert processor(row, None)["known"].tolist() == [True, True]
        drawn = [tuple(processor(row, np.random.default_rng(seed))["known"].tolist()) for seed in range(2000)]
        counts = [drawn.count(kind) / 2000 for kind in itertools.product((True, False), repeat=2)]
        assert counts == pytest.approx(shares, abs=0.035)
        assert len(processor({}, None)["place_time"]) == sum(NUMBERS[encoding])
    with pytest.raises(MediaError):
        processor({"latitude": 10}, None)


def test_the_picture_is_augmented_as_without_conditions():
    plain = ClipVision("satellite", config=CLIP_CONFIG).processor
    told = tower().processor
    row = {"satellite": scene(), "latitude": 1, "longitude": 2}
    one, other = (p(row, rng=np.random.default_rng(3))["pixels"] for p in (plain, told))
    assert torch.equal(one, other)


def dated_pairs(rows: int = 24) -> Pairs:
    """Tiles that all look alike, and a vector that only the season tells."""
    months = np.arange(rows) % 12 + 1
    season = np.stack([np.sin(2 * np.pi * months / 12), np.cos(2 * np.pi * months / 12)], 1)
    season = np.pad(season, ((0, 0), (0, 22))).astype(np.float32)
    return Pairs.from_columns(
        {"satellite": [np.asarray(scene())] * rows, "season": season, "location": [(5.0, 6.0)] * rows},
        place=np.arange(rows),
        datetime=[datetime(2021, int(month), 15) for month in months],
    )


def test_a_stage_learns_the_season_that_the_picture_does_not_show():
    torch.manual_seed(0)
    season = build_tower("vector", modality="season", dim=24, width=24, standardize=False)
    made = ClipVision("satellite", config=CLIP_CONFIG, condition="sphere", augment=False)
    space, pairs = GeoBind(24, [season, made]), dated_pairs()
    stage = Stage(
        learner="satellite", target="season", pairs=pairs, epochs=40, batch_size=24, lr=1e-2, validation=0,
        schedule="constant",
    )  # fmt: skip
    bind(space, stage, progress=False)
    satellite, target = space.embed_rows("satellite", pairs[:12]), space.embed_rows("season", pairs[:12])
    distance = np.abs((space.similarity(satellite, target).argmax(1) - np.arange(12) + 6) % 12 - 6)
    assert (distance <= 1).mean() > 0.8
    geo = made.geo_encoder
    assert all(
        geo.get_parameter(name).abs().max() > 0 for name in ("unknown", "unknown_place", "unknown_time")
    )


def test_a_stage_on_rows_without_place_and_time_says_so():
    season = build_tower("vector", modality="season", dim=24, width=24, standardize=False)
    space = GeoBind(24, [season, ClipVision("satellite", config=CLIP_CONFIG, condition="sphere")])
    pairs = Pairs.from_columns(
        {"satellite": [np.asarray(scene(n)) for n in range(4)], "season": np.eye(4, 24, dtype=np.float32)},
        place=np.arange(4),
    )
    stage = Stage(learner="satellite", target="season", pairs=pairs, epochs=1, batch_size=4, validation=0)
    with pytest.warns(GeoBindWarning, match="or a stage rows with these columns") as caught:
        bind(space, stage, progress=False)
    assert len(caught) == 1


def test_one_picture_at_two_times_is_two_items_when_judged():
    """All tiles are one file's value; only their dates differ, and each is embedded with its own."""
    season = build_tower("vector", modality="season", dim=24, width=24, standardize=False)
    space, pairs = GeoBind(24, [season, tower("sphere", augment=False)]), dated_pairs(12)
    space.record_binding(["satellite"], {("satellite", "season"): 0.07})
    evaluation = Evaluation(("satellite", "season"), pairs, split=None)
    there, back = evaluate(space, [evaluation], progress=False, draws=2, device="cpu").rows
    assert (there["queries"], there["gallery_size"], back["gallery_size"]) == (12, 12, 12)
    satellite, target = space.embed_rows("satellite", pairs), space.embed_rows("season", pairs)
    ranks = partner_ranks(
        satellite, target, Partners.from_places([[n] for n in range(12)], [[n] for n in range(12)])
    )
    assert there["mrr"] == pytest.approx(np.mean(1 / ranks))
    plain = GeoBind(24, [season, ClipVision("satellite", config=CLIP_CONFIG)])
    plain.record_binding(["satellite"], {("satellite", "season"): 0.07})
    with pytest.raises(GeoBindError, match="a gallery of 1 satellite"):
        evaluate(plain, [evaluation], progress=False)


def test_cached_targets_tell_dates_apart():
    space, pairs = GeoBind(24, [tower("sphere")]), dated_pairs()
    targets = cache_targets(space, "satellite", pairs)
    assert len(set(targets.rows.tolist())) == 12  # one picture at one place, twelve dates
    np.testing.assert_allclose(targets[np.arange(24)], space.embed_rows("satellite", pairs), atol=1e-6)


# --- files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["clip", "hf"])
def test_conditioned_towers_are_read_back_bit_for_bit(tmp_path: Path, kind):
    config = CLIP_CONFIG if kind == "clip" else VIT
    condition = {"encoding": "sphere", "dropout": 0.2}
    made = build_tower(kind, modality="satellite", dim=16, config=config, condition=condition)
    for parameter in made.geo_encoder.parameters():
        torch.nn.init.normal_(parameter)
    made.eval().save(tmp_path)
    again = load_tower(tmp_path)
    row = {"latitude": 10, "longitude": 20, "datetime": DUSK}
    assert torch.equal(embed(again, **row), embed(made, **row))
    assert torch.equal(embed(again), embed(made))
    assert fingerprint(again) == fingerprint(made)
    assert again.processor.place_time.dropout == 0.2
    with pytest.raises(GeoBindError, match="conditioned on place and time"):
        build_tower(kind, modality="satellite", dim=16, weights=str(tmp_path))
    with pytest.raises(GeoBindError, match="another architecture"):
        build_tower(kind, modality="satellite", dim=16, weights=str(tmp_path), condition="sat2cap")


def test_the_picture_side_opens_in_plain_transformers(tmp_path: Path):
    from transformers import CLIPVisionModelWithProjection

    made = tower()
    made.save(tmp_path)
    model, info = CLIPVisionModelWithProjection.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["unexpected_keys"]
    pixels = made.processor({"satellite": scene()})["pixels"][None]
    with torch.inference_mode():
        expected = model(pixels).image_embeds + made.geo_encoder.unknown
    torch.testing.assert_close(embed(made), expected)


def test_fingerprints_know_the_encoding_and_its_weights_but_not_the_dropout():
    made = tower("sphere")
    assert fingerprint(tower({"encoding": "sphere", "dropout": 0.9})) == fingerprint(made)
    with torch.no_grad():
        made.geo_encoder.unknown[0] += 1
    prints = {fingerprint(made), fingerprint(tower("sphere")), fingerprint(tower("sat2cap"))}
    assert len(prints) == 3


def test_a_raster_tower_is_conditioned_too_and_stands_in_for_another():
    torch.manual_seed(0)
    made = HfVision(
        "satellite", config=VIT, channels=2, mean=[0, 0], std=[1, 1], condition="sat2cap", augment=False
    )
    space = GeoBind(32, [made])
    bands = np.random.default_rng(0).normal(size=(2, 32, 32)).astype(np.float32)
    one, other = (
        space.embed("satellite", [bands], datetime=time, latitude=0, longitude=0)
        for time in ("2021-01-01", "2021-06-01")
    )
    assert np.abs(one - other).max() > 1e-4
    other_space = with_stand_ins(GeoBind(32, [made, HfVision("image", config=VIT)]), {"image": "satellite"})
    np.testing.assert_allclose(
        other_space.embed("image", [bands], datetime="2021-01-01", latitude=0, longitude=0), one, atol=1e-6
    )
