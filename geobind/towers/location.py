"""Locations: (latitude, longitude) to a vector by random Fourier features at several scales."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from geobind.errors import GeoBindError, MediaError, shorten
from geobind.towers.base import Batch, Processor, Row, Tower, check_state, register
from geobind.towers.checkpoints import checkpoint, first_line

WIDTH = 512
SIGMAS = (2.0**0, 2.0**4, 2.0**8)

# Equal Earth (Šavrič, Patterson, Jenny 2019, "The Equal Earth map projection"), and the half width of the
# world in GeoCLIP's unit: 2.7066 radii, the x of longitude 180 on the equator, times this is 180.
_A1, _A2, _A3, _A4 = 1.340264, -0.081106, 0.000893, 0.003796
_SCALE = 66.50336


def equal_earth(latitude: float, longitude: float) -> tuple[float, float]:
    """Degrees to (x, y) of the Equal Earth map as GeoCLIP scales it: x within -1..1, y within about -0.487..0.487.

    >>> equal_earth(0, 180)
    (1.0, 0.0)    # to 8 digits
    """
    theta = math.asin(math.sqrt(3) / 2 * math.sin(math.radians(latitude)))
    slope = 9 * _A4 * theta**8 + 7 * _A3 * theta**6 + 3 * _A2 * theta**2 + _A1
    x = 2 * math.sqrt(3) * math.radians(longitude) * math.cos(theta) / (3 * slope)
    y = _A4 * theta**9 + _A3 * theta**7 + _A2 * theta**3 + _A1 * theta
    return x * _SCALE / 180, y * _SCALE / 180


def read_position(value: Any, name: str = "location") -> tuple[float, float]:
    """(latitude, longitude) in degrees WGS84, in that order, as floats; longitude within -180..180.

    Longitudes of grids that count from 0 to 360 are taken too, 190 being -170. Raises MediaError for
    what is no position on the globe.
    """
    try:
        latitude, longitude = (float(number) for number in value)
    except (TypeError, ValueError):
        raise MediaError(
            f"{name}: {shorten(value)} is not a position; give (latitude, longitude) in degrees"
        ) from None
    if not (math.isfinite(latitude) and math.isfinite(longitude)):
        raise MediaError(f"{name}: {shorten(value)} has NaN or infinity: remove the row or mend the value")
    if not -90 <= latitude <= 90:
        raise MediaError(f"latitude {latitude:g} is outside -90..90; the order is (latitude, longitude)")
    if not -180 <= longitude <= 360:
        raise MediaError(f"longitude {longitude:g} is outside -180..180 (and outside 0..360)")
    return latitude, longitude - 360 if longitude > 180 else longitude


class LocationProcessor(Processor):
    """(latitude, longitude) in degrees WGS84, in that order, to the (2,) float32 point on the map."""

    takes = "location"

    def __init__(self, modality: str = "location") -> None:
        self.columns = (modality,)

    def __call__(self, row: Row, *, rng: np.random.Generator | None = None) -> Batch:
        position = read_position(row[self.columns[0]], self.columns[0])
        # Projected in double precision; as float32 the point is then good to a metre.
        return {"point": torch.tensor(equal_earth(*position), dtype=torch.float32)}

    def settings(self) -> dict[str, Any]:
        return {"columns": list(self.columns), "projection": "equal earth"}


class FourierFeatures(nn.Module):
    """(batch, 2) to (batch, 512): cosines and sines of 256 random directions, sigma cycles a unit.

    A unit is half the equator, 20,000 km: sigma 256 sees what is about 80 km wide, sigma 1 continents.
    Tancik et al. 2020, "Fourier features let networks learn high frequency functions".
    """

    b: Tensor

    def __init__(self, sigma: float, generator: torch.Generator) -> None:
        super().__init__()
        self.register_buffer("b", sigma * torch.randn(WIDTH // 2, 2, generator=generator))

    def forward(self, point: Tensor) -> Tensor:
        # No matrix product: mixed precision would round it to bfloat16, and thousands of cycles with it.
        cycles = point[:, :1].float() * self.b[:, 0] + point[:, 1:].float() * self.b[:, 1]
        angle = 2 * math.pi * cycles
        return torch.cat([angle.cos(), angle.sin()], dim=1)


class Capsule(nn.Module):
    """One scale: Fourier features and a perceptron. (batch, 2) to (batch, 512)."""

    def __init__(self, sigma: float, generator: torch.Generator) -> None:
        super().__init__()
        self.capsule = nn.Sequential(
            FourierFeatures(sigma, generator),
            nn.Linear(WIDTH, 1024),
            nn.ReLU(),
            nn.Linear(1024, 1024),
            nn.ReLU(),
            nn.Linear(1024, 1024),
            nn.ReLU(),
        )
        self.head = nn.Sequential(nn.Linear(1024, WIDTH))

    def forward(self, point: Tensor) -> Tensor:
        return self.head(self.capsule(point))


@register("location")
class Location(Tower):
    """The location encoder of GeoCLIP: the sum of one capsule for each scale; width 512.

    Example (recipe): `location: {tower: location, weights: geoclip}`

    Names in the state are GeoCLIP's, and a saved folder opens in `geoclip.LocationEncoder.from_pretrained`.

    Parameters: `weights` none, "geoclip" (what the PyPI package of that name ships; it is read, not
    imported), or a folder or Hub id with such weights; `sigmas` deviation of each capsule's random
    frequencies; `seed` of those frequencies, which are saved with the weights.

    Raises GeoBindError where the package is not installed, or weights are of another shape.

    Vivanco Cepeda, Nayak, Shah 2023, "GeoCLIP: CLIP-inspired alignment between locations and images".
    """

    def __init__(
        self,
        modality: str = "location",
        *,
        weights: str | Path | None = None,
        sigmas: tuple[float, ...] = SIGMAS,
        seed: int = 0,
    ) -> None:
        super().__init__(modality, width=WIDTH, processor=LocationProcessor(modality))
        self.sigmas = tuple(sigmas)
        if not self.sigmas or min(self.sigmas) <= 0:
            raise GeoBindError(
                f"tower 'location', option 'sigmas' = {self.sigmas}: give one or more numbers above 0"
            )
        if weights == "geoclip" and self.sigmas != SIGMAS:
            raise GeoBindError(
                f"tower 'location', option 'sigmas' = {self.sigmas}: the weights of geoclip are of {SIGMAS}; "
                f"leave the option out, or set weights: none"
            )
        generator = torch.Generator().manual_seed(seed)
        for number, sigma in enumerate(self.sigmas):
            self.add_module(f"LocEnc{number}", Capsule(sigma, generator))
        if weights == "geoclip":
            self._load(_geoclip_file())
        elif (folder := checkpoint(weights)) is not None:
            self._load(folder / "model.safetensors")

    def encode(self, point: Tensor) -> Tensor:  # type: ignore[override]
        return torch.stack([capsule(point) for capsule in self._capsules()]).sum(0)

    def _capsules(self) -> list[nn.Module]:
        return [self.get_submodule(f"LocEnc{number}") for number in range(len(self.sigmas))]

    def _load(self, path: Path) -> None:
        try:
            if path.suffix == ".safetensors":
                state = load_file(path)
            else:
                state = torch.load(path, weights_only=True, map_location="cpu")
        except (OSError, SafetensorError, UnpicklingError, RuntimeError) as error:
            raise GeoBindError(
                f"{path}: the weights cannot be read ({first_line(error)}): copy or install them again"
            ) from None
        check_state(self.encoder_state(), state, path)
        self.load_state_dict(state)

    def save_encoder(self, folder: Path) -> None:
        super().save_encoder(folder)
        config = {"model_type": "geoclip-location-encoder", "format_version": 1, "sigma": list(self.sigmas)}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    def load_encoder(self, folder: Path) -> None:
        """Nothing: a tower built from `weights=folder` has its weights."""


def _geoclip_file() -> Path:
    """The location encoder's weights in the installed package, which is found and not imported.

    Importing geoclip would import torchvision, which breaks a CPU-only torch.
    """
    spec = importlib.util.find_spec("geoclip")
    if spec is None or not spec.submodule_search_locations:
        raise GeoBindError(
            "tower 'location': weights: geoclip are in the package geoclip, which is not installed: "
            "pip install --no-deps geoclip (with its dependencies it would bring torchvision)"
        )
    return Path(spec.submodule_search_locations[0]) / "model" / "weights" / "location_encoder_weights.pth"
