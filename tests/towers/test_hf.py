"""Vision models of transformers as towers: invariants.

* Every family gives one vector of the width that the tower says, the same every time.
* A saved tower opens with `AutoModel` and is read back bit for bit, with the same fingerprint.
* A pooler whose weights a checkpoint lacks is never used; other missing weights are an error.
* Colour filters spread to any number of channels answer to grey as before.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from geobind.errors import GeoBindError, MediaError
from geobind.media.rasters import BandTransform
from geobind.towers.base import build_tower, fingerprint, load_tower
from geobind.towers.hf import HfVision

TRANSFORMER = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip
CONVOLUTIONS = {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}
# configuration, the pooling that "auto" finds, width, tokens before the patches
FAMILIES = {
    "vit": (TRANSFORMER, "pooler", 32, 1),
    "deit": (TRANSFORMER, "pooler", 32, 2),
    "beit": (TRANSFORMER, "pooler", 32, 1),
    "vit_mae": ({**TRANSFORMER, "mask_ratio": 0.75}, "pooler", 32, 1),
    "dinov2": ({**TRANSFORMER, "mlp_ratio": 2}, "pooler", 32, 1),
    "dinov2_with_registers": ({**TRANSFORMER, "num_register_tokens": 3}, "pooler", 32, 4),
    "dinov3_vit": ({**TRANSFORMER, "num_register_tokens": 4}, "pooler", 32, 5),
    "siglip_vision_model": (TRANSFORMER, "pooler", 32, 0),
    "swin": ({"embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4, "image_size": 32}, "pooler", 16, 0),
    "convnext": (CONVOLUTIONS, "pooler", 16, 0),
    "resnet": ({"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}, "pooler", 16, 0),
    "segformer": ({"hidden_sizes": [8, 16], "depths": [1, 1], "num_encoder_blocks": 2, "num_attention_heads": [1, 2]}, "mean", 16, 0),
}  # fmt: skip


def config_of(family: str) -> dict:
    from transformers import AutoConfig

    known = AutoConfig.for_model(family).to_dict()
    values = {key: value for key, value in FAMILIES[family][0].items() if key in known}
    return {"model_type": family, **values}


def tower_of(family: str = "vit", **options) -> HfVision:
    torch.manual_seed(0)
    return HfVision("satellite", config=config_of(family), **{"size": 32, **options})


def checkpoint_of(folder: Path, family: str = "vit", *, without: str = "no such key") -> Path:
    """A checkpoint as others write it, less the tensors whose name begins with `without`."""
    tower_of(family).model.save_pretrained(folder)
    state = load_file(folder / "model.safetensors")
    kept = {key: value for key, value in state.items() if not key.startswith(without)}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def scene(seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((50, 40), Image.Resampling.BICUBIC)


def embed(tower, *values) -> torch.Tensor:
    items = [tower.processor({"satellite": value}) for value in values]
    with torch.inference_mode():
        return tower.eval()(**tower.processor.collate(items))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_its_width_and_is_read_back(family, tmp_path):
    from transformers import AutoModel

    _, pooling, width, prefix = FAMILIES[family]
    tower = tower_of(family)
    assert (tower.pooling, tower.width, tower.prefix) == (pooling, width, prefix)
    together = embed(tower, scene(), scene(1))
    assert together.shape == (2, width)
    assert together.dtype == torch.float32
    assert torch.equal(together, embed(tower, scene(), scene(1)))
    torch.testing.assert_close(together[:1], embed(tower, scene()), atol=1e-6, rtol=0)
    tower.save(tmp_path)
    again = load_tower(tmp_path)
    assert torch.equal(embed(again, scene(), scene(1)), together)
    assert fingerprint(again) == fingerprint(tower)
    plain = AutoModel.from_pretrained(tmp_path)
    assert type(plain) is type(tower.model)
    pixels = tower.processor({"satellite": scene()})["pixels"][None]
    with torch.inference_mode():
        torch.testing.assert_close(plain(pixels).last_hidden_state, tower.model(pixels).last_hidden_state)


def test_a_head_takes_it_to_the_space():
    tower = build_tower("hf", modality="satellite", dim=20, config=config_of("resnet"), size=32)
    assert embed(tower, scene()).shape == (1, 20)


def test_mean_is_over_patches_alone():
    tower = tower_of("dinov3_vit", pooling="mean")
    pixels = tower.processor({"satellite": scene()})["pixels"][None]
    with torch.inference_mode():
        hidden = tower.eval().model(pixels).last_hidden_state  # class token, 4 registers, 4 x 4 patches
    assert torch.equal(embed(tower, scene()), hidden[:, -16:].mean(1))


def test_mean_of_a_feature_map():
    tower = tower_of("resnet", pooling="mean")
    torch.testing.assert_close(embed(tower, scene()), embed(tower_of("resnet", pooling="pooler"), scene()))


@pytest.mark.parametrize("family", ["vit", "swin", "dinov2", "dinov3_vit", "beit", "resnet"])
def test_every_weight_that_learns_is_used(family):
    """A pooler beside another pooling, or the mask of pretraining, would get no gradient."""
    for pooling in ("mean", "pooler"):
        tower = tower_of(family, pooling=pooling)
        tower.train()(pixels=torch.randn(2, 3, 32, 32)).square().sum().backward()
        assert [n for n, p in tower.named_parameters() if p.requires_grad and p.grad is None] == []


def test_pooling_that_a_model_has_not_is_refused():
    with pytest.raises(GeoBindError, match=r"pooling 'cls': swin has none .*give pooler or mean"):
        tower_of("swin", pooling="cls")


# --- checkpoints -------------------------------------------------------------------------------------------


def test_a_pooler_without_weights_is_never_used(tmp_path):
    folder = checkpoint_of(tmp_path / "vit", without="pooler.")
    tower = HfVision("satellite", weights=folder)
    assert tower.pooling == "cls"
    assert torch.equal(embed(tower, scene()), embed(HfVision("satellite", weights=folder), scene()))
    assert torch.equal(
        embed(tower, scene()), embed(HfVision("satellite", weights=folder, pooling="cls"), scene())
    )
    with pytest.raises(GeoBindError, match=r"pooling 'pooler': vit has none .*lacks its weights"):
        HfVision("satellite", weights=folder, pooling="pooler")
    tower.save(tmp_path / "saved")
    assert fingerprint(load_tower(tmp_path / "saved")) == fingerprint(tower)
    whole = checkpoint_of(tmp_path / "whole")
    assert HfVision("satellite", weights=whole).pooling == "pooler"


def test_other_missing_weights_are_named(tmp_path):
    folder = checkpoint_of(tmp_path, without="layernorm")
    with pytest.raises(GeoBindError, match=r"lack 2 of \d+ .*layernorm\.bias, layernorm\.weight"):
        HfVision("satellite", weights=folder)


def test_the_encoder_of_a_masked_autoencoder_sees_everything(tmp_path):
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    config = ViTMAEConfig(**TRANSFORMER, decoder_hidden_size=16, decoder_num_hidden_layers=1, decoder_num_attention_heads=2)  # fmt: skip
    model = ViTMAEForPreTraining(config).eval()
    model.save_pretrained(tmp_path)
    tower = HfVision("satellite", weights=tmp_path, pooling="mean")
    model.config.mask_ratio = 0.0
    pixels = tower.processor({"satellite": scene()})["pixels"][None]
    with torch.inference_mode():
        hidden = model.vit(pixels, noise=torch.arange(16.0)[None]).last_hidden_state
    torch.testing.assert_close(embed(tower, scene()), hidden[:, 1:].mean(1))


def test_another_size_interpolates_the_positions(tmp_path):
    folder = checkpoint_of(tmp_path)
    assert embed(HfVision("satellite", weights=folder, size=48), scene()).shape == (1, 32)


# --- channels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["vit", "dinov2", "resnet", "convnext", "swin"])
@pytest.mark.parametrize("channels", [1, 2, 13])
def test_spread_filters_answer_to_grey_as_before(family, channels, tmp_path):
    folder = checkpoint_of(tmp_path / "rgb", family)
    rgb = HfVision("satellite", weights=folder, size=32)
    spread = HfVision(
        "satellite", weights=folder, size=32, channels=channels, mean=[0.0] * channels, std=[1.0] * channels
    )
    grey = torch.randn(2, 1, 32, 32)
    with torch.inference_mode():
        expected = rgb.eval()(pixels=grey.expand(-1, 3, -1, -1))
        actual = spread.eval()(pixels=grey.expand(-1, channels, -1, -1))
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)
    spread.save(tmp_path / "saved")
    assert fingerprint(load_tower(tmp_path / "saved")) == fingerprint(spread)


def test_rasters_of_any_number_of_bands_go_through(tmp_path):
    mean, std = [10.0, 20.0, 30.0, 40.0, 50.0], [1.0, 2.0, 3.0, 4.0, 5.0]
    tower = tower_of("resnet", channels=5, mean=mean, std=std)
    assert tower.model.config.num_channels == 5
    raster = np.random.default_rng(0).normal(30, 20, (5, 40, 36)).astype(np.float32)
    np.save(tmp_path / "tile.npy", raster)
    assert torch.equal(embed(tower, raster), embed(tower, tmp_path / "tile.npy"))
    flat = np.repeat(np.float32(mean), 40 * 40).reshape(5, 40, 40)
    assert tower.processor({"satellite": flat})["pixels"].abs().max() == 0
    with pytest.raises(MediaError, match="has 3 channels, 5 are expected"):
        embed(tower, raster[:3])
    tower.save(tmp_path / "saved")
    assert torch.equal(embed(load_tower(tmp_path / "saved"), raster), embed(tower, raster))


def test_three_bands_are_read_as_a_raster_where_told():
    tower = tower_of("vit", bands=True, mean=[0, 0, 0], std=[1, 1, 1])
    assert isinstance(tower.processor.transform, BandTransform)
    assert tower.processor.transform.augment.overhead
    values = np.linspace(-1, 1, 3 * 32 * 32, dtype=np.float32).reshape(3, 32, 32)
    assert torch.equal(tower.processor({"satellite": values})["pixels"], torch.from_numpy(values))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 4}, "of 4 channels, mean = None, std = None: give one number of each per channel"),
        ({"channels": 4, "mean": [1, 2, 3], "std": [1, 2, 3]}, "of 4 channels, mean = "),
        ({"bands": True}, "of 3 channels, mean = None"),
        ({"channels": 1, "mean": [0], "std": [1], "fit": "squash"}, "rasters are always cut"),
        ({"config": {"model_type": "clip"}}, "this is the joint 'clip': the tower 'clip' reads"),
        ({"config": {"model_type": "bert"}}, "takes a vision model, 'bert' is none"),
        ({"config": {"hidden_size": 32}}, "config names no model_type"),
        ({"config": {"model_type": "vitt"}}, "model_type 'vitt' is none of transformers; did you mean 'vit'"),
        ({"config": {"model_type": "vit", "hidden": 32}}, "config has an unknown key 'hidden'"),
        ({"pooling": "max"}, "pooling: .*got 'max'"),
        ({"config": {**TRANSFORMER, "model_type": "siglip2_vision_model", "image_size": 32}}, "unknown key 'image_size'"),
        ({"config": {"model_type": "siglip2_vision_model", "num_hidden_layers": 1}}, "takes no input of 3x32x32"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_one_line(options, message):
    options = {"config": config_of("vit"), "size": 32, **options}
    with pytest.raises(GeoBindError, match=message) as error:
        build_tower("hf", modality="satellite", dim=32, **options)
    assert "\n" not in str(error.value)


def test_preprocessing_of_the_checkpoint_is_read(tmp_path):
    folder = checkpoint_of(tmp_path / "vit")
    (folder / "preprocessor_config.json").write_text(
        '{"size": {"height": 32, "width": 32}, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}'
    )
    transform = HfVision("satellite", weights=folder).processor.transform
    assert (transform.size, transform.fit, transform.mean) == (32, "squash", (0.5, 0.5, 0.5))
    shutil.rmtree(folder)
    assert tower_of("resnet", size=None).processor.transform.size == 224
