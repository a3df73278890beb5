"""CLAP towers: invariants.

* The same sound gives the same vector bit for bit, and to 1e-6 whatever else is in the batch.
* A sound of at most ten seconds gives what the library gives for a short one; a longer one gives the mean
  of its windows, or with `fusion` what the library gives for its front, its middle and its back.
* Frozen, cached and embedded again it is the same; batch normalisation moves while learning and never else.
* A saved tower's folder opens in plain transformers and is read back bit for bit.
"""

from __future__ import annotations

import copy
import itertools
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from geobind import GeoBind, Pairs, Stage, bind
from geobind.errors import GeoBindError, MediaError
from geobind.media.audio import windows
from geobind.towers.base import build_tower, fingerprint, load_tower
from geobind.towers.clap import ClapAudio, ClapText
from tests.models import CLAP_CONFIG, save_clap_tokenizer, save_joint

RATE = 48_000
FUSED = {"frequency_min": 50, "frequency_max": 14_000, "truncation": "fusion", "padding": "repeatpad"}
TEXTS = ["the sound of waves", "a dog", "rain that falls on a tin roof"]


@pytest.fixture(scope="module")
def clap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_joint(tmp_path_factory.mktemp("clap"), "clap", **FUSED)


def unfused() -> dict:
    config = copy.deepcopy(CLAP_CONFIG)
    config["audio_config"]["enable_fusion"] = False
    return config


def sound(seconds: float, seed: int = 0, rate: int = RATE) -> tuple[np.ndarray, int]:
    """Noise whose loudness swells and sinks."""
    samples = round(seconds * rate)
    noise = np.random.default_rng(seed).normal(size=samples) * np.sin(np.arange(samples) / rate)
    return (0.1 * noise).astype(np.float32), rate


def embed(tower, *values) -> torch.Tensor:
    items = [tower.processor({tower.modality: value}) for value in values]
    with torch.inference_mode():
        return tower.eval()(**tower.processor.collate(items))


# --- audio -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [10, 3.3])
@pytest.mark.parametrize("fused", [True, False])
def test_a_short_sound_gives_what_the_library_gives(clap, seconds, fused):
    from transformers import ClapFeatureExtractor

    tower = ClapAudio("audio", weights=clap) if fused else ClapAudio("audio", config=unfused())
    extractor = ClapFeatureExtractor(**{**FUSED, "truncation": "fusion" if fused else "rand_trunc"})
    samples, _ = sound(seconds)
    inputs = extractor(samples, sampling_rate=RATE, return_tensors="pt")
    assert inputs["input_features"].shape == (1, 4 if fused else 1, 1001, 64)
    inputs["is_longer"] = torch.zeros(1, 1, dtype=torch.bool)  # which the extractor sets at random
    with torch.inference_mode():
        expected = tower.eval().model(**inputs).audio_embeds
    torch.testing.assert_close(embed(tower, (samples, RATE)), expected, atol=1e-4, rtol=0)


def test_the_batch_does_not_matter(clap, tmp_path):
    soundfile.write(tmp_path / "waves.ogg", *sound(4, seed=1))
    space = GeoBind(24, [ClapAudio("audio", weights=clap)])
    sounds = [sound(2), sound(23, seed=3), tmp_path / "waves.ogg", sound(10, seed=4), sound(0.5, seed=5)]
    together, alone = space.embed("audio", sounds), space.embed("audio", sounds, batch_size=1)
    assert np.array_equal(together, space.embed("audio", sounds))
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(together[::-1], space.embed("audio", sounds[::-1], batch_size=2), atol=1e-6)


def test_a_long_sound_is_the_mean_of_its_windows(clap):
    tower = ClapAudio("audio", weights=clap)
    samples, _ = sound(37)
    cuts = windows(samples, 10 * RATE)
    assert len(cuts) == 4
    expected = embed(tower, *((cut, RATE) for cut in cuts)).mean(0, keepdim=True)
    torch.testing.assert_close(embed(tower, (samples, RATE)), expected)


def test_many_windows_are_embedded_in_parts(clap, monkeypatch):
    tower, samples = ClapAudio("audio", weights=clap), sound(35)
    expected = embed(tower, samples, sound(2))
    monkeypatch.setattr("geobind.towers.clap._WINDOWS_AT_ONCE", 3)
    torch.testing.assert_close(embed(tower, samples, sound(2)), expected)


