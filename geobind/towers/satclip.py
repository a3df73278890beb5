"""Locations through spherical harmonics and a sinusoidal network: SatCLIP's location encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from geobind.errors import GeoBindError
from geobind.towers.base import Batch, Processor, Row, Tower, check_state, register
from geobind.towers.checkpoints import checkpoint
from geobind.towers.location import read_position

_W0, _W0_FIRST = 1.0, 30.0  # frequencies of the sines, SatCLIP's


def spherical_harmonics(positions: np.ndarray, degree: int) -> np.ndarray:
    """Real spherical harmonics of degrees 0 to `degree` - 1: (n, 2) to (n, degree squared) float64.

    >>> spherical_harmonics(np.array([[21.3, -157.8]]), 10).shape
    (1, 100)

    positions: latitude, longitude in degrees. Columns run over l, and within it over m from -l to l. The
    angles are SatCLIP's: from the south pole, and from the antimeridian. Orthonormal, without the
    Condon-Shortley phase, but that m = 0 is pi times as large: its formula lacks a pair of parentheses
    (microsoft/satclip issue 33), and its weights were trained so.

    Legendre functions by the normalised recurrence in l, stable for any degree (Holmes, Featherstone
    2002, "A unified approach to the Clenshaw summation").
    """
    latitude, longitude = np.radians(positions.T)
    cosine, sine = -np.sin(latitude)[:, None], np.cos(latitude)[:, None]  # of latitude + 90 degrees
    turns = (longitude + math.pi)[:, None] * np.arange(degree)
    waves = math.sqrt(2) * np.stack([np.sin(turns), np.cos(turns)])
    before, last = np.zeros((2, len(positions), degree))  # P of l - 2 and l - 1 for every m
    columns = []
    for l in range(degree):  # noqa: E741  the field's name for it
        m = np.arange(l)
        a = np.sqrt((4 * l**2 - 1) / (l**2 - m**2))
        b = np.sqrt(((l - 1) ** 2 - m**2).clip(0) / (4 * (l - 1) ** 2 - 1)) if l > 1 else np.zeros(l)
        now = np.zeros_like(last)
        now[:, :l] = a * (cosine * last[:, :l] - b * before[:, :l])
        now[:, l : l + 1] = (
            math.sqrt((2 * l + 1) / (2 * l)) * sine * last[:, l - 1 : l] if l else 0.5 / math.sqrt(math.pi)
        )
        zonal = math.pi * now[:, :1]
        rest = waves[:, :, 1 : l + 1] * now[:, 1 : l + 1]
        columns.append(np.concatenate([rest[0, :, ::-1], zonal, rest[1]], axis=1))
        before, last = last, now
    return np.concatenate(columns, axis=1)


class HarmonicsProcessor(Processor):
    """(latitude, longitude) in degrees WGS84, in that order, to {"harmonics": (batch, degree squared) float32}.

    SatCLIP's own code takes longitude first.
    """

    takes = "location"

    def __init__(self, modality: str, degree: int) -> None:
        self.columns = (modality,)
        self.degree = degree

    def __call__(self, row: Row, *, rng: np.random.Generator | None = None) -> Batch:
        position = read_position(row[self.columns[0]], self.columns[0])
        return {"position": torch.tensor(position, dtype=torch.float64)}

    def collate(self, items: Sequence[Batch]) -> Batch:
        # All at once, in double precision, which not every accelerator has.
        positions = np.stack([item["position"].numpy() for item in items])
        return {"harmonics": torch.from_numpy(spherical_harmonics(positions, self.degree)).float()}

    def settings(self) -> dict[str, Any]:
        return {"columns": list(self.columns), "harmonics": self.degree}


class Siren(nn.Module):
    """(batch, inputs) to (batch, outputs) through layers of sines; names as SatCLIP's.

    Sitzmann et al. 2020, "Implicit neural representations with periodic activation functions".
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, layers: int, dropout: float) -> None:
        super().__init__()
        sizes = [inputs] + [hidden] * layers
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))
        self.last_layer = nn.Linear(hidden, outputs)
        self.dropout = dropout
        for number, layer in enumerate([*self.layers, self.last_layer]):
            bound = math.sqrt(6 / layer.in_features) / _W0 if number else 1 / layer.in_features
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.uniform_(layer.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        for number, layer in enumerate(self.layers):
            x = F.dropout(layer(x), self.dropout, self.training)
            x = torch.sin((_W0 if number else _W0_FIRST) * x)
        return self.last_layer(x)


@register("satclip")
class SatClip(Tower):
    """SatCLIP's location encoder: spherical harmonics, then a network of sines.

    Example (recipe): `location: {tower: satclip, degree: 40}`

    Smooth over the whole globe, poles and date line included; `degree` L sees what is some 20,000 / L km
    wide (published: 10 and 40).

    Parameters: `weights` none, or a folder with a saved tower's; `degree` of the harmonics; `width` numbers
    it gives; `hidden` of a layer; `layers` of sines; `dropout` before each sine while learning, as published.

    Raises GeoBindError for weights of another shape. Klemmer et al. 2023, "SatCLIP: Global, general-purpose
    location embeddings with satellite imagery"; Russwurm et al. 2024, "Geographic location encoding with
    spherical harmonics and sinusoidal representation networks".
    """

    def __init__(
        self,
        modality: str = "location",
        *,
        weights: str | Path | None = None,
        degree: int = 10,
        width: int = 256,
        hidden: int = 512,
        layers: int = 2,
        dropout: float = 0.5,
    ) -> None:
        if min(degree, width, hidden, layers) < 1:
            raise GeoBindError(
                f"tower 'satclip', degree = {degree}, width = {width}, hidden = {hidden}, layers = {layers}: "
                f"give 1 or more of each"
            )
        super().__init__(modality, width=width, processor=HarmonicsProcessor(modality, degree))
        self.nnet = Siren(degree**2, hidden, width, layers, dropout)
        if (folder := checkpoint(weights)) is not None:
            state = load_file(folder / "model.safetensors")
            check_state(self.encoder_state(), state, folder / "model.safetensors")
            self.load_state_dict(state)

    def encode(self, harmonics: Tensor) -> Tensor:  # type: ignore[override]
        # Mixed precision would round the phase of a sine to a few bits.
        with torch.autocast(harmonics.device.type, enabled=False):
            return self.nnet(harmonics)

    def load_encoder(self, folder: Path) -> None:
        """Nothing: a tower built from `weights=folder` has its weights."""
