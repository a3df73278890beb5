"""Rasters: multispectral and radar imagery of any number of channels, as floats."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from geobind.errors import GeoBindError, MediaError, shorten
from geobind.media.files import describe, opened, unreadable
from geobind.media.images import Augment, as_augment, centre, resize, short_side
from geobind.media.stored import Stored

BandsValue = str | Path | bytes | Stored | np.ndarray

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_GDAL_NODATA = 42113
_BITS_PER_SAMPLE, _SAMPLES_PER_PIXEL = 258, 277


def load_bands(value: BandsValue) -> np.ndarray:
    """Read a raster as (channels, height, width) float32, the values as they are stored.

    Nothing is rescaled: means and deviations are in the file's own unit (reflectance times 10,000,
    decibels, counts). Pixels that the file declares as missing (nodata, mask) become NaN.

    >>> load_bands("sentinel2.tif").shape
    (13, 264, 264)

    value: a (channels, height, width) or (height, width) array of numbers; a path or the bytes of a
    `.npy` file with such an array, of a TIFF (through rasterio where it is installed, otherwise what
    Pillow reads without loss: one channel, or several of 8 bit) or of a common image, whose channels
    are kept as they are (a palette becomes RGB).
    Raises MediaError for a value that cannot be read, and where a TIFF needs rasterio.
    """
    if isinstance(value, np.ndarray):
        return _bands(value, value)
    if not isinstance(value, str | Path | bytes | Stored):
        raise MediaError(
            f"raster {shorten(value)}: give a path, the bytes of a file or a (channels, height, width) array"
        )
    with opened(value, "raster") as file:
        head = file.read(6)
        file.seek(0)
        try:
            if head == b"\x93NUMPY":
                array = np.load(file, allow_pickle=False)
            elif head[:4] in _TIFF:
                array = _read_tiff(value, file)
            else:
                array = _read_image(value, Image.open(file))
        except MediaError:
            raise
        except Image.UnidentifiedImageError:
            raise unreadable("raster", value, "neither .npy nor TIFF nor a known image format") from None
        except Exception as error:  # Pillow's plugins and GDAL raise anything
            raise unreadable("raster", value, error) from None
    return _bands(array, value)


@dataclass(frozen=True)
class BandTransform:
    """Any raster value to the (channels, size, size) float32 tensor that a tower of bands takes.

    The fixed transform resizes the short side (antialiased bilinear, which cannot overshoot) and cuts
    the centre square. Missing pixels (NaN, infinite, declared nodata) count as the channel's mean:
    0 after normalisation, so that they say nothing. With a generator and `augment`: a random crop,
    flips and quarter turns, as in `ImageTransform`.

    >>> transform = BandTransform(64, mean=(1350.0, 0.2), std=(500.0, 0.1), augment=Augment(overhead=True))
    >>> transform(np.zeros((2, 80, 100), dtype=np.uint16)).shape
    torch.Size([2, 64, 64])

    mean, std: one of each per channel, in the unit of the file.
    Raises MediaError for a value that cannot be read, has another number of channels, or no valid pixel.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: Augment | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        object.__setattr__(self, "augment", as_augment(self.augment))
        if self.augment is not None and self.augment.num_ops:
            raise GeoBindError(
                f"band transform, augment, num_ops = {self.augment.num_ops}: RandAugment is of colours of 8 bit; leave it out"
            )
        if self.size < 1:
            raise GeoBindError(f"band transform, size = {self.size}: give a number of pixels of at least 1")
        if not self.mean or len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise GeoBindError(
                f"band transform, {len(self.mean)} means and {len(self.std)} deviations, the least "
                f"{min(self.std, default=None)}: give one of each per channel, deviations above 0"
            )

    def __call__(self, value: BandsValue, rng: np.random.Generator | None = None) -> Tensor:
        """(channels, size, size) float32, normalised."""
        bands = torch.from_numpy(load_bands(value))
        channels, height, width = bands.shape
        if channels != len(self.mean):
            hint = (
                "move its last axis to the front"
                if width == len(self.mean)
                else "give a raster with these bands"
            )
            raise MediaError(
                f"raster {describe(value)} has {channels} channels, {len(self.mean)} are expected: {hint}"
            )
        if not bands.isfinite().any():
            raise MediaError(f"raster {describe(value)} has no valid pixel: remove its row")
        if self.augment is not None and rng is not None:
            top, left, tall, wide = self.augment.region(height, width, rng)
            crop = self._normal(bands[:, top : top + tall, left : left + wide])
            return self.augment.orient(resize(crop, (self.size, self.size), "bilinear"), rng).contiguous()
        shape = short_side(height, width, self.size)
        return centre(resize(self._normal(bands), shape, "bilinear"), self.size).contiguous()

    def _normal(self, bands: Tensor) -> Tensor:
        """Normalised, with 0 for missing pixels."""
        mean, std = (torch.tensor(numbers).view(-1, 1, 1) for numbers in (self.mean, self.std))
        normal = (bands - mean) / std
        return normal.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)

    def settings(self) -> dict[str, Any]:
        """All fields as JSON values: `BandTransform(**settings)` is equal to this one."""
        return asdict(self)


def _bands(array: np.ndarray, value: BandsValue) -> np.ndarray:
    if array.ndim not in (2, 3) or array.size == 0 or array.dtype.kind not in "buif":
        raise MediaError(
            f"raster {describe(value)} holds {array.dtype} of shape {array.shape}: "
            f"give real numbers of shape (channels, height, width) or (height, width)"
        )
    return np.array(array if array.ndim == 3 else array[None], dtype=np.float32, order="C")


def _read_tiff(value: BandsValue, file: BinaryIO) -> np.ndarray:
    try:
        import rasterio
        from rasterio.errors import NotGeoreferencedWarning
    except ImportError:
        return _read_tiff_with_pillow(value, Image.open(file))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(file) as dataset:
            if any(np.dtype(kind).kind == "c" for kind in dataset.dtypes):
                raise MediaError(
                    f"raster {describe(value)} holds complex numbers: save their magnitude or decibels"
                )
            return dataset.read(masked=True, out_dtype="float32").filled(np.nan)


def _read_tiff_with_pillow(value: BandsValue, image: Image.Image) -> np.ndarray:
    """What Pillow reads exactly; it would cut several channels of 16 bit down to 8 without a word."""
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    channels, bits = tags.get(_SAMPLES_PER_PIXEL, 1), max(tags.get(_BITS_PER_SAMPLE, (1,)))
    if channels > 1 and (bits > 8 or len(image.getbands()) != channels):
        raise MediaError(
            f"raster {describe(value)} is a TIFF of {channels} channels of {bits} bit, which needs rasterio: "
            f'pip install "geobind[geo]"'
        )
    bands = _read_image(value, image).astype(np.float32)
    nodata = tags.get(_GDAL_NODATA)
    if nodata is not None:
        bands[bands == np.float32(nodata)] = np.nan
    return bands


def _read_image(value: BandsValue, image: Image.Image) -> np.ndarray:
    """(channels, height, width), values as stored."""
    if image.format == "PNG" and "16" in str(image.tile[0].args) and not image.mode.startswith("I"):  # type: ignore[attr-defined]
        raise MediaError(
            f"raster {describe(value)} is a PNG with colours of 16 bit, which Pillow reads as 8: save it as TIFF or .npy"
        )
    if image.mode in ("P", "PA"):
        image = image.convert("RGB")
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
