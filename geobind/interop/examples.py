"""A few values that a tower's processor takes, made up: enough to trace and to compare an encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from geobind.errors import GeoBindError, MediaError
from geobind.towers.base import Row, Tower

_TEXTS = (
    "waves on a beach",
    "a harbour",
    "the edge of a forest seen from above, with a road",
    "rain",
    "a field of wheat",
)


def example_rows(tower: Tower, count: int = 5) -> Sequence[Row]:
    """`count` rows that differ in content and, where the modality has any, in length; the same every time.

    Raises GeoBindError for a processor that takes none of what is tried: pictures, sounds, rasters,
    sentences, positions, vectors.
    """
    for make in _makers(tower):
        rows = [{tower.modality: make(number)} for number in range(count)]
        for number, row in enumerate(rows[1:]):  # one of them without place and time
            row |= {"latitude": 10.0 * number, "longitude": -20.0, "datetime": "2020-06-01T12:00:00"}
        try:
            for row in rows:
                tower.processor(row)
        except (MediaError, TypeError, AttributeError, ValueError):
            continue
        return rows
    raise GeoBindError(
        f"no example for the {tower.modality} tower {type(tower).__name__}: its processor takes neither a picture, "
        f"a sound, a raster, a sentence, a position nor a vector, and an encoder is traced with some"
    )


def _makers(tower: Tower) -> Iterator[Callable[[int], Any]]:
    def noise(number: int) -> np.random.Generator:
        return np.random.default_rng([number, 29])

    processor: Any = tower.processor
    if processor.takes == "text":
        yield lambda n: _TEXTS[n % len(_TEXTS)]
    elif processor.takes == "location":
        yield lambda n: (-60.0 + 25.0 * (n % 5), -150.0 + 70.0 * (n % 5))
    elif processor.takes == "vector":
        yield lambda n: noise(n).normal(size=getattr(processor, "width", tower.width)).astype(np.float32)
    else:
        yield lambda n: noise(n).integers(0, 256, (80 + n, 90, 3), dtype=np.uint8)
        yield lambda n: (noise(n).normal(0, 0.1, 16_000 * (2 + 9 * n)).astype(np.float32), 16_000)
        bands = len(getattr(getattr(processor, "transform", None), "mean", ())) or 3
        yield lambda n: noise(n).normal(size=(bands, 80, 90 + n)).astype(np.float32)
