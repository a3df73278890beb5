"""The published CLIP and CLAP weights through our towers, against the library's own models and processors.

Needs a network (about 1.2 GB) and runs with `make test-weights` alone. It has not been run where there is
no network; the same comparisons on random weights are in tests/towers and have.

* On the library's inputs a tower computes what the library's joint model computes.
* On a file's own path through our processors it differs by rounding of pixels and decibels alone.
* The checkpoints are the published ones: their parameter counts and CLIP's logit scale of 100.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import cosine_similarity, normalize

from geobind import GeoBind
from geobind.towers.clap import ClapAudio, ClapText
from geobind.towers.clip import ClipText, ClipVision

pytestmark = pytest.mark.weights

CLIP, CLAP = "openai/clip-vit-base-patch32", "laion/clap-htsat-fused"
TEXTS = ["a photo of the sea", "a satellite image of a harbour with many boats", "Birds sing in a forest."]


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def embed(tower, *values) -> torch.Tensor:
    items = [tower.processor({tower.modality: value}) for value in values]
    with torch.inference_mode():
        return tower.eval()(**tower.processor.collate(items))


@torch.inference_mode()
def test_clip():
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

    joint = CLIPModel.from_pretrained(CLIP).eval()
    assert parameters(joint) == 151_277_313
    assert joint.logit_scale.exp().item() == pytest.approx(100, abs=0.01)

    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((400, 300), Image.Resampling.BICUBIC)
    image = ClipVision("image", weights=CLIP)
    theirs = CLIPImageProcessor.from_pretrained(CLIP)(picture, return_tensors="pt").pixel_values
    expected = joint.get_image_features(theirs).pooler_output
    torch.testing.assert_close(image.eval()(pixels=theirs), expected, atol=1e-4, rtol=1e-4)
    assert cosine_similarity(embed(image, picture), expected) > 0.999

    text = ClipText(weights=CLIP)
    tokens = AutoTokenizer.from_pretrained(CLIP)(TEXTS, padding=True, return_tensors="pt")
    expected = joint.get_text_features(**tokens).pooler_output
    torch.testing.assert_close(embed(text, *TEXTS), expected, atol=1e-4, rtol=1e-4)
    assert GeoBind(512, [image, text]).comparable("image", "text")


@torch.inference_mode()
def test_clap():
    from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

    joint = ClapModel.from_pretrained(CLAP).eval()
    assert parameters(joint) == 153_507_530

    samples = np.random.default_rng(0).normal(0, 0.1, 10 * 48_000).astype(np.float32)
    audio = ClapAudio("audio", weights=CLAP)
    inputs = ClapFeatureExtractor.from_pretrained(CLAP)(samples, sampling_rate=48_000, return_tensors="pt")
    inputs["is_longer"][:] = False  # which the extractor sets at random
    expected = joint.get_audio_features(**inputs).pooler_output  # of unit length
    torch.testing.assert_close(normalize(embed(audio, (samples, 48_000))), expected, atol=1e-4, rtol=0)

    text = ClapText(weights=CLAP)
    tokens = AutoTokenizer.from_pretrained(CLAP)(TEXTS, padding=True, return_tensors="pt")
    expected = joint.get_text_features(**tokens).pooler_output
    torch.testing.assert_close(normalize(embed(text, *TEXTS)), expected, atol=1e-4, rtol=0)
    assert GeoBind(512, [audio, text]).comparable("audio", "text")
