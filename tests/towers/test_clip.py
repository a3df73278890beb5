"""CLIP and SigLIP towers: invariants.

* A tower computes what the library's joint model computes, from every form of the same weights.
* A saved tower's folder opens in plain transformers (model, tokenizer, image processor), with equal outputs,
  and is read back bit for bit, with the same fingerprint and origin.
* No weight, token or end of text is ever random, empty or missing without an error that names it.
* Two towers have the same origin exactly when they come from one joint checkpoint.
"""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from geobind import GeoBind
from geobind.errors import GeoBindError, MediaError
from geobind.towers.base import build_tower, fingerprint, load_tower
from geobind.towers.clip import ClipText, ClipVision
from tests.models import CLIP_CONFIG, SIGLIP_CONFIG, save_clip_tokenizer, save_joint, save_word_tokenizer

TEXTS = ["a photo of the sea", "forest", "the harbour in the rain, and then some more words"]
OPENAI = {  # the file of openai/clip-vit-base-patch32, whose numbers are bare
    "crop_size": 32, "do_center_crop": True, "do_normalize": True, "do_resize": True, "resample": 3, "size": 32,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4],
}  # fmt: skip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_joint(tmp_path_factory.mktemp("clip"), "clip", **OPENAI)


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_joint(tmp_path_factory.mktemp("siglip"), "siglip")


def scene(height: int = 40, width: int = 60, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def embed(tower, *values) -> torch.Tensor:
    """One batch through processor and tower, in evaluation."""
    items = [tower.processor({tower.modality: value}) for value in values]
    with torch.inference_mode():
        return tower.eval()(**tower.processor.collate(items))


# --- the model ---------------------------------------------------------------------------------------------


def test_both_sides_equal_the_joint_model(clip):
    from transformers import AutoTokenizer, CLIPModel

    joint, tokenizer = CLIPModel.from_pretrained(clip), AutoTokenizer.from_pretrained(clip)
    image, text = ClipVision("image", weights=str(clip)), ClipText(weights=clip)
    pixels = image.processor({"image": scene()})["pixels"][None]
    tokens = tokenizer(TEXTS, padding=True, truncation=True, max_length=16, return_tensors="pt")
    with torch.inference_mode():
        torch.testing.assert_close(embed(image, scene()), joint.get_image_features(pixels).pooler_output)
        torch.testing.assert_close(embed(text, *TEXTS), joint.get_text_features(**tokens).pooler_output)
    assert image.dim == text.dim == 24
    assert image.model.config._attn_implementation == text.model.config._attn_implementation == "sdpa"


def test_siglip_equals_its_joint_model_with_text_at_its_fixed_length(siglip):
    from transformers import AutoTokenizer, SiglipModel

    joint, tokenizer = SiglipModel.from_pretrained(siglip), AutoTokenizer.from_pretrained(siglip)
    image, text = ClipVision("image", weights=siglip), ClipText(weights=siglip)
    pixels = image.processor({"image": scene()})["pixels"][None]
    tokens = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=8, return_tensors="pt")
    with torch.inference_mode():
        torch.testing.assert_close(embed(image, scene()), joint.get_image_features(pixels).pooler_output)
        expected = joint.get_text_features(input_ids=tokens.input_ids).pooler_output
        torch.testing.assert_close(embed(text, *TEXTS), expected)
        torch.testing.assert_close(embed(text, TEXTS[1]), expected[1:2])


def test_siglip2_takes_the_patches_of_a_square(tmp_path):
    from transformers.models.siglip2.image_processing_pil_siglip2 import convert_image_to_patches

    config = {**SIGLIP_CONFIG, "model_type": "siglip2"}
    config["vision_config"] = {**SIGLIP_CONFIG["vision_config"], "num_patches": 16}
    del config["vision_config"]["image_size"]
    tower = ClipVision("satellite", config=config).eval()
    pixels = tower.processor({"satellite": scene()})["pixels"]
    assert pixels.shape == (3, 32, 32)
    expected = tower.model(
        pixel_values=torch.from_numpy(convert_image_to_patches(pixels.numpy(), 8))[None],
        pixel_attention_mask=torch.ones(1, 16, dtype=torch.int64),
        spatial_shapes=torch.tensor([[4, 4]]),
    ).pooler_output
    torch.testing.assert_close(embed(tower, scene()), expected.detach())
    tower.save(tmp_path)
    assert torch.equal(embed(load_tower(tmp_path), scene()), embed(tower, scene()))


