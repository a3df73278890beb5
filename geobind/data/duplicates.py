"""Near-duplicate tiles by a small perceptual hash: what the same picture is, stored or cut slightly otherwise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geobind.media.images import load_image
from geobind.media.pictures import ImageValue

FLAT = 3.0  # grey levels of standard deviation, below which a tile (open sea) shows nothing to tell it by
_PAIRS_AT_ONCE = 1 << 24


def perceptual_hash(value: ImageValue) -> tuple[int, NDArray[np.float64], float]:
    """(64 bits, mean colour (3,), contrast in grey levels) of a picture.

    Each bit says whether one of 8 x 8 grey pixels is darker than its right neighbour ("difference hash"):
    compression, resizing and brightness change few of them. Raises MediaError.
    """
    pixels = load_image(value, target=72)
    grey = Image.fromarray(pixels).convert("L").resize((9, 8), Image.Resampling.BOX)
    values = np.asarray(grey, np.float64)
    bits = np.packbits(values[:, :-1] < values[:, 1:])
    return int.from_bytes(bits.tobytes(), "big"), pixels.reshape(-1, 3).mean(0), float(values.std())


def near_duplicates(
    hashes: NDArray[np.uint64], colours: NDArray[np.float64], one: NDArray[np.int64], other: NDArray[np.int64],
    *, bits: int = 4, colour: float = 12.0,
) -> list[tuple[int, int]]:  # fmt: skip
    """Pairs (i of `one`, j of `other`) whose hashes differ in at most `bits` and mean colours in `colour` levels.

    hashes (n,), colours (n, 3); `one` and `other` are rows of them, such as those of train and of test.
    """
    found: list[tuple[int, int]] = []
    step = max(1, _PAIRS_AT_ONCE // max(1, len(other)))
    for start in range(0, len(one), step):
        part = one[start : start + step]
        distance = np.bitwise_count(hashes[part][:, None] ^ hashes[other][None])
        for i, j in np.argwhere(distance <= bits):
            if np.abs(colours[part[i]] - colours[other[j]]).max() <= colour:
                found.append((int(part[i]), int(other[j])))
    return found
