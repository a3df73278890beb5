"""Images: any file, bytes, picture or array to RGB, and the transform that image towers apply."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from geobind.errors import GeoBindError, shorten
from geobind.media.pictures import ImageValue, Region, opened_picture, upright
from geobind.media.randaugment import BINS, rand_augment


def load_image(value: ImageValue, *, region: Region | None = None, target: int | None = None) -> np.ndarray:
    """Read a picture as (H, W, 3) uint8 RGB, upright.

    EXIF rotation is applied and transparency dropped, as the processors of pretrained models do.
    16-bit grey is divided by 257 (its full range to 0..255); values with another meaning are bands.

    >>> load_image("tile.jpg", target=224).shape   # 800x800 on disk, decoded at 3/8
    (300, 300, 3)

    value: a path, the bytes of a file, a PIL image, or an (H, W, 3) or (H, W) uint8 array.
    region: (top, left, height, width) of the upright picture; only that part is returned.
    target: the shorter side, in pixels, that the result will be resized to. A JPEG is then decoded at
    a reduced scale where the result keeps at least that many; nothing is ever enlarged.
    Raises MediaError for a value that cannot be read in full (missing, empty, corrupt, truncated).
    """
    with opened_picture(value) as picture:
        pixels, extent = picture.part(region, target)
    # `extent` is at least `target`, an integer: rounding cannot go below it.
    height, width = (max(1, round(side)) for side in extent)
    turned = upright(torch.from_numpy(pixels[:height, :width]).permute(2, 0, 1), picture.orientation)
    return np.ascontiguousarray(turned.permute(1, 2, 0).numpy())


def image_size(value: ImageValue) -> tuple[int, int]:
    """(height, width) of the upright picture, from the file's header. Raises MediaError."""
    with opened_picture(value) as picture:
        return picture.size


@dataclass(frozen=True)
class Augment:
    """What a transform draws when it is given a generator: a crop, distortions, and which way up it lies.

    The crop covers a share of the area within `scale` at an aspect ratio within `ratio` (Szegedy et al.
    2015, "Inception crop"). `flip` mirrors left and right. `overhead` adds quarter turns, because a
    satellite image has no up: with `flip`, all eight orientations of a square are equally likely,
    vertical flips among them. `num_ops` operations of RandAugment distort shape and colour, at
    `magnitude` of 0..30 (see `rand_augment`); none by default.

    >>> Augment(scale=(0.5, 1.0), overhead=True)
    >>> Augment(num_ops=3, magnitude=9, flip=False)    # Sat2Cap
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    overhead: bool = False
    num_ops: int = 0
    magnitude: int = 9

    def __post_init__(self) -> None:
        if self.num_ops < 0 or not 0 <= self.magnitude < BINS:
            raise GeoBindError(
                f"augment, num_ops = {self.num_ops}, magnitude = {self.magnitude}: "
                f"give 0 or more operations, at 0 to {BINS - 1}"
            )
        for name, most in (("scale", 1.0), ("ratio", math.inf)):
            low_high = tuple(getattr(self, name))
            if len(low_high) != 2 or not 0 < low_high[0] <= low_high[1] <= most:
                raise GeoBindError(
                    f"augment, {name} = {shorten(low_high)}: give (low, high) with 0 < low <= high <= {most}"
                )
            object.__setattr__(self, name, low_high)

    def region(self, height: int, width: int, rng: np.random.Generator) -> Region:
        """A random crop of a picture of this size, as (top, left, height, width)."""
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            aspect = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            h, w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
            if 0 < h <= height and 0 < w <= width:
                return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
        # A long strip holds few such crops: the largest centred one whose ratio is allowed.
        h = min(height, max(1, round(width / self.ratio[0])))
        w = min(width, max(1, round(height * self.ratio[1])))
        return (height - h) // 2, (width - w) // 2, h, w

    def distort(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        """RandAugment on a (3, H, W) uint8 picture."""
        if not self.num_ops:
            return image
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        done = rand_augment(picture, rng, num_ops=self.num_ops, magnitude=self.magnitude)
        return torch.from_numpy(np.array(done)).permute(2, 0, 1)

    def orient(self, square: Tensor, rng: np.random.Generator) -> Tensor:
        """Flip and turn a (..., size, size) tensor at random."""
        if self.flip and rng.random() < 0.5:
            square = square.flip(-1)
        if self.overhead:
            square = square.rot90(int(rng.integers(4)), (-2, -1))
        return square


def as_augment(value: Augment | dict[str, Any] | None) -> Augment | None:
    """An `Augment`, or what `settings()` wrote of one. Raises GeoBindError for an unknown key."""
    if not isinstance(value, dict):
        return value
    try:
        return Augment(**value)
    except TypeError:
        raise GeoBindError(
            f"augment = {shorten(value)}: its keys are {', '.join(Augment.__dataclass_fields__)}"
        ) from None


@dataclass(frozen=True)
class ImageTransform:
    """Any image value to the (3, size, size) float32 tensor that an image tower takes.

    The fixed transform is antialiased bicubic. fit "squash" resizes both sides to `size` (Sat2Cap);
    "crop" resizes the short side and cuts the centre square (CLIP, equal to its processor to within
    one grey level). With a generator and `augment`, a random crop is chosen first and the JPEG decoded
    at the scale which that crop needs, so that a small crop is as sharp as the file allows.

    >>> transform = ImageTransform(224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), augment=Augment())
    >>> transform("tile.jpg").shape                             # the same every time
    torch.Size([3, 224, 224])
    >>> augmented = transform("tile.jpg", np.random.default_rng(0))   # drawn from the generator alone

    mean, std: of each channel, of values in 0..1. Raises MediaError for a value that cannot be read.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fit: Literal["squash", "crop"] = "squash"
    augment: Augment | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        object.__setattr__(self, "augment", as_augment(self.augment))
        if self.size < 1:
            raise GeoBindError(f"image transform, size = {self.size}: give a number of pixels of at least 1")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise GeoBindError(
                f"image transform, mean = {self.mean}, std = {self.std}: give three numbers each, std above 0"
            )
        if self.fit not in ("squash", "crop"):
            raise GeoBindError(f"image transform, fit = {self.fit!r}: give 'squash' or 'crop'")

    def __call__(self, value: ImageValue, rng: np.random.Generator | None = None) -> Tensor:
        """(3, size, size) float32, normalised."""
        return self.normalise(self.bytes(value, rng))

    def bytes(self, value: ImageValue, rng: np.random.Generator | None = None) -> Tensor:
        """The same before normalisation: (3, size, size) uint8, a quarter of the memory, in any order of it."""
        augment = self.augment if rng is not None else None
        with opened_picture(value) as picture:
            region = None
            shape = self.size, self.size
            if augment is not None and rng is not None:
                region = augment.region(*picture.size, rng)
            elif self.fit == "crop":
                shape = short_side(*picture.size, self.size)
            pixels, extent = picture.part(region, self.size)
        stored_shape = shape[::-1] if picture.orientation >= 5 else shape
        image = resize(torch.from_numpy(pixels).permute(2, 0, 1), stored_shape, "bicubic", extent)
        image = centre(upright(image, picture.orientation), self.size)
        if augment is not None and rng is not None:
            image = augment.orient(augment.distort(image, rng), rng)
        return image

    def normalise(self, pixels: Tensor) -> Tensor:
        """(..., 3, size, size) uint8 of 0..255, on any device, to float32 of this mean and deviation."""
        scale, shift = (
            part.to(pixels.device, non_blocking=True) for part in _normalising(self.mean, self.std)
        )
        return pixels.contiguous().float().mul_(scale).add_(shift)

    def least_side(self, *, learns: bool) -> int:
        """Shorter side in pixels that a stored picture needs so that no square crop of it is enlarged."""
        low = self.augment.scale[0] if learns and self.augment else 1.0
        return math.ceil(self.size / math.sqrt(low))

    def enlarged(self, side: int, *, learns: bool) -> float:
        """Share of the square crops that are enlarged where the stored picture has a shorter side of `side`."""
        low, high = self.augment.scale if learns and self.augment else (1.0, 1.0)
        needed = (self.size / side) ** 2  # of the picture's area
        return float(needed > high) if low == high else min(1.0, max(0.0, (needed - low) / (high - low)))

    def settings(self) -> dict[str, Any]:
        """All fields as JSON values: `ImageTransform(**settings)` is equal to this one."""
        return asdict(self)