def test_float16_checkpoints_are_computed_in_float32(clip, tmp_path):
    half = ClipVision("image", weights=clip).model.half()
    half.save_pretrained(tmp_path)
    tower = ClipVision("image", weights=tmp_path)
    assert {p.dtype for p in tower.parameters()} == {torch.float32}
    assert torch.equal(tower.model.visual_projection.weight, half.visual_projection.weight.float())
    assert {p.dtype for p in ClipVision("image", config=tmp_path / "config.json").parameters()} == {
        torch.float32
    }


def test_embeddings_do_not_depend_on_the_batch(clip):
    space = GeoBind(24, [ClipText(weights=clip), ClipVision("image", weights=clip)])
    for modality, values in (("text", TEXTS), ("image", [scene(seed=i) for i in range(3)])):
        together, alone = space.embed(modality, values), space.embed(modality, values, batch_size=1)
        assert np.array_equal(together, space.embed(modality, values))
        np.testing.assert_allclose(together, alone, atol=1e-6)


def test_another_size_interpolates_the_positions(clip):
    tower = ClipVision("image", weights=clip, size=48).eval()
    pixels = tower.processor({"image": scene()})["pixels"][None]
    assert pixels.shape == (1, 3, 48, 48)
    expected = tower.model(pixel_values=pixels, interpolate_pos_encoding=True).image_embeds
    assert torch.equal(tower(pixels=pixels), expected)


def test_a_bare_config_is_vit_b_32_unless_told(monkeypatch):
    monkeypatch.setattr("geobind.towers.pretrained.load_model", lambda cls, config, source: _Model(config))
    config = ClipVision("satellite").model.config
    assert (config.hidden_size, config.num_hidden_layers, config.patch_size) == (768, 12, 32)
    assert (config.image_size, config.projection_dim) == (224, 512)
    assert ClipVision("satellite", config={"projection_dim": 256}).dim == 256  # of the joint, as it reads it


class _Model(torch.nn.Module):
    """Only a configuration: where the weights do not matter."""

    def __init__(self, config):
        super().__init__()
        self.config = config


# --- files -------------------------------------------------------------------------------------------------


def test_a_saved_vision_tower_opens_in_plain_transformers(clip, tmp_path):
    from transformers import AutoConfig, CLIPImageProcessor, CLIPVisionModelWithProjection

    tower = ClipVision("satellite", weights=clip, mean=(0.1, 0.2, 0.3), fit="squash")
    tower.save(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).architectures == ["CLIPVisionModelWithProjection"]
    model = CLIPVisionModelWithProjection.from_pretrained(tmp_path)
    processor = CLIPImageProcessor.from_pretrained(tmp_path)
    ours = tower.processor({"satellite": scene()})["pixels"]
    with torch.inference_mode():
        torch.testing.assert_close(embed(tower, scene()), model(ours[None]).image_embeds)
    theirs = processor(scene(), return_tensors="pt").pixel_values[0]
    assert (ours - theirs).abs().max() < 1.01 / 255 / 0.2  # one grey level


def test_a_saved_text_tower_opens_in_plain_transformers(clip, tmp_path):
    from transformers import AutoConfig, AutoTokenizer, CLIPTextModelWithProjection

    tower = ClipText(weights=clip)
    tower.save(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).architectures == ["CLIPTextModelWithProjection"]
    model = CLIPTextModelWithProjection.from_pretrained(tmp_path)
    tokens = AutoTokenizer.from_pretrained(tmp_path)(TEXTS[1], return_tensors="pt")
    with torch.inference_mode():
        torch.testing.assert_close(embed(tower, TEXTS[1]), model(**tokens).text_embeds)


