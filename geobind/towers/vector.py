"""Precomputed features or covariates of any modality: the tower for an encoder we know nothing about."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geobind.errors import GeoBindError, MediaError, shorten
from geobind.towers.base import Batch, Processor, Row, Tower, register


class VectorProcessor(Processor):
    """A vector of a known width: array, tensor or list of numbers to float32 (width,)."""

    takes = "vector"

    def __init__(self, modality: str, width: int) -> None:
        self.columns = (modality,)
        self.width = width

    def __call__(self, row: Row, *, rng: np.random.Generator | None = None) -> Batch:
        value = row[self.columns[0]]
        try:
            vector = np.asarray(value).astype(np.float32)  # a copy: memory-mapped values are read-only
        except (TypeError, ValueError):
            raise MediaError(
                f"{self.columns[0]}: {shorten(value)} is not a vector; give {self.width} numbers, or name a feature file"
            ) from None
        if vector.shape != (self.width,):
            raise MediaError(
                f"{self.columns[0]}: a vector of shape {vector.shape}, the tower takes ({self.width},): "
                f"check `width` of the tower and the feature file"
            )
        if not np.isfinite(vector).all():
            raise MediaError(
                f"{self.columns[0]}: a vector with NaN or infinity: remove the row or mend the value"
            )
        return {"vector": torch.from_numpy(vector)}

    def settings(self) -> dict[str, Any]:
        return {"columns": list(self.columns), "width": self.width}


@register("vector")
class Vector(Tower):
    """Features from elsewhere (AlphaEarth, Major TOM, climate), with a head and no encoder of its own.

    A learner standardises its input by the mean and deviation of its training rows and may drop
    some of it; a frozen target without a head passes its vectors on unchanged.

    Example (recipe): `satellite: {tower: vector, width: 64, head: {kind: mlp, hidden: 512}}`

    Parameters: `width` numbers of a vector; `standardize` subtract the mean and divide by the deviation
    of the training rows; `dropout` share of the input dropped in training.
    """

    mean: Tensor
    deviation: Tensor
    seen: Tensor

    def __init__(self, modality: str, *, width: int, standardize: bool = True, dropout: float = 0.0) -> None:
        super().__init__(modality, width=width, processor=VectorProcessor(modality, width))
        self.standardize = standardize
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    @property
    def fitted(self) -> bool:
        return not self.standardize or bool(self.seen)

    def fit(self, rows: Iterable[Row]) -> None:
        mean, squares = np.zeros(self.width), np.zeros(self.width)
        seen, error = 0, MediaError("no rows")
        for row in rows:
            try:
                vector = self.processor(row)["vector"].numpy().astype(np.float64)
            except MediaError as unreadable:  # training replaces such a row and counts it
                error = unreadable
                continue
            seen += 1
            change = vector - mean  # Welford 1962: one pass, and no second copy of a large table
            mean += change / seen
            squares += change * (vector - mean)
        if seen == 0:
            raise GeoBindError(f"the vector tower of {self.modality!r} has no row to learn from: {error}")
        deviation = np.sqrt(squares / seen)
        self.mean.copy_(torch.from_numpy(mean))
        # A constant stays as it is.
        self.deviation.copy_(torch.from_numpy(np.where(deviation > 1e-6, deviation, 1.0)))
        self.seen.fill_(seen)

    def encode(self, vector: Tensor) -> Tensor:  # type: ignore[override]
        return self.dropout((vector.float() - self.mean) / self.deviation)