def test_training_hears_one_random_window(clap):
    tower = ClapAudio("audio", weights=clap)
    row = {"audio": sound(25)}
    draws = [tower.processor(row, rng=np.random.default_rng(seed))["mel"] for seed in (0, 0, 1)]
    assert {len(draw) for draw in draws} == {1}
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    whole = ClapAudio("audio", weights=clap, augment=False)
    assert len(whole.processor(row, rng=np.random.default_rng(0))["mel"]) == 3
    assert fingerprint(whole) == fingerprint(tower)


def test_every_learning_weight_gets_a_gradient(clap):
    tower = ClapAudio("audio", weights=clap).train()
    item = tower.processor({"audio": sound(2)})
    tower(**tower.processor.collate([item, item])).square().sum().backward()
    learning = [(name, p) for name, p in tower.named_parameters() if p.requires_grad]
    assert [name for name, p in learning if p.grad is None] == []
    assert len(learning) > 20


def test_evaluation_leaves_batch_normalisation_alone(clap):
    tower = ClapAudio("audio", weights=clap)
    before = {key: value.clone() for key, value in tower.state_dict().items()}
    embed(tower, sound(2))
    assert all(torch.equal(value, before[key]) for key, value in tower.state_dict().items())


def test_other_rates_and_channels_are_heard_alike(clap):
    tower = ClapAudio("audio", weights=clap)
    samples, _ = sound(3, rate=16_000)
    stereo = np.stack([samples, samples], axis=1)
    assert torch.equal(embed(tower, (stereo, 16_000)), embed(tower, (samples, 16_000)))


def test_a_sound_without_samples_is_an_error_of_that_row(clap):
    with pytest.raises(MediaError, match="0 samples"):
        embed(ClapAudio("audio", weights=clap), (np.zeros(0, dtype=np.float32), RATE))


def test_the_default_is_the_fused_model(monkeypatch):
    seen = []

    def remember(cls, config, source):
        seen.append(config)
        raise GeoBindError("enough")

    monkeypatch.setattr("geobind.towers.pretrained.load_model", remember)
    for options in ({}, {"weights": "none"}, {"config": unfused()}):
        with pytest.raises(GeoBindError, match="enough"):
            ClapAudio("audio", **options)
    assert [config.enable_fusion for config in seen] == [True, True, False]
    assert [config.projection_dim for config in seen] == [512, 512, 24]


# --- fusion ------------------------------------------------------------------------------------------------


def in_turn(*starts):
    """What stands in for chance: the first of the front, the central of the middle, the last of the back."""
    turns = itertools.cycle(starts)
    return lambda part: next(turns)