@pytest.mark.parametrize("start", ["joint", "bare"])
@pytest.mark.parametrize("modality", ["satellite", "text"])
def test_towers_are_read_back_bit_for_bit(clip, tmp_path, modality, start):
    options = {"weights": str(clip)} if start == "joint" else {"config": CLIP_CONFIG}
    if modality == "text" and start == "bare":
        save_clip_tokenizer(tmp_path / "words")
        options["tokenizer"] = str(tmp_path / "words")
    elif modality == "satellite":
        options |= {"mean": [0.1, 0.2, 0.3], "augment": {"scale": [0.5, 1.0]}}
    tower = build_tower("clip", modality=modality, dim=16, **options)
    tower.save(tmp_path / "tower")
    shutil.rmtree(tmp_path / "words", ignore_errors=True)
    moved = shutil.move(tmp_path / "tower", tmp_path / "elsewhere")
    again = load_tower(Path(moved))
    value = TEXTS[0] if modality == "text" else scene()
    assert torch.equal(embed(again, value), embed(tower, value))
    assert fingerprint(again) == fingerprint(tower)
    assert again.origin == tower.origin
    written = (Path(moved) / "tower.json").read_text()
    assert str(tmp_path) not in written
    assert str(clip) not in written
    again.save(tmp_path / "twice")  # tokenizer and preprocessing survive a second round
    assert fingerprint(load_tower(tmp_path / "twice")) == fingerprint(tower)


def test_siglip_text_is_read_back(siglip, tmp_path):
    tower = ClipText(weights=siglip)
    tower.save(tmp_path)
    again = load_tower(tmp_path)
    assert torch.equal(embed(again, TEXTS[0]), embed(tower, TEXTS[0]))
    assert fingerprint(again) == fingerprint(tower)


def test_the_fingerprint_knows_preprocessing_but_not_augmentation(clip):
    prints = {
        fingerprint(ClipVision("satellite", weights=clip, **options))
        for options in ({}, {"size": 48}, {"std": [0.1, 0.2, 0.3]}, {"fit": "squash"})
    }
    assert len(prints) == 4
    assert fingerprint(ClipVision("satellite", weights=clip, augment=False)) in prints


def test_origin_is_that_of_the_joint_checkpoint(clip, siglip, tmp_path):
    image, text = ClipVision("image", weights=clip), ClipText(weights=clip)
    assert image.origin is not None
    assert image.origin.startswith("clip:")
    assert image.origin == text.origin == ClipVision("satellite", weights=clip).origin
    other = save_joint(tmp_path / "other", "clip", seed=1)
    origins = {ClipVision("image", weights=folder).origin for folder in (clip, other, siglip)}
    assert len(origins) == 3
    assert ClipVision("image", config=CLIP_CONFIG).origin is None
    image.save(tmp_path / "side")  # as weights, it may have been trained since
    assert ClipVision("image", weights=tmp_path / "side").origin is None
    assert GeoBind(24, [image, text]).comparable("image", "text")
    assert not GeoBind(24, [image, ClipText(weights=other)]).comparable("image", "text")


# --- what would be random, empty or missing ----------------------------------------------------------------


def test_missing_weights_are_named(clip, tmp_path):
    folder = Path(shutil.copytree(clip, tmp_path / "cut"))
    state = load_file(folder / "model.safetensors")
    del state["vision_model.encoder.layers.1.mlp.fc1.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(GeoBindError, match=r"lack 1 of \d+ .*vision_model\.encoder\.layers\.1\.mlp\.fc1"):
        ClipVision("image", weights=folder)
    ClipText(weights=folder)  # its own side is whole


def test_one_side_is_not_taken_for_the_other(clip, tmp_path):
    ClipVision("image", weights=clip).save(tmp_path)
    with pytest.raises(GeoBindError, match=r"takes a text model or a joint one .* 'clip_vision_model'"):
        ClipText(weights=tmp_path)


def test_weights_of_another_shape_are_refused(clip, tmp_path):
    folder = Path(shutil.copytree(clip, tmp_path / "shape"))
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["intermediate_size"] = 48
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(GeoBindError, match="cannot be loaded as clip_vision_model"):
        ClipVision("image", weights=folder)


def test_text_without_words_is_refused(clip, tmp_path):
    with pytest.raises(GeoBindError, match="knows no words: give `tokenizer`"):
        ClipText(config=CLIP_CONFIG)
    folder = tmp_path / "mute"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(clip / name, folder)
    with pytest.raises(GeoBindError, match="holds no tokenizer"):
        ClipText(weights=folder)
    with pytest.raises(GeoBindError, match="is no folder"):
        ClipText(config=CLIP_CONFIG, tokenizer="nowhere")


def test_a_tokenizer_that_does_not_belong_to_the_model_is_refused(tmp_path):
    save_clip_tokenizer(tmp_path / "clip")
    small = {**CLIP_CONFIG, "text_config": {**CLIP_CONFIG["text_config"], "vocab_size": 150}}
    with pytest.raises(GeoBindError, match="192 tokens, the model embeds 150"):
        ClipText(config=small, tokenizer=tmp_path / "clip")
    other = {**CLIP_CONFIG, "text_config": {**CLIP_CONFIG["text_config"], "eos_token_id": 3}}
    with pytest.raises(GeoBindError, match="ends a text with token 191, the model expects 3"):
        ClipText(config=other, tokenizer=tmp_path / "clip")
    save_word_tokenizer(tmp_path / "words", eos=False)
    with pytest.raises(GeoBindError, match="the model expects 191"):
        ClipText(config=CLIP_CONFIG, tokenizer=tmp_path / "words")


@pytest.mark.parametrize("value", ["", "  ", None, float("nan"), ["two", "texts"]])
def test_no_text_is_an_error_of_that_row(clip, value):
    with pytest.raises(MediaError, match="is no sentence"):
        ClipText(weights=clip).processor({"text": value})


def test_python_tokenizers_work_too():
    from transformers import ByT5Tokenizer

    from geobind.towers.tokens import TextProcessor

    processor = TextProcessor(ByT5Tokenizer(), max_length=6)
    batch = processor.collate([processor({"text": text}) for text in ("abc", "a longer text")])
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, 6)
    assert batch["attention_mask"].sum(1).tolist() == [4, 6]
    assert pickle.loads(pickle.dumps(processor)).settings() == processor.settings()


