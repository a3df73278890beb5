"""One modality's tower used for another: the baseline that binding has to beat."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from geobind.towers.base import Batch, Processor, Row, Tower


class StandInProcessor(Processor):
    """Another modality's processor, reading this modality's column."""

    def __init__(self, modality: str, processor: Processor) -> None:
        self.columns = (modality, *processor.columns[1:])
        self.processor = processor
        self.takes = processor.takes
        self.collate, self.finish = processor.collate, processor.finish  # type: ignore[method-assign]

    def __call__(self, row: Row, *, rng: np.random.Generator | None = None) -> Batch:
        return self.processor(self._renamed(row), rng=rng)

    def light(self, row: Row, *, rng: np.random.Generator | None = None) -> Batch:
        return self.processor.light(self._renamed(row), rng=rng)

    def _renamed(self, row: Row) -> Row:
        return {**row, self.processor.columns[0]: row[self.columns[0]]}

    def settings(self) -> dict[str, Any]:
        return {"stands_in_for": self.columns[0], **self.processor.settings()}


class StandIn(Tower):
    """A tower in another modality's place, such as CLIP's photo encoder for satellite tiles.

    The baseline of the GeoBind and Sat2Cap papers (Table 1, row CLIP). It is for comparison and cannot
    be saved; it shares the weights of the tower that it stands on.
    """

    def __init__(self, modality: str, tower: Tower) -> None:
        super().__init__(modality, width=tower.dim, processor=StandInProcessor(modality, tower.processor))
        self.tower = tower
        self.origin = tower.origin

    def encode(self, **batch: Tensor) -> Tensor:
        return self.tower(**batch)