@pytest.mark.parametrize("seconds", [10.3, 23])
def test_a_long_sound_gives_what_the_library_gives_for_fixed_pieces(clap, monkeypatch, seconds):
    from transformers import ClapFeatureExtractor

    tower = ClapAudio("audio", weights=clap, fusion=True)
    samples, _ = sound(seconds)
    last = 1 + len(samples) // 480 - 1001
    monkeypatch.setattr(np.random, "choice", in_turn(0, last // 2, last))
    inputs = ClapFeatureExtractor(**FUSED)(samples, sampling_rate=RATE, return_tensors="pt")
    item = tower.processor({"audio": (samples, RATE)})
    assert (item["mel"] - inputs["input_features"]).abs().max() < 1e-3  # dB
    assert item["longer"].tolist() == inputs["is_longer"][0].tolist() == [True]
    with torch.inference_mode():
        expected = tower.eval().model(**inputs).audio_embeds
    torch.testing.assert_close(embed(tower, (samples, RATE)), expected, atol=1e-4, rtol=0)


def test_fusion_hears_short_sounds_as_windows_do_and_long_ones_differently(clap):
    fused, plain = ClapAudio("audio", weights=clap, fusion=True), ClapAudio("audio", weights=clap)
    for seconds, same in ((3, True), (10, True), (10.005, True), (10.02, False), (31, False)):
        one, other = embed(fused, sound(seconds)), embed(plain, sound(seconds))
        # 10.005 s has no frame more than 10 s: the windows overlap almost whole
        assert torch.allclose(one, other, atol=1e-6 if seconds <= 10 else 1e-2) == same, seconds
    assert fingerprint(fused) != fingerprint(plain)


def test_with_fusion_the_batch_does_not_matter(clap):
    space = GeoBind(24, [ClapAudio("audio", weights=clap, fusion=True)])
    sounds = [sound(2), sound(23, seed=3), sound(10, seed=4), sound(12, seed=5)]
    together, alone = space.embed("audio", sounds), space.embed("audio", sounds, batch_size=1)
    assert np.array_equal(together, space.embed("audio", sounds))
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(together[::-1], space.embed("audio", sounds[::-1], batch_size=3), atol=1e-6)


def test_fusion_learns_from_random_pieces_and_from_batches_of_any_lengths(clap):
    tower = ClapAudio("audio", weights=clap, fusion=True)
    draws = [tower.processor({"audio": sound(25)}, rng=np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert torch.equal(draws[0]["mel"], draws[1]["mel"])
    assert not torch.equal(draws[0]["mel"][0, 1], draws[2]["mel"][0, 1])
    assert torch.equal(draws[0]["mel"][0, 0], draws[2]["mel"][0, 0])  # the whole has no chance in it
    short = tower.processor({"audio": sound(2)})
    for items in ([short, short], [draws[0], short], [draws[0], draws[2]]):
        tower.train().zero_grad()
        tower(**tower.processor.collate(items)).square().sum().backward()
        assert [name for name, p in tower.named_parameters() if p.requires_grad and p.grad is None] == []


def test_fusion_is_saved_with_the_tower_and_needs_a_model_that_has_it(clap, tmp_path):
    tower = ClapAudio("audio", weights=clap, fusion=True)
    tower.save(tmp_path)
    again = load_tower(tmp_path)
    assert torch.equal(embed(again, sound(14)), embed(tower, sound(14)))
    assert fingerprint(again) == fingerprint(tower)
    with pytest.raises(GeoBindError, match="trained without"):
        ClapAudio("audio", config=unfused(), fusion=True)


# --- frozen, cached, repeated ------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", [False, True])
def test_frozen_clap_is_bit_equal_and_its_cache_too(clap, fusion):
    """The audio tower is the target of a stage: neither dropout nor batch normalisation may show."""
    torch.manual_seed(0)
    audio = ClapAudio("audio", weights=clap, fusion=fusion)
    assert any(module.p > 0 for module in audio.modules() if isinstance(module, torch.nn.Dropout))
    satellite = build_tower("vector", modality="satellite", dim=24, width=8)
    space = GeoBind(24, [audio, satellite])
    sounds = [sound(1 + 3 * number, seed=number) for number in range(6)]
    pairs = Pairs.from_columns(
        {"audio": sounds, "satellite": np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)}
    )
    before = {key: value.clone() for key, value in audio.state_dict().items()}
    vectors, print_ = space.embed("audio", sounds), fingerprint(audio)
    losses = {}
    for cached in (True, False, True):
        torch.manual_seed(1)
        space.add(build_tower("vector", modality="satellite", dim=24, width=8))
        stage = Stage(
            learner="satellite", target="audio", pairs=pairs, epochs=2, batch_size=3, validation=0,
            cache_targets=cached,
        )  # fmt: skip
        report = bind(space, stage, progress=False)
        losses.setdefault(cached, report.losses)
        assert losses[cached] == report.losses
        assert np.array_equal(space.embed("audio", sounds), vectors)
    np.testing.assert_allclose(losses[True], losses[False], atol=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in audio.state_dict().items())
    assert fingerprint(audio) == print_


def test_learning_clap_moves_its_statistics_and_then_holds_still(clap):
    torch.manual_seed(0)
    audio = ClapAudio("audio", weights=clap)
    space = GeoBind(
        24, [audio, build_tower("vector", modality="satellite", dim=24, width=24, standardize=False)]
    )
    sounds = [sound(2, seed=number) for number in range(6)]
    pairs = Pairs.from_columns(
        {"audio": sounds, "satellite": np.random.default_rng(0).normal(size=(6, 24)).astype(np.float32)}
    )
    before = audio.model.audio_model.audio_encoder.batch_norm.running_mean.clone()
    stage = Stage(learner="audio", target="satellite", pairs=pairs, epochs=1, batch_size=3, validation=0)
    bind(space, stage, progress=False)
    assert not torch.equal(audio.model.audio_model.audio_encoder.batch_norm.running_mean, before)
    assert not audio.training
    state = {key: value.clone() for key, value in audio.state_dict().items()}
    together = space.embed("audio", sounds)
    assert np.array_equal(together, space.embed("audio", sounds))
    np.testing.assert_allclose(together, space.embed("audio", sounds, batch_size=1), atol=1e-6)
    assert all(torch.equal(value, state[key]) for key, value in audio.state_dict().items())


# --- text --------------------------------------------------------------------------------------------------


def test_text_equals_the_joint_model(clap):
    from transformers import AutoTokenizer, ClapModel

    joint, tokenizer = ClapModel.from_pretrained(clap), AutoTokenizer.from_pretrained(clap)
    tower = ClapText(weights=clap)
    tokens = tokenizer(TEXTS, padding=True, truncation=True, max_length=16, return_tensors="pt")
    expected = joint.get_text_features(**tokens).pooler_output.detach()
    torch.testing.assert_close(torch.nn.functional.normalize(embed(tower, *TEXTS)), expected)
    torch.testing.assert_close(embed(tower, *TEXTS)[1:2], embed(tower, TEXTS[1]), atol=1e-6, rtol=0)
    assert len(tower.processor({"text": TEXTS[2]})["input_ids"]) == 16  # positions begin after padding's, 1


def test_text_without_words_or_with_others_is_refused(tmp_path):
    with pytest.raises(GeoBindError, match="knows no words"):
        ClapText(config=CLAP_CONFIG)
    save_clap_tokenizer(tmp_path)
    other = copy.deepcopy(CLAP_CONFIG)
    other["text_config"]["pad_token_id"] = 0
    with pytest.raises(GeoBindError, match="pads with token 1, the model expects 0"):
        ClapText(config=other, tokenizer=tmp_path)


# --- files -------------------------------------------------------------------------------------------------


def test_a_saved_audio_tower_opens_in_plain_transformers(clap, tmp_path):
    from transformers import AutoConfig, ClapAudioModelWithProjection, ClapFeatureExtractor

    tower = ClapAudio("audio", weights=clap)
    tower.save(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).architectures == ["ClapAudioModelWithProjection"]
    extractor = ClapFeatureExtractor.from_pretrained(tmp_path)
    assert (extractor.truncation, extractor.padding, extractor.frequency_min) == ("fusion", "repeatpad", 50)
    inputs = extractor(sound(3)[0], sampling_rate=RATE, return_tensors="pt")
    inputs["is_longer"][:] = False
    with torch.inference_mode():
        expected = ClapAudioModelWithProjection.from_pretrained(tmp_path)(**inputs).audio_embeds
    torch.testing.assert_close(embed(tower, sound(3)), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("start", ["joint", "bare"])
@pytest.mark.parametrize("modality", ["audio", "text"])
def test_towers_are_read_back_bit_for_bit(clap, tmp_path, modality, start):
    options = {"weights": str(clap)} if start == "joint" else {"config": unfused()}
    if modality == "text" and start == "bare":
        save_clap_tokenizer(tmp_path / "words")
        options["tokenizer"] = str(tmp_path / "words")
    tower = build_tower("clap", modality=modality, dim=16, **options)
    tower.save(tmp_path / "tower")
    shutil.rmtree(tmp_path / "words", ignore_errors=True)
    again = load_tower(tmp_path / "tower")
    value = TEXTS[0] if modality == "text" else sound(12)
    assert torch.equal(embed(again, value), embed(tower, value))
    assert fingerprint(again) == fingerprint(tower)
    assert again.origin == tower.origin
    assert (tower.origin or "").startswith("clap:") == (start == "joint")
    processor = pickle.loads(pickle.dumps(again.processor))
    assert processor.settings() == tower.processor.settings()


def test_both_sides_of_a_checkpoint_are_comparable(clap, tmp_path):
    other = save_joint(tmp_path, "clap", seed=1)
    audio = ClapAudio("audio", weights=clap)
    assert GeoBind(24, [audio, ClapText(weights=clap)]).comparable("audio", "text")
    assert not GeoBind(24, [audio, ClapText(weights=other)]).comparable("audio", "text")