# --- preprocessing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (OPENAI, (32, "crop", 0.4)),
        ({"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True}, (32, "crop", None)),
        ({"size": {"height": 40, "width": 40}, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}, (40, "squash", 0.5)),
        ({"size": {"height": 40, "width": 40}, "do_center_crop": True, "crop_size": 32}, (32, "squash", None)),
        ({"size": 40}, (40, "squash", None)),
        ({"do_normalize": False, "image_mean": [0.5, 0.5, 0.5], "size": 32}, (32, "squash", 0.0)),
        ({}, (32, "crop", None)),
    ],
)  # fmt: skip
def test_preprocessing_is_the_checkpoints_then_the_familys(clip, tmp_path, file, expected):
    folder = Path(shutil.copytree(clip, tmp_path / "weights"))
    (folder / "preprocessor_config.json").write_text(json.dumps(file))
    size, fit, mean = expected
    transform = ClipVision("image", weights=folder).processor.transform
    assert (transform.size, transform.fit) == (size, fit)
    assert transform.mean[0] == (0.48145466 if mean is None else mean)
    given = ClipVision("image", weights=folder, size=48, fit="squash", std=[1, 2, 3]).processor.transform
    assert (given.size, given.fit, given.std, given.mean) == (48, "squash", (1, 2, 3), transform.mean)


def test_processor_files_of_transformers_5_are_read(clip, tmp_path):
    folder = Path(shutil.copytree(clip, tmp_path / "weights"))
    (folder / "preprocessor_config.json").rename(folder / "processor_config.json")
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": OPENAI}))
    assert ClipVision("image", weights=folder).processor.transform.mean == (0.4, 0.5, 0.6)


def test_inputs_that_are_not_square_are_refused(clip, tmp_path):
    folder = Path(shutil.copytree(clip, tmp_path / "weights"))
    (folder / "preprocessor_config.json").write_text('{"size": {"height": 32, "width": 48}}')
    with pytest.raises(GeoBindError, match="32x48 pixels, towers take squares: set `size`"):
        ClipVision("image", weights=folder)


def test_the_fixed_transform_is_the_librarys(clip):
    from transformers import CLIPImageProcessor

    theirs = CLIPImageProcessor.from_pretrained(clip)(scene(), return_tensors="pt").pixel_values[0]
    ours = ClipVision("image", weights=clip).processor({"image": scene()})["pixels"]
    assert (ours - theirs).abs().max() < 1.01 / 255 / 0.2  # one grey level