def resize(
    image: Tensor, shape: tuple[int, int], mode: str, extent: tuple[float, float] | None = None
) -> Tensor:
    """(C, H, W), uint8 or float32, to (C, *shape), antialiased as in Pillow.

    `extent` is the (height, width) to resize, from the first row and column, where it ends within the
    last ones.
    """
    if extent in (None, tuple(image.shape[1:])):
        if tuple(image.shape[1:]) == shape:
            return image
        scale = None
    else:
        assert extent is not None
        # interpolate rounds the product down to the size: a hair over keeps it from falling below.
        scale = ((shape[0] + 1e-4) / extent[0], (shape[1] + 1e-4) / extent[1])
    size = shape if scale is None else None
    # torch has a fast path for uint8 that rounds as Pillow does: four times the speed of float32. It takes colours
    # side by side as they are only where the batch's stride says so, which that of `image[None]` does not.
    batch = image.permute(1, 2, 0)[None].permute(0, 3, 1, 2)
    return interpolate(batch, size=size, scale_factor=scale, mode=mode, antialias=True)[0]


@lru_cache
def _normalising(mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """(3, 1, 1) each: factor and summand that take 0..255 to values of this mean and deviation in 0..1."""
    scale = 1 / (255 * torch.tensor(std, dtype=torch.float64))
    shift = -torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
    return scale.float().view(3, 1, 1), shift.float().view(3, 1, 1)


def shrink(pixels: np.ndarray, side: int) -> np.ndarray:
    """An (H, W, 3) uint8 picture with its shorter side resized to `side`, antialiased bicubic."""
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    small = resize(image, short_side(pixels.shape[0], pixels.shape[1], side), "bicubic")
    return np.ascontiguousarray(small.permute(1, 2, 0).numpy())


def short_side(height: int, width: int, size: int) -> tuple[int, int]:
    """(height, width) with the shorter one resized to `size`, as CLIP's processor rounds it."""
    short = min(height, width)
    return size * height // short, size * width // short


def centre(image: Tensor, size: int) -> Tensor:
    """(C, H, W) to its centre (C, size, size)."""
    top, left = (image.shape[1] - size) // 2, (image.shape[2] - size) // 2
    return image[:, top : top + size, left : left + size]
