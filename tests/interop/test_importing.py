"""Official checkpoints become spaces.

* A tower gives what plain torch computes from the published keys, to 1e-4, at the published shapes.
* Every key is accounted for: one more or one less is an error that names it, and nothing is written.
* What cannot be read safely or rightly is one line with the remedy, and nothing is written.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from geobind import GeoBind, GeoBindError, GeoBindWarning, import_checkpoint
from geobind.towers.base import fingerprint
from tests.interop import published
from tests.models import CLAP_CONFIG, save_clap_tokenizer

SMALL = {
    "width": 128,
    "depth": 2,
    "patch": 16,
    "image": 32,
    "text_width": 64,
    "text_depth": 2,
    "context": 20,
    "dim": 32,
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    return published.save_wide_clip_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def small(tmp_path) -> Path:
    path = tmp_path / "small.safetensors"
    save_file(published.open_clip_state(**SMALL), path)
    return path


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (240, 300, 3), dtype=np.uint8)


def close(got: np.ndarray, expected: torch.Tensor) -> None:
    expected = torch.nn.functional.normalize(expected, dim=-1)
    assert abs(got - expected.numpy()).max() < 1e-4


def agree_with_open_clip(space: GeoBind, state: published.State, act: str, modality: str) -> None:
    tower, text = space.tower(modality), space.tower("text")
    pixels = torch.stack([tower.processor({modality: picture(n)})["pixels"] for n in range(2)])
    batch = text.processor.collate(
        [text.processor({"text": t}) for t in ("a harbour", "the edge of a forest")]
    )
    with torch.inference_mode():
        close(
            space.embed(modality, [picture(0), picture(1)]),
            published.evaluate_open_clip_image(state, pixels, act),
        )
        close(
            space.embed("text", ["a harbour", "the edge of a forest"]),
            published.evaluate_open_clip_text(state, batch["input_ids"], act),
        )


def test_open_clip_vit_b_32(tmp_path, tokenizer):
    state = published.open_clip_state()
    assert sum(value.numel() for value in state.values()) == 151_277_313
    torch.save(
        {"epoch": 3, "name": "run", "state_dict": {f"module.{k}": v for k, v in state.items()}},
        tmp_path / "a.pt",
    )
    space = import_checkpoint(
        tmp_path / "a.pt", "open_clip", tmp_path / "out", tokenizer=tokenizer, activation="gelu"
    )
    os.remove(tmp_path / "a.pt")
    assert space.modalities == ["satellite", "text"]
    assert space.temperatures == {("satellite", "text"): pytest.approx(math.exp(-4))}
    assert space.comparable("satellite", "text")
    agree_with_open_clip(space, state, "gelu", "satellite")


@pytest.mark.parametrize("act", ["gelu", "quick_gelu"])
def test_open_clip_activation_and_preprocessing_come_from_its_configuration(tmp_path, tokenizer, small, act):
    model = {
        "embed_dim": 32,
        "quick_gelu": act == "quick_gelu",
        "vision_cfg": {"layers": 2},
        "text_cfg": {"heads": 1},
    }
    pixels = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": model, "preprocess_cfg": pixels})
    )
    space = import_checkpoint(small, "open_clip", tmp_path / "out", tokenizer=tokenizer, modality="image")
    agree_with_open_clip(space, published.open_clip_state(**SMALL), act, "image")
    assert space.tower("image").transform.mean == (0.1, 0.2, 0.3)


def test_open_clip_configurations_that_are_not_covered_are_refused(tmp_path, tokenizer, small):
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": {"vision_cfg": {"pool_type": "avg"}}}')
    refuses(tmp_path, "vision_cfg: pool_type .* not covered", small, "open_clip", tokenizer=tokenizer)


def test_geoclap(tmp_path):
    from transformers import (
        ClapAudioConfig,
        ClapAudioModelWithProjection,
        ClapTextConfig,
        ClapTextModelWithProjection,
    )

    torch.manual_seed(0)
    audio = ClapAudioModelWithProjection(ClapAudioConfig(enable_fusion=True)).eval()
    text = ClapTextModelWithProjection(ClapTextConfig()).eval()
    state = published.geoclap_state(audio, text)
    published.save_lightning(tmp_path / "geoclap.ckpt", state)
    save_clap_tokenizer(tmp_path / "roberta")
    space = import_checkpoint(
        tmp_path / "geoclap.ckpt", "geoclap", tmp_path / "out", tokenizer=tmp_path / "roberta"
    )
    os.remove(tmp_path / "geoclap.ckpt")
    assert space.modalities == ["audio", "satellite", "text"]
    assert set(space.temperatures.values()) == {math.exp(-3)}
    assert all(
        space.comparable("satellite", other) and space.trained("satellite", other)
        for other in ("audio", "text")
    )

    tower = space.tower("satellite")
    pixels = tower.processor({"satellite": picture()})["pixels"][None]
    logits = published.evaluate_timm_vit(state, "sat_encoder.model.", pixels)
    expected = published.linear(state, "sat_encoder.fc", logits.relu())
    close(space.embed("satellite", [picture()]), expected)

    sounds = [
        (np.random.default_rng(n).normal(0, 0.1, n * 48_000).astype(np.float32), 48_000) for n in (1, 12)
    ]
    heard = space.tower("audio").processor
    mel = heard.collate([heard({"audio": sound}) for sound in sounds])
    assert mel["longer"].tolist() == [False, True]
    batch = space.tower("text").processor({"text": "rain on a tent"})["input_ids"][None]
    with torch.inference_mode():
        expected = audio(input_features=mel["mel"], is_longer=mel["longer"][:, None]).audio_embeds
        close(space.embed("audio", sounds), expected)
        close(space.embed("text", ["rain on a tent"]), text(input_ids=batch).text_embeds)


@pytest.mark.parametrize("norm", [True, False])
def test_satmae_gives_geoclap_its_blocks_and_the_rest_is_drawn_the_same_each_time(tmp_path, norm):
    state = published.satmae_state()
    if norm:  # a model fine-tuned on the class token
        state |= {"norm.weight": state.pop("fc_norm.weight"), "norm.bias": state.pop("fc_norm.bias")}
    torch.save({"model": state, "epoch": 7}, tmp_path / "finetune-vit-base-e7.pth")
    spaces = []
    for name in ("one", "two"):
        with pytest.warns(GeoBindWarning, match="12 blocks were taken.*train the tower before"):
            spaces.append(import_checkpoint(tmp_path / "finetune-vit-base-e7.pth", "satmae", tmp_path / name))
    tower, other = (space.tower("satellite") for space in spaces)
    assert fingerprint(tower) == fingerprint(other)

    # The same function as timm's ViT with SatMAE's blocks and the tower's own other weights.
    mixed = dict(state)
    embeddings = tower.model.vit.embeddings
    mixed["patch_embed.proj.weight"] = embeddings.patch_embeddings.projection.weight
    mixed["patch_embed.proj.bias"] = embeddings.patch_embeddings.projection.bias
    mixed["pos_embed"] = embeddings.position_embeddings
    mixed |= {f"head.{key}": value for key, value in tower.model.classifier.state_dict().items()}
    if not norm:
        mixed |= {"norm.weight": torch.ones(768), "norm.bias": torch.zeros(768)}
    pixels = tower.processor({"satellite": picture()})["pixels"][None]
    with torch.inference_mode():
        expected = published.evaluate_timm_vit(mixed, "", pixels).relu()
        close(torch.nn.functional.normalize(tower.encode(pixels)).numpy(), expected)

    positions = embeddings.position_embeddings[0].reshape(-1, 768)
    assert not positions[0].any()
    row, column, rate = 3, 5, 1e-4 ** (2 / 192)
    found = positions[1 + row * 14 + column, [2, 194, 386, 578]]
    waves = [math.sin(column * rate), math.cos(column * rate), math.sin(row * rate), math.cos(row * rate)]
    assert found.tolist() == pytest.approx(waves, abs=1e-6)
    assert tower.model.classifier.weight.std().item() == pytest.approx(2e-5, rel=0.01)


def test_satmae_of_another_kind_is_refused(tmp_path):
    state = published.satmae_state(depth=1)
    torch.save({"model": state | {"blocks.0.gamma": torch.ones(1)}}, tmp_path / "odd.pth")
    refuses(tmp_path, "has unexpected 1 keys \\(blocks.0.gamma\\)", tmp_path / "odd.pth", "satmae")
    rgb = published.timm_vit_state("", depth=1)
    torch.save({"model": rgb}, tmp_path / "rgb.pth")
    refuses(tmp_path, "no checkpoint of satmae: its keys begin with", tmp_path / "rgb.pth", "satmae")


def test_geoclap_on_frozen_embeddings_takes_sound_and_text_from_its_target(tmp_path):
    from transformers import ClapConfig, ClapModel

    state = published.geoclap_state(torch.nn.Identity(), torch.nn.Identity())
    file = published.save_lightning(tmp_path / "geoclap.ckpt", state)
    refuses(tmp_path, "holds no audio and no text tower.*--target laion", file, "geoclap")
    config = {**CLAP_CONFIG, "projection_dim": 512}
    ClapModel(ClapConfig(**config)).save_pretrained(tmp_path / "clap")
    save_clap_tokenizer(tmp_path / "clap")
    space = import_checkpoint(file, "geoclap", tmp_path / "out", target=tmp_path / "clap")
    assert space.modalities == ["audio", "satellite", "text"]
    assert all(space.comparable("satellite", other) for other in ("audio", "text"))


def clip_vision(seed: int, **config: int) -> torch.nn.Module:
    """CLIP's vision model, ViT-B/32 unless told otherwise, with biases and norms that are not at their defaults."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(seed)
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def test_sat2cap_keeps_projection_place_and_time(tmp_path):
    from transformers import CLIPConfig, CLIPModel

    image = clip_vision(1)
    state = published.sat2cap_state(clip_vision(0), image)
    assert state["imo_encoder.vision_model.visual_projection.weight"].shape == (512, 768)
    published.save_lightning(tmp_path / "sat2cap.ckpt", state)
    # The whole CLIP, of which the checkpoint holds one side; its text model is cut short here.
    joint = CLIPModel(CLIPConfig(text_config={"num_hidden_layers": 1}))
    joint.load_state_dict({**joint.state_dict(), **image.state_dict()})
    joint.save_pretrained(tmp_path / "clip")
    published.save_wide_clip_tokenizer(tmp_path / "clip")

    space = import_checkpoint(
        tmp_path / "sat2cap.ckpt", "sat2cap", tmp_path / "out", target=tmp_path / "clip"
    )
    assert space.modalities == ["image", "satellite", "text"]
    assert space.temperatures == {("image", "satellite"): pytest.approx(0.01, rel=1e-3)}
    assert space.comparable("satellite", "text")

    def seen(modality: str) -> torch.Tensor:
        prefix = {"satellite": "imo", "image": "img"}[modality] + "_encoder.vision_model."
        pixels = space.tower(modality).processor({modality: picture()})["pixels"][None]
        return published.evaluate_clip_vision(state, prefix, pixels)

    close(space.embed("image", [picture()]), seen("image"))
    told = {"latitude": 51.5, "longitude": -0.12, "datetime": "2016-07-09 14:20:00"}
    added = published.evaluate_geo_encoder(state, 51.5, -0.12, 2016, 7, 9, 14)
    close(space.embed("satellite", [picture()], **told), seen("satellite") + added)
    with pytest.warns(GeoBindWarning):
        close(space.embed("satellite", [picture()]), seen("satellite"))