def test_only_satellite_images_have_no_up(clip):
    overhead = {
        modality: ClipVision(modality, weights=clip).processor.transform.augment.overhead
        for modality in ("satellite", "image")
    }
    assert overhead == {"satellite": True, "image": False}
    assert ClipVision("satellite", weights=clip, augment=False).processor.transform.augment is None
    given = ClipVision("satellite", weights=clip, augment={"flip": False}).processor.transform.augment
    assert (given.overhead, given.flip) == (True, False)
    with pytest.raises(GeoBindError, match="its keys are scale"):
        ClipVision("satellite", weights=clip, augment={"turn": True})


def test_augmentation_is_drawn_from_the_generator_alone(clip):
    processor = pickle.loads(pickle.dumps(ClipVision("satellite", weights=clip).processor))
    draws = [
        processor({"satellite": scene()}, rng=np.random.default_rng(seed))["pixels"] for seed in (0, 0, 1)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_text_processors_are_pickled(clip):
    processor = ClipText(weights=clip).processor
    again = pickle.loads(pickle.dumps(processor))
    assert again.settings() == processor.settings()
    assert torch.equal(again({"text": TEXTS[2]})["input_ids"], processor({"text": TEXTS[2]})["input_ids"])
    assert len(again({"text": TEXTS[2]})["input_ids"]) == 16  # cut to what the model reads


# --- options -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": {"vision_config": {"patchsize": 8}}}, r"config.vision_config has an unknown key 'patchsize'; did you mean 'patch_size'"),
        ({"config": {"projection": 8}}, "config has an unknown key 'projection'"),
        ({"config": {"model_type": "clipp"}}, "model_type 'clipp' is none of transformers; did you mean 'clip'"),
        ({"config": {"model_type": "bert"}}, "takes a vision model or a joint one of clip, siglip, siglip2, this is 'bert'"),
        ({"config": {"vision_config": {"hidden_size": 30, "num_attention_heads": 4}}}, "config of clip"),
        ({"config": "no/such/config.json"}, "is no JSON file that can be read"),
        ({"config": {"model_type": "siglip", "vision_config": {"vision_use_head": False, "num_hidden_layers": 1}}}, "has no pooling head"),
        ({"weights": "."}, "holds no model.safetensors, and pickled weights are not read"),
        ({"weights": __file__}, "is a file: give the folder"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_one_line(options, message):
    with pytest.raises(GeoBindError, match=message) as error:
        build_tower("clip", modality="image", dim=512, **options)
    assert "\n" not in str(error.value)


def test_weights_and_config_together_are_refused(clip):
    with pytest.raises(GeoBindError, match="both `weights` and `config`"):
        ClipVision("image", weights=clip, config=CLIP_CONFIG)


def test_config_may_be_a_file(clip):
    tower = ClipVision("image", config=str(clip / "config.json"))
    assert tower.model.config.patch_size == 8
    assert not tower.pretrained
    assert ClipVision("image", weights="none", config=clip / "config.json").dim == 24


def test_pickled_weights_are_refused_with_the_way_out(clip, tmp_path):
    shutil.copy(clip / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(GeoBindError, match=r"convert it once: .*use_safetensors=False\)\.save_pretrained"):
        ClipVision("image", weights=tmp_path)


# --- the Hub -----------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """An empty cache of the Hub, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_a_hub_id_that_is_not_cached_is_one_line(hub):
    with pytest.raises(
        GeoBindError, match="neither a folder nor a Hub id that is cached or can be reached"
    ) as error:
        ClipVision("image", weights="openai/clip-vit-base-patch32")
    assert "\n" not in str(error.value)
    with pytest.raises(GeoBindError, match="neither a folder nor a Hub id"):
        ClipVision("image", weights="./no/such/folder")


@pytest.mark.parametrize("revision", ["main", "refs/pr/7"])
def test_a_cached_hub_id_is_read_even_from_the_converters_pull_request(hub, clip, revision):
    repository = hub / "models--some--clip"
    snapshots = {"main": "a" * 40, "refs/pr/7": "b" * 40}
    for name, commit in snapshots.items():
        (repository / "refs" / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / "refs" / name).write_text(commit)
        shutil.copytree(clip, repository / "snapshots" / commit)
        if name != revision:
            (repository / "snapshots" / commit / "model.safetensors").unlink()
    tower = ClipVision("image", weights="some/clip")
    assert fingerprint(tower) == fingerprint(ClipVision("image", weights=clip))
    assert tower.origin == ClipText(weights="some/clip").origin == ClipText(weights=clip).origin
