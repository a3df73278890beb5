"""What the tower is fed: the tiles of the cells of some blocks, cut as they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from geobind.errors import GeoBindError, MediaError
from geobind.mapping.cube import Blocks
from geobind.mapping.imagery import Imagery, NoImagery
from geobind.media.images import ImageTransform
from geobind.media.rasters import BandTransform
from geobind.space import GeoBind
from geobind.towers.base import Row
from geobind.towers.pixels import PixelProcessor


class Tiles(Sequence[Row]):
    """Rows of the cells of some blocks, cut when they are asked for; each cell once for every moment."""

    def __init__(
        self,
        space: GeoBind,
        imagery: Imagery,
        blocks: Blocks,
        left: Sequence[int],
        *,
        modality: str,
        ground: float,
        pixels: int,
        when: Sequence[str] = (),
    ) -> None:
        self.imagery, self.ground, self.pixels = imagery, ground, pixels
        self.blocks, self.modality = blocks, modality
        processor = space.tower(self.modality).processor
        self.channels_first = isinstance(getattr(processor, "transform", None), BandTransform)
        self.conditioned = "latitude" in processor.columns
        self.when: list[str | None] = list(when) or [None]
        self.left = list(left)
        counts = [int(self.blocks.ends[b]) - self.blocks.begin(b) for b in self.left]
        self.ends = np.cumsum(counts, dtype=np.int64)
        self._last: tuple[int, Any] | None = None

    def __len__(self) -> int:
        return int(self.ends[-1]) * len(self.when) if len(self.ends) else 0

    def __getitem__(self, row: int) -> Row:  # type: ignore[override]
        cell, moment = divmod(row, len(self.when))
        part = int(np.searchsorted(self.ends, cell, side="right"))
        within = cell - (int(self.ends[part - 1]) if part else 0)
        latitude, longitude = self.blocks.place(self.blocks.begin(self.left[part]) + within)
        if self._last is None or self._last[0] != cell:
            self._last = cell, self._cut(latitude, longitude)
        if isinstance(self._last[1], NoImagery):
            raise self._last[1]
        found: dict[str, Any] = {self.modality: self._last[1]}
        if self.conditioned:
            found |= {"latitude": latitude, "longitude": longitude}
        if self.when[moment] is not None:
            found["datetime"] = self.when[moment]
        return found

    def _cut(self, latitude: float, longitude: float) -> Any:
        try:
            tile = self.imagery.tile(latitude, longitude, self.ground, self.pixels)
        except NoImagery as error:
            return error
        except MediaError as error:  # a hole in the map would hide it
            raise GeoBindError(str(error)) from None
        return np.ascontiguousarray(tile.transpose(2, 0, 1)) if self.channels_first else tile


def tile_pixels(space: GeoBind, imagery: Imagery, modality: str) -> int:
    """Side of the tower's tiles in pixels. Raises GeoBindError where the tower cannot take the imagery."""
    processor = space.tower(modality).processor
    if not isinstance(processor, PixelProcessor):
        raise GeoBindError(f"the {modality} tower takes no pictures: give the modality of the tiles")
    transform = processor.transform
    imagery.check(len(transform.mean), transform.mean if isinstance(transform, ImageTransform) else ())
    return transform.size


def from_worker(error: GeoBindError) -> GeoBindError:
    """An error of a loader worker comes with its traceback: what was said is the last line."""
    last = str(error).strip().splitlines()[-1]
    return GeoBindError(last.partition("Error: ")[2] or last) if "\n" in str(error) else error
