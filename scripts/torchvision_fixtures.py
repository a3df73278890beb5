"""Write tests/media/torchvision.npz: what torchvision's RandAugment and random resized crop do.

torchvision breaks a CPU-only torch, so it never enters the project's environment. Once, in one of its own:

    pip install torch==2.9.1 torchvision==0.24.1
    python scripts/torchvision_fixtures.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, RandAugment, RandomResizedCrop
from torchvision.transforms.autoaugment import _apply_op
from torchvision.transforms.functional import resized_crop

OUT = Path(__file__).parents[1] / "tests" / "media" / "torchvision.npz"
MAGNITUDE, BINS, DRAWS = 9, 31, 20_000
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)


def scene(height: int, width: int) -> Image.Image:
    """Smooth colours, an edge and a little noise."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(20, 235, (4, 5, 3), dtype=np.uint8)
    pixels = np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    pixels[height // 3 :, : width // 4] //= 2
    return Image.fromarray((pixels + rng.integers(-8, 9, pixels.shape)).clip(0, 255).astype(np.uint8))


def main() -> None:
    picture = scene(20, 16)
    found = {"picture": np.array(picture)}
    space = RandAugment()._augmentation_space(BINS, (20, 16))
    for name, (magnitudes, signed) in space.items():
        size = float(magnitudes[MAGNITUDE]) if magnitudes.ndim else 0.0
        for sign in (1, -1) if signed else (1,):
            done = _apply_op(picture, name, sign * size, InterpolationMode.BICUBIC, None)
            found[f"{name} {sign:+d}"] = np.array(done)
    larger = scene(60, 44)
    found["larger"] = np.array(larger)
    found["crop 7 5 41 30"] = np.array(
        resized_crop(larger, 7, 5, 41, 30, [24, 24], InterpolationMode.BICUBIC)
    )
    torch.manual_seed(0)
    for height, width in ((800, 800), (300, 900)):
        picture = Image.new("RGB", (width, height))
        draws = np.array(
            [RandomResizedCrop.get_params(picture, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(DRAWS)]
        )
        top, left, tall, wide = draws.T
        rows = [tall * wide / (height * width), wide / tall, top / height, left / width]
        found[f"draws {height} {width}"] = np.array([np.quantile(row, SHARES) for row in rows])
    np.savez_compressed(OUT, **found)
    print(OUT, OUT.stat().st_size, "bytes;", ", ".join(space))


main()
