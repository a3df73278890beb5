"""Adapters and partial unfreezing: invariants.

* Only what the options name learns: after a step of a stage everything else is bit-equal, statistics of
  batch normalisation included.
* Adapters begin as the model itself and are saved beside it: the folder opens in plain transformers as it
  was, in peft as it is, and is read back bit for bit with the same fingerprint.
* What cannot be done is one line.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from geobind import GeoBind, GeoBindError, Pairs, Stage, bind
from geobind.towers.adapters import find_blocks
from geobind.towers.base import build_tower, fingerprint, load_tower
from tests.models import CLAP_CONFIG, CLIP_CONFIG, save_clap_tokenizer, save_clip_tokenizer

VIT = {
    "model_type": "vit", "hidden_size": 24, "intermediate_size": 64, "num_hidden_layers": 3,
    "num_attention_heads": 4, "image_size": 32, "patch_size": 8,
}  # fmt: skip
RESNET = {
    "model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic",
}  # fmt: skip
TOWERS = {
    "clip-image": ("clip", "satellite", {"config": CLIP_CONFIG, "augment": False}),
    "clip-text": ("clip", "text", {"config": CLIP_CONFIG, "tokenizer": save_clip_tokenizer}),
    "vit": ("hf", "satellite", {"config": VIT, "augment": False, "pooling": "cls"}),
    "resnet": ("hf", "satellite", {"config": RESNET, "size": 32}),
    "clap-audio": ("clap", "audio", {"config": {**CLAP_CONFIG}}),
    "clap-text": ("clap", "text", {"config": CLAP_CONFIG, "tokenizer": save_clap_tokenizer}),
}
ADAPTED = [name for name in TOWERS if name != "resnet"]  # which has no linear layer


def build(name: str, folder: Path, **options):
    torch.manual_seed(0)
    kind, modality, given = TOWERS[name]
    given = copy.deepcopy({key: value for key, value in given.items() if key != "tokenizer"})
    if "tokenizer" in TOWERS[name][2]:
        TOWERS[name][2]["tokenizer"](folder / "words")
        given["tokenizer"] = str(folder / "words")
    return build_tower(kind, modality=modality, dim=24, **given, **options)


def values(modality: str, number: int = 6) -> list:
    rng = np.random.default_rng(0)
    if modality == "text":
        return [f"a photo of place {letter}" for letter in "abcdef"[:number]]
    if modality == "audio":
        return [(0.1 * rng.normal(size=24_000).astype(np.float32), 48_000) for _ in range(number)]
    return list(rng.integers(0, 256, (number, 32, 32, 3), dtype=np.uint8))


def embed(tower, number: int = 2) -> torch.Tensor:
    items = [tower.processor({tower.modality: value}) for value in values(tower.modality, number)]
    with torch.inference_mode():
        return tower.eval()(**tower.processor.collate(items))


def learn(tower) -> dict[str, torch.Tensor]:
    """One epoch of two steps; what the tower was before."""
    space = GeoBind(
        24, [tower, build_tower("vector", modality="season", dim=24, width=24, standardize=False)]
    )
    season = np.random.default_rng(1).normal(size=(6, 24)).astype(np.float32)
    pairs = Pairs.from_columns(
        {tower.modality: values(tower.modality), "season": season},
        place=np.arange(6),
        datetime=["2021-05-30"] * 6,
    )
    before = {key: value.clone() for key, value in tower.state_dict().items()}
    stage = Stage(
        learner=tower.modality, target="season", pairs=pairs, epochs=1, batch_size=3, lr=1e-2, validation=0
    )
    bind(space, stage, progress=False)
    return before


def moved(tower, before: dict[str, torch.Tensor]) -> set[str]:
    return {key for key, value in tower.state_dict().items() if not torch.equal(value, before[key])}


@pytest.mark.parametrize("name", ADAPTED)
def test_only_adapters_learn(name, tmp_path):
    tower = build(name, tmp_path, adapters={"rank": 2})
    changed = moved(tower, learn(tower))
    adapters = {key for key in tower.state_dict() if ".lora_" in key}
    heads = {key for key in tower.state_dict() if key.startswith("head.")}
    assert changed - heads <= adapters
    # A has no gradient until B is other than zero: two steps move both. A block's last layer may be unused.
    assert len(changed & adapters) > 0.8 * len(adapters)
    names = {key.split(".lora_")[0] for key in adapters}
    linear = sum(
        isinstance(m, torch.nn.Linear) for m in find_blocks(build(name, tmp_path).model)[1].modules()
    )
    assert len(names) == linear


@pytest.mark.parametrize("name", ADAPTED)
def test_adapters_begin_as_the_model(name, tmp_path):
    assert torch.equal(embed(build(name, tmp_path, adapters={"rank": 3})), embed(build(name, tmp_path)))


@pytest.mark.parametrize("name", list(TOWERS))
@pytest.mark.parametrize("count", [0, 1])
def test_only_the_last_blocks_and_what_follows_learn(name, count, tmp_path):
    tower = build(name, tmp_path, unfreeze=count)
    changed = {key.removeprefix("model.") for key in moved(tower, learn(tower)) if key.startswith("model.")}
    where, blocks = find_blocks(tower.model)
    frozen = {f"{where}.{number}." for number in range(len(blocks) - count)}
    assert not any(key.startswith(prefix) for key in changed for prefix in frozen)
    assert not any("embed" in key.split(where.split(".")[-1])[0] for key in changed)
    names = list(tower.model.state_dict())
    last = max(number for number, key in enumerate(names) if key.startswith(f"{where}."))
    after = {key for key in names[last + 1 :] if "batch_norm" not in key and "pooler" not in key}
    assert {key for key in after if tower.model.state_dict()[key].is_floating_point()} <= changed
    assert any(key.startswith(f"{where}.{len(blocks) - 1}.") for key in changed) == bool(count)


def test_batch_normalisation_before_the_last_blocks_stands_still(tmp_path):
    for options in ({"unfreeze": 1}, {"adapters": {"rank": 2}}):
        tower = build("clap-audio", tmp_path, **options)
        assert not any("batch_norm" in key for key in moved(tower, learn(tower)))
    whole = build("clap-audio", tmp_path)
    assert any("batch_norm.running_mean" in key for key in moved(whole, learn(whole)))


@pytest.mark.parametrize("name", ADAPTED)
def test_adapters_are_read_back_bit_for_bit(name, tmp_path):
    tower = build(name, tmp_path, adapters={"rank": 2, "alpha": 5, "dropout": 0.1})
    learn(tower)
    tower.save(tmp_path / "tower")
    again = load_tower(tmp_path / "tower")
    assert torch.equal(embed(again), embed(tower))
    assert fingerprint(again) == fingerprint(tower)
    learning = {key for key, p in again.named_parameters() if p.requires_grad}
    assert learning == {key for key, p in tower.named_parameters() if p.requires_grad}


def test_the_folder_opens_in_transformers_as_it_was_and_in_peft_as_it_is(tmp_path):
    from peft import PeftModel
    from transformers import CLIPVisionModelWithProjection

    tower = build("clip-image", tmp_path, adapters={"rank": 2})
    plain = embed(build("clip-image", tmp_path))
    learn(tower)
    tower.save(tmp_path / "tower")
    pixels = tower.processor.collate([tower.processor({"satellite": v}) for v in values("satellite", 2)])[
        "pixels"
    ]
    model, info = CLIPVisionModelWithProjection.from_pretrained(tmp_path / "tower", output_loading_info=True)
    assert not info["unexpected_keys"]
    assert not info["missing_keys"]
    with torch.inference_mode():
        torch.testing.assert_close(model(pixels).image_embeds, plain)
        adapted = PeftModel.from_pretrained(model, tmp_path / "tower" / "adapters").eval()
        torch.testing.assert_close(adapted(pixels).image_embeds, embed(tower))
    assert not torch.allclose(embed(tower), plain, atol=1e-3)


def test_adapters_and_conditions_go_together(tmp_path):
    tower = build("clip-image", tmp_path, adapters={"rank": 2}, condition="sat2cap")
    changed = moved(tower, learn(tower))
    assert {key for key in changed if ".lora_" not in key} <= {
        key for key in tower.state_dict() if key.startswith(("geo_encoder.", "head."))
    }
    tower.save(tmp_path / "tower")
    assert torch.equal(embed(load_tower(tmp_path / "tower")), embed(tower))


def test_fingerprints_know_the_scale_of_adapters(tmp_path):
    prints = {
        fingerprint(build("vit", tmp_path, adapters=options))
        for options in ({"rank": 2}, {"rank": 2, "dropout": 0.5}, {"rank": 2, "alpha": 4})
    }
    assert len(prints) == 2
    assert fingerprint(build("vit", tmp_path, unfreeze=1)) == fingerprint(build("vit", tmp_path))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vit", {"adapters": {"rank": 0}}, "rank"),
        ("vit", {"adapters": {"r": 8}}, "unknown key .*known: alpha, dropout, rank"),
        ("vit", {"unfreeze": 4}, "has 3 blocks; give 0 to 3"),
        ("vit", {"unfreeze": -1}, "give 0 to 3"),
        ("vit", {"unfreeze": 1, "adapters": {}}, "both `adapters` and `unfreeze`"),
        ("resnet", {"adapters": {}}, "no linear layer to adapt: use `unfreeze`"),
    ],
)
def test_wrong_options_are_one_line(name, options, message, tmp_path):
    with pytest.raises(GeoBindError, match=message) as caught:
        build(name, tmp_path, **options)
    assert "\n" not in str(caught.value)


def test_weights_with_adapters_are_not_taken_without(tmp_path):
    build("vit", tmp_path, adapters={"rank": 2}).save(tmp_path / "tower")
    for options, message in (
        ({}, "tower with adapters"),
        ({"adapters": {"rank": 3}}, "another rank or model"),
    ):
        with pytest.raises(GeoBindError, match=message):
            build_tower("hf", modality="satellite", dim=24, weights=str(tmp_path / "tower"), **options)


def test_without_peft_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(GeoBindError, match=r'pip install "geobind\[adapters\]"'):
        build("vit", tmp_path, adapters={})
