"""Files, bytes, PIL images and arrays as pictures: the header first, then the pixels of a part at the scale wanted."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import ExifTags, Image
from torch import Tensor

from geobind.errors import MediaError, shorten
from geobind.media.files import describe, opened, unreadable
from geobind.media.stored import Stored

Region = tuple[int, int, int, int]
"""(top, left, height, width) in pixels of the upright picture."""

ImageValue = str | Path | bytes | Stored | Image.Image | np.ndarray

# What libjpeg warns of and every viewer shows all the same; any other warning means lost pixels.
_HARMLESS = ("extraneous bytes", "Invalid SOS parameters")


@dataclass(frozen=True)
class Picture:
    """A picture whose header has been read and whose pixels have not."""

    value: ImageValue
    stored_size: tuple[int, int]
    """(height, width) as stored, which the orientation may swap."""
    stored: Image.Image | np.ndarray | None
    """The pixels, or Pillow's reader of them; None for a JPEG that Pillow need not see."""
    jpeg: bytes | None = None
    """The whole file, where simplejpeg can decode it."""
    orientation: int = 1
    """EXIF: 1 upright, 2 to 4 mirrored or upside down, 5 to 8 lying on a side."""

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.stored_size
        return (width, height) if self.orientation >= 5 else (height, width)

    def part(self, region: Region | None, target: int | None) -> tuple[np.ndarray, tuple[float, float]]:
        """The region as stored, not upright: (H, W, 3) uint8, and its height and width in these pixels.

        A reduced JPEG need not end with a pixel: 601 rows at 1/8 are 75.125, in 76 of which the last is
        mostly padding. Taken for 601 it would shift what it shows by a pixel at that end.
        """
        height, width = self.size
        top, left, tall, wide = region or (0, 0, height, width)
        if min(top, left) < 0 or min(tall, wide) < 1 or top + tall > height or left + wide > width:
            raise MediaError(
                f"image {describe(self.value)} has {height}x{width} pixels (height x width), "
                f"region (top, left, height, width) = {region} is not inside: give one that is"
            )
        if self.orientation in (3, 4, 7, 8):
            top = height - top - tall
        if self.orientation in (2, 3, 6, 7):
            left = width - left - wide
        if self.orientation >= 5:
            top, left, tall, wide = left, top, wide, tall
        try:
            stored, scale = self._decode(1.0 if target is None else target / min(tall, wide))
        except MediaError:
            raise
        except Exception as error:  # Pillow's plugins raise whatever a broken file leads them to
            raise unreadable("image", self.value, error) from None
        extent = tall * scale, wide * scale
        rows, columns = math.ceil(extent[0]), math.ceil(extent[1])
        top = min(round(top * scale), stored.shape[0] - rows)
        left = min(round(left * scale), stored.shape[1] - columns)
        pixels = stored[top : top + rows, left : left + columns]
        # A caller's array may be read-only or have negative strides, which torch does not take.
        return np.array(pixels, order="C") if isinstance(self.stored, np.ndarray) else pixels, extent

    def _decode(self, least: float) -> tuple[np.ndarray, float]:
        """The stored pixels as (H, W, 3) uint8, and their scale: at least `least`, at most 1."""
        if isinstance(self.stored, np.ndarray):
            rgb = self.stored if self.stored.ndim == 3 else np.repeat(self.stored[..., None], 3, axis=2)
            return rgb, 1.0
        if self.jpeg is not None:
            # libjpeg decodes at k/8. Between 4 and 8 that takes longer than decoding all.
            eighths = math.ceil(8 * least) if least <= 0.5 else 8
            height, width = (math.ceil(side * eighths / 8) for side in self.stored_size)
            try:
                # strict: libjpeg fills what a truncated file lacks with grey, and only warns.
                pixels = simplejpeg.decode_jpeg(self.jpeg, min_height=height, min_width=width, strict=True)
                return pixels, eighths / 8
            except ValueError as error:
                if not any(text in str(error) for text in _HARMLESS):
                    raise
            if self.stored is None:
                return _rgb(Image.open(io.BytesIO(self.jpeg)), self.value), 1.0
        assert self.stored is not None
        return _rgb(self.stored, self.value), 1.0


