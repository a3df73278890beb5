"""The tower `satmae`: logits of a ViT through ReLU; a saved one gives the same vectors."""

from __future__ import annotations

import numpy as np
import torch

from geobind.towers.base import build_tower, load_tower

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
