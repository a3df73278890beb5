"""The paper's encoders from bare configurations: CLIP ViT-B/32 for satellite and image, CLAP HTSAT for audio.

* They have as many parameters as the published ones: 151,277,313 for CLIP ViT-B/32 (87,849,216 of them the
  vision model with its projection) and 153,507,530 for CLAP HTSAT-fused.
* Each gives one vector of 512 numbers for a real picture or sound.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geobind.towers.base import build_tower


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("modality", ["satellite", "image"])
def test_clip_vit_b_32(modality):
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    tower = build_tower("clip", modality=modality, dim=512).eval()
    assert tower.head is None
    assert parameters(tower) == 87_849_216
    with torch.device("meta"):
        text = CLIPTextModelWithProjection(CLIPTextConfig())
    assert parameters(tower) + parameters(text) + 1 == 151_277_313  # and a temperature
    picture = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    batch = tower.processor.collate([tower.processor({modality: picture})])
    assert batch["pixels"].shape == (1, 3, 224, 224)
    with torch.inference_mode():
        assert tower(**batch).shape == (1, 512)


def test_clap_htsat_fused():
    from transformers import ClapTextConfig, ClapTextModelWithProjection

    tower = build_tower("clap", modality="audio", dim=512).eval()
    assert tower.head is None
    assert parameters(tower) == 28_205_512
    with torch.device("meta"):
        text = ClapTextModelWithProjection(ClapTextConfig())
    assert parameters(tower) + parameters(text) + 2 == 153_507_530  # and two temperatures
    samples = np.random.default_rng(0).normal(0, 0.1, 12 * 48_000).astype(np.float32)
    batch = tower.processor.collate([tower.processor({"audio": (samples, 48_000)})])
    assert batch["mel"].shape == (2, 1, 1001, 64)
    with torch.inference_mode():
        assert tower(**batch).shape == (1, 512)
