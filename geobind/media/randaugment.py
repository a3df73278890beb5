"""RandAugment: some random operations on a picture, by its own generator, each of one strength."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

BINS = 31
"""Steps from no effect (magnitude 0) to the strongest (30), as torchvision counts them."""


def rand_augment(
    picture: Image.Image, rng: np.random.Generator, *, num_ops: int, magnitude: int = 9
) -> Image.Image:
    """`num_ops` operations drawn with replacement from the fourteen, one after the other.

    Equal to torchvision's `RandAugment` for the same draws, with bicubic interpolation as Sat2Cap has it
    (`num_ops` 3, `magnitude` 9 of 31 bins). Those with a direction (shear, shift, rotation, enhancement)
    get it by the toss of a coin; what comes into view is black.

    >>> rand_augment(picture, np.random.default_rng(0), num_ops=3)

    picture: RGB of any size. magnitude: 0..30. Cubuk et al. 2020, "RandAugment: Practical automated data
    augmentation with a reduced search space".
    """
    for _ in range(num_ops):
        name = OPERATIONS[int(rng.integers(len(OPERATIONS)))]
        sign = -1 if name in SIGNED and rng.random() < 0.5 else 1
        picture = operate(picture, name, sign * magnitude / (BINS - 1))
    return picture


def operate(picture: Image.Image, name: str, strength: float) -> Image.Image:
    """One operation at a strength of -1..1 (0..1 for those without direction)."""
    return _APPLY[name](picture, strength)


def _affine(
    picture: Image.Image, *matrix: float, resample: Image.Resampling = Image.Resampling.BICUBIC
) -> Image.Image:
    """(x, y) of the result shows (a x + b y + c, d x + e y + f) of the picture."""
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix, resample)


def _shift(picture: Image.Image, strength: float, axis: int) -> Image.Image:
    pixels = int(150 / 331 * picture.size[axis] * strength)  # 150 of the paper's 331 pixels
    # By whole pixels, where all interpolations give the same and this one is the fastest.
    matrix = (1, 0, -pixels * (axis == 0), 0, 1, -pixels * (axis == 1))
    return _affine(picture, *matrix, resample=Image.Resampling.NEAREST)


def _posterize(picture: Image.Image, strength: float) -> Image.Image:
    return ImageOps.posterize(picture, 8 - round(4 * strength))  # bits that are kept


def _enhance(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Callable[..., Image.Image]:
    return lambda picture, strength: kind(picture).enhance(1 + 0.9 * strength)


_APPLY: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "Identity": lambda picture, strength: picture,
    "ShearX": lambda picture, strength: _affine(picture, 1, 0.3 * strength, 0, 0, 1, 0),
    "ShearY": lambda picture, strength: _affine(picture, 1, 0, 0, 0.3 * strength, 1, 0),
    "TranslateX": lambda picture, strength: _shift(picture, strength, 0),
    "TranslateY": lambda picture, strength: _shift(picture, strength, 1),
    "Rotate": lambda picture, strength: picture.rotate(30 * strength, Image.Resampling.BICUBIC),  # degrees
    "Brightness": _enhance(ImageEnhance.Brightness),
    "Color": _enhance(ImageEnhance.Color),
    "Contrast": _enhance(ImageEnhance.Contrast),
    "Sharpness": _enhance(ImageEnhance.Sharpness),
    "Posterize": _posterize,
    "Solarize": lambda picture, strength: ImageOps.solarize(picture, 255 * (1 - strength)),  # type: ignore[arg-type]
    "AutoContrast": lambda picture, strength: ImageOps.autocontrast(picture),
    "Equalize": lambda picture, strength: ImageOps.equalize(picture),
}
OPERATIONS = tuple(_APPLY)
SIGNED = frozenset(OPERATIONS[1:10])