def test_sat2cap_with_another_clip_as_its_target_is_refused(tmp_path):
    from transformers import CLIPConfig, CLIPModel

    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}
    file = published.save_lightning(
        tmp_path / "a.ckpt", published.sat2cap_state(clip_vision(0, **sizes), clip_vision(1, **sizes))
    )
    joint = CLIPModel(CLIPConfig(vision_config=sizes, text_config=sizes))
    joint.save_pretrained(tmp_path / "clip")
    published.save_wide_clip_tokenizer(tmp_path / "clip")
    refuses(tmp_path, "is not the CLIP that", file, "sat2cap", target=tmp_path / "clip")


# --- every key ---------------------------------------------------------------------------------------------


def refuses(tmp_path: Path, message: str, file: Path, system: str, **options) -> None:
    """One line, and neither the folder nor a part of it is there."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(GeoBindError, match=message) as caught:
        import_checkpoint(file, system, tmp_path / "out", **options)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_missing_and_unexpected_keys_are_listed(tmp_path, tokenizer, small):
    state = published.open_clip_state(**SMALL)
    del state["visual.ln_pre.bias"]
    state["visual.extra"] = torch.zeros(1)
    save_file(state, small)
    refuses(
        tmp_path, r"lacks 1 keys \(visual.ln_pre.bias\) and has unexpected 1 keys \(visual.extra\)",
        small, "open_clip", tokenizer=tokenizer, activation="gelu",
    )  # fmt: skip


def test_a_weight_of_another_shape_is_refused(tmp_path, tokenizer, small):
    state = published.open_clip_state(**SMALL)
    state["visual.transformer.resblocks.1.attn.out_proj.weight"] = torch.zeros(64, 128)
    save_file(state, small)
    refuses(tmp_path, "cannot be loaded as clip", small, "open_clip", tokenizer=tokenizer, activation="gelu")


# --- bad input ---------------------------------------------------------------------------------------------


def test_without_a_configuration_the_activation_is_asked_for(tmp_path, tokenizer, small):
    refuses(
        tmp_path, "does not tell GELU from QuickGELU.*--activation", small, "open_clip", tokenizer=tokenizer
    )


def test_a_tokenizer_is_asked_for_and_a_hub_id_without_a_network_is_told(tmp_path, small, monkeypatch):
    refuses(tmp_path, "no words.*--tokenizer openai", small, "open_clip", activation="gelu")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refuses(
        tmp_path, "'nobody/nothing' is neither a folder nor a Hub id that is cached", small, "open_clip",
        activation="gelu", tokenizer="nobody/nothing",
    )  # fmt: skip


def test_another_systems_checkpoint_is_named(tmp_path, small):
    refuses(
        tmp_path, "is a checkpoint of open_clip, not of geoclap: import it --as open_clip", small, "geoclap"
    )
    save_file({"model.location.nnet.w": torch.zeros(1)}, small)
    refuses(tmp_path, "is a checkpoint of satclip, not of geoclap, which cannot", small, "geoclap")
    save_file({"fc.w": torch.zeros(1)}, small)
    refuses(tmp_path, "no checkpoint of geoclap: its keys begin with fc", small, "geoclap")


def test_unknown_and_unverified_systems_are_refused(tmp_path, small):
    refuses(tmp_path, "no system 'geoclip'; did you mean 'geoclap'", small, "geoclip")
    refuses(tmp_path, "taxabind is not imported: its layout could only be inferred", small, "taxabind")


class Harmful:
    def __reduce__(self):
        return os.system, ("touch harmed",)


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"visual.proj": torch.zeros(1)}, "callbacks": Harmful()}, tmp_path / "bad.ckpt")
    refuses(
        tmp_path,
        r"its pickle asks for \w+.system beside tensors, which could run code",
        tmp_path / "bad.ckpt",
        "open_clip",
    )


@pytest.mark.parametrize("name", ["cut.ckpt", "cut.safetensors", "legacy.pt"])
@pytest.mark.parametrize("kept", [0.6, 0.001, 0.0])
def test_a_file_that_is_cut_off_is_told(tmp_path, name, kept):
    state = {"visual.proj": torch.randn(50, 50)}
    path = tmp_path / name
    if name.endswith("safetensors"):
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=name != "legacy.pt")
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    refuses(tmp_path, "cut off", path, "open_clip")


def test_what_is_no_checkpoint_is_told(tmp_path):
    torch.save([1, 2], tmp_path / "list.pt")
    refuses(tmp_path, "holds no state dict", tmp_path / "list.pt", "open_clip")
    refuses(tmp_path, "is no file: download", Path("MVRL/Sat2Cap"), "open_clip")


def test_a_folder_that_is_there_is_left_alone(tmp_path, small):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    refuses(tmp_path, "is there already", small, "open_clip")
