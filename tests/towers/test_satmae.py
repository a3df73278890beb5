"""The tower `satmae`: logits of a ViT through ReLU; a saved one gives the same vectors."""

from __future__ import annotations

import numpy as np
import torch

from geobind.towers.base import build_tower, fingerprint, load_tower

TINY = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip


def test_features_are_rectified_logits_and_survive_saving(tmp_path):
    torch.manual_seed(0)
    tower = build_tower("satmae", modality="satellite", dim=16, config=TINY, classes=40, head="linear").eval()
    picture = np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    batch = tower.processor.collate([tower.processor({"satellite": picture})])
    with torch.inference_mode():
        logits = tower.model(pixel_values=batch["pixels"]).logits
        assert (logits < 0).any()
        assert torch.equal(tower.encode(**batch), logits.clamp_min(0))
        expected = tower(**batch)
        assert expected.shape == (1, 16)
        tower.save(tmp_path / "saved")
        again = load_tower(tmp_path / "saved")
        assert torch.equal(
            again(**again.processor.collate([again.processor({"satellite": picture})])), expected
        )


def test_it_is_told_the_place_and_learns_in_part_like_any_other_vision_tower(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    told = build_tower(
        "satmae", modality="satellite", dim=40, config=TINY, classes=40, condition="sphere"
    ).eval()
    torch.nn.init.normal_(told.geo_encoder.fc2.weight)

    def at(**place) -> torch.Tensor:
        with torch.inference_mode():
            return told.encode(**told.processor.collate([told.processor({"satellite": picture, **place})]))

    assert not torch.allclose(at(latitude=10.0, longitude=20.0), at(latitude=-10.0, longitude=20.0))
    with torch.inference_mode():
        pixels = told.processor({"satellite": picture})["pixels"][None]
        added = told.geo_encoder.unknown
        assert torch.equal(at(), told.model(pixel_values=pixels).logits.relu() + added)

    last = build_tower("satmae", modality="satellite", dim=40, config=TINY, classes=40, unfreeze=1)
    learning = {name for name, parameter in last.model.named_parameters() if parameter.requires_grad}
    assert any(name.startswith("vit.layers.1.") for name in learning)
    assert "classifier.weight" in learning
    assert not any(name.startswith(("vit.layers.0.", "vit.embeddings.")) for name in learning)
    low = build_tower("satmae", modality="satellite", dim=40, config=TINY, classes=40, adapters={"rank": 2})
    assert all("lora_" in name for name, parameter in low.model.named_parameters() if parameter.requires_grad)
    low.save(tmp_path / "low")
    again = load_tower(tmp_path / "low")
    assert fingerprint(again) == fingerprint(low)
