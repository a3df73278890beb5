"""The option `condition` of the vision towers: what place and time add to a picture's embedding."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from geobind.errors import GeoBindError
from geobind.towers.base import check_state
from geobind.towers.place_time import NUMBERS, Condition
from geobind.towers.pretrained import PretrainedTower

HIDDEN = 64  # Sat2Cap's
_FILE = "condition.safetensors"


class GeoEncoder(nn.Module):
    """Place and time to what is added to a picture's embedding: (batch, numbers), (batch, 2) to (batch, width).

    Linear, ReLU, Linear: Sat2Cap's, by name and shape (`fc1`, `fc2`). Without place or without time, a
    learned vector stands for its numbers; without both, another one for the whole (zero at first: what
    Sat2Cap's dropout gives). "sphere" starts at zero, so that pretrained towers start as they were.

    Dhakal et al. 2024, "Sat2Cap: Mapping fine-grained textual descriptions from satellite images".
    """

    def __init__(self, encoding: str, width: int) -> None:
        super().__init__()
        place, time = NUMBERS[encoding]
        self.fc1 = nn.Linear(place + time, HIDDEN)
        self.fc2 = nn.Linear(HIDDEN, width)
        if encoding == "sphere":
            nn.init.zeros_(self.fc2.weight)
            nn.init.zeros_(self.fc2.bias)
        self.unknown_place = nn.Parameter(torch.zeros(place))
        self.unknown_time = nn.Parameter(torch.zeros(time))
        self.unknown = nn.Parameter(torch.zeros(width))

    def forward(self, place_time: Tensor, known: Tensor) -> Tensor:
        place, time = place_time.split([len(self.unknown_place), len(self.unknown_time)], dim=1)
        place = torch.where(known[:, :1], place, self.unknown_place)
        time = torch.where(known[:, 1:], time, self.unknown_time)
        added = self.fc2(self.fc1(torch.cat([place, time], dim=1)).relu())
        return torch.where(known.any(1, keepdim=True), added, self.unknown.to(added.dtype))


class ConditionedTower(PretrainedTower):
    """A vision tower of transformers whose pictures may come with place and time.

    A subclass gives `features(pixels)` and calls `condition_on` at the end of its constructor.
    """

    geo_encoder: GeoEncoder | None

    def condition_on(self, condition: Condition | None, source: Path | None) -> None:
        """Add the encoder of place and time, with a saved tower's weights where `source` is one."""
        self.geo_encoder = None if condition is None else GeoEncoder(condition.encoding, self.width)
        if source is None or not (source / _FILE).exists():
            return
        if self.geo_encoder is None:
            raise GeoBindError(
                f"weights {source} are of a tower conditioned on place and time: set `condition` as it was there"
            )
        state = load_file(source / _FILE)
        check_state(self.geo_encoder.state_dict(), state, source / _FILE)
        self.geo_encoder.load_state_dict(state)

    def features(self, pixels: Tensor) -> Tensor:
        """(batch, channels, size, size) to (batch, width)."""
        raise NotImplementedError

    def encode(self, pixels: Tensor, place_time: Tensor | None = None, known: Tensor | None = None) -> Tensor:  # type: ignore[override]
        features = self.features(pixels)
        return features if self.geo_encoder is None else features + self.geo_encoder(place_time, known)

    def save_encoder(self, folder: Path) -> None:
        super().save_encoder(folder)
        if self.geo_encoder is not None:
            state = {
                key: value.detach().cpu().contiguous() for key, value in self.geo_encoder.state_dict().items()
            }
            save_file(state, folder / _FILE)