@contextmanager
def opened_picture(value: ImageValue) -> Iterator[Picture]:
    """A picture whose header has been read. Raises MediaError for what is none, or cannot be opened."""
    if isinstance(value, np.ndarray):
        rgb_or_grey = value.ndim == 2 or (value.ndim == 3 and value.shape[2] == 3)
        if value.dtype != np.uint8 or not rgb_or_grey or value.size == 0:
            raise MediaError(
                f"image array of shape {value.shape}, {value.dtype}: give (height, width, 3) or (height, width) "
                f"uint8, or use a tower that reads bands"
            )
        yield Picture(value, value.shape[:2], value)
    elif isinstance(value, Image.Image):
        yield Picture(value, (value.height, value.width), value, orientation=_orientation(value))
    elif isinstance(value, str | Path | bytes | Stored):
        with opened(value, "image") as file:
            if file.read(2) == b"\xff\xd8":
                file.seek(0)
                jpeg = file.read()
                size = _plain_jpeg_size(jpeg)
                if size is not None:
                    yield Picture(value, size, None, jpeg)
                    return
            file.seek(0)
            try:
                image = Image.open(file)
                orientation = _orientation(image)
            except Image.UnidentifiedImageError:
                raise unreadable("image", value, "no known image format") from None
            except Exception as error:  # see part()
                raise unreadable("image", value, error) from None
            whole: bytes | None = None
            if image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L"):
                file.seek(0)
                whole = file.read()
            yield Picture(value, (image.height, image.width), image, whole, orientation)
    else:
        raise MediaError(
            f"image {shorten(value)}: give a path, the bytes of a file, a PIL image or a uint8 array "
            f"of shape (height, width, 3) or (height, width)"
        )


def _plain_jpeg_size(jpeg: bytes) -> tuple[int, int] | None:
    """(height, width) of a JPEG in colour or grey without application data of kind 1 (EXIF, XMP); else None.

    Such a file is upright, and Pillow, which would read its header again, is not needed.
    """
    position = 2
    while jpeg[position : position + 1] == b"\xff" and jpeg[position + 1] != 0xDA:  # until the pixels
        if jpeg[position + 1] == 0xE1:
            return None
        position += 2 + int.from_bytes(jpeg[position + 2 : position + 4])
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(jpeg)
    except ValueError:  # Pillow may know better, or names what is wrong
        return None
    small = height * width <= (Image.MAX_IMAGE_PIXELS or math.inf)  # beyond, Pillow warns or refuses
    return (height, width) if small and colours in ("Gray", "YCbCr", "RGB") else None


def _orientation(image: Image.Image) -> int:
    if image.format == "TIFF":  # Pillow turns TIFF itself
        return 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (SyntaxError, ValueError, KeyError):  # broken EXIF is no reason to refuse a picture
        return 1
    return orientation if orientation in range(1, 9) else 1


def upright(stored: Tensor, orientation: int) -> Tensor:
    """(3, H, W) as the camera stored it to how it is displayed (EXIF 2.32, tag 0x0112)."""
    if orientation >= 5:
        stored = stored.transpose(1, 2)
    mirrored = [1] * (orientation in (3, 4, 7, 8)) + [2] * (orientation in (2, 3, 6, 7))
    return stored.flip(mirrored) if mirrored else stored


def _rgb(image: Image.Image, value: ImageValue) -> np.ndarray:
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image, dtype=np.float32) / 257).round().astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise MediaError(
            f"image {describe(value)} has 32-bit values, whose range is unknown: "
            f"save it as 8 bit, or use a tower that reads bands"
        )
    if image.mode == "P":
        image = image.convert("RGBA")  # straight to RGB, Pillow warns of transparent palettes
    return np.array(image.convert("RGB"))
