"""RandAugment and the random resized crop: invariants.

* Every operation equals torchvision's, pixel for pixel; a crop is resized to within one grey level of it,
  and its place and shape have torchvision's distribution (`torchvision.npz`, written once by
  `scripts/torchvision_fixtures.py`).
* Operations are drawn evenly, directions by a fair coin, from the sample's generator alone.
* Without operations nothing is distorted, and no other draw changes.
"""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from geobind.media import randaugment
from geobind.media.images import Augment, ImageTransform, resize
from geobind.media.randaugment import BINS, OPERATIONS, SIGNED, operate, rand_augment

FIXTURES = dict(np.load(Path(__file__).with_name("torchvision.npz")))
OPERATED = [key for key in FIXTURES if key.endswith((" +1", " -1"))]
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)


def test_every_operation_and_direction_is_pinned():
    assert set(OPERATED) == {f"{name} +1" for name in OPERATIONS} | {f"{name} -1" for name in SIGNED}
    changed = {key for key in OPERATED if not np.array_equal(FIXTURES[key], FIXTURES["picture"])}
    assert set(OPERATED) - changed == {"Identity +1"}


@pytest.mark.parametrize("key", OPERATED)
def test_an_operation_equals_torchvisions(key):
    name, sign = key.split()
    done = operate(Image.fromarray(FIXTURES["picture"]), name, int(sign) * 9 / (BINS - 1))
    assert np.array_equal(np.array(done), FIXTURES[key])


def test_a_crop_is_resized_as_torchvision_does():
    (key,) = (key for key in FIXTURES if key.startswith("crop "))
    top, left, tall, wide = map(int, key.split()[1:])
    part = FIXTURES["larger"][top : top + tall, left : left + wide]
    ours = resize(torch.from_numpy(np.ascontiguousarray(part)).permute(2, 0, 1), (24, 24), "bicubic")
    assert np.abs(ours.permute(1, 2, 0).numpy().astype(int) - FIXTURES[key]).max() <= 1


@pytest.mark.parametrize(("height", "width"), [(800, 800), (300, 900)])
def test_crops_are_distributed_as_torchvisions(height, width):
    rng = np.random.default_rng(0)
    draws = np.array([Augment().region(height, width, rng) for _ in range(10_000)])
    top, left, tall, wide = draws.T
    rows = [tall * wide / (height * width), wide / tall, top / height, left / width]
    ours = np.array([np.quantile(row, SHARES) for row in rows])
    np.testing.assert_allclose(ours, FIXTURES[f"draws {height} {width}"], atol=0.02)


def test_operations_and_directions_are_drawn_evenly(monkeypatch):
    drawn: list[tuple[str, float]] = []
    monkeypatch.setattr(
        randaugment, "operate", lambda picture, *operation: drawn.append(operation) or picture
    )
    rng = np.random.default_rng(0)
    for _ in range(1000):
        rand_augment(Image.new("RGB", (4, 4)), rng, num_ops=3, magnitude=9)
    assert len(drawn) == 3000
    names = collections.Counter(name for name, _ in drawn)
    assert set(names) == set(OPERATIONS)
    assert min(names.values()) > 0.7 * 3000 / 14
    assert {round(abs(strength), 6) for _, strength in drawn} == {0.3}
    assert all(strength > 0 for name, strength in drawn if name not in SIGNED)
    signs = [strength > 0 for name, strength in drawn if name in SIGNED]
    assert np.mean(signs) == pytest.approx(0.5, abs=0.05)


def test_distortion_comes_from_the_generator_alone():
    picture = FIXTURES["larger"]
    transform = ImageTransform(
        32, (0.5,) * 3, (0.5,) * 3, augment=Augment(num_ops=3, flip=False, scale=(1, 1), ratio=(1, 1))
    )
    one, same, other = (transform(picture, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    plain = dataclasses.replace(transform, augment=None)
    assert torch.equal(transform(picture), plain(picture))


def test_magnitude_zero_only_equalises():
    """At magnitude 0 all that is left are the operations without a strength."""
    picture = Image.fromarray(FIXTURES["picture"])
    for name in OPERATIONS:
        same = np.array_equal(np.array(operate(picture, name, 0.0)), FIXTURES["picture"])
        assert same == (name not in ("AutoContrast", "Equalize", "Solarize")), name
    solarized = np.array(operate(picture, "Solarize", 0.0))
    assert np.array_equal(solarized, np.where(FIXTURES["picture"] == 255, 0, FIXTURES["picture"]))
