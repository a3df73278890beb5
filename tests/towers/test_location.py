"""The `location` tower: GeoCLIP's location encoder.

Pinned: the network equals its formula written out in float64; weights in the layout of the package
`geoclip` are read without importing it and all of them are used; a saved folder has that layout too;
positions outside the Earth are one line.
"""

from __future__ import annotations

import json
import math
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from geobind.errors import GeoBindError, MediaError
from geobind.towers.base import build_tower, fingerprint, load_tower
from geobind.towers.location import Location, LocationProcessor, equal_earth

PLACES = [(0.0, 0.0), (21.3, -157.8), (-90.0, 12.0), (90.0, 0.0), (0.0, 180.0), (0.0, -180.0), (51.5, -0.12)]


def embed(tower: Location, places) -> torch.Tensor:
    items = [tower.processor({"location": place}) for place in places]
    with torch.no_grad():
        return tower.eval()(**tower.processor.collate(items))


def published_state(seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights with the keys and shapes of geoclip's location_encoder_weights.pth."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for number, sigma in enumerate((1, 16, 256)):
        capsule = f"LocEnc{number}.capsule"
        state[f"{capsule}.0.b"] = sigma * torch.randn(256, 2, generator=generator)
        for layer, inputs in ((1, 512), (3, 1024), (5, 1024)):
            state[f"{capsule}.{layer}.weight"] = torch.randn(1024, inputs, generator=generator) / 24
            state[f"{capsule}.{layer}.bias"] = torch.randn(1024, generator=generator) / 24
        state[f"LocEnc{number}.head.0.weight"] = torch.randn(512, 1024, generator=generator) / 24
        state[f"LocEnc{number}.head.0.bias"] = torch.randn(512, generator=generator) / 24
    return state


def written_out(state: dict[str, torch.Tensor], places) -> torch.Tensor:
    """GeoCLIP's formula in float64: Equal Earth, Fourier features, three layers and a head, summed."""
    point = torch.tensor([equal_earth(*place) for place in places], dtype=torch.float64)
    total = torch.zeros(len(places), 512, dtype=torch.float64)
    for number in range(3):
        own = {key: value.double() for key, value in state.items() if key.startswith(f"LocEnc{number}.")}
        angle = 2 * math.pi * point @ own[f"LocEnc{number}.capsule.0.b"].T
        x = torch.cat([angle.cos(), angle.sin()], dim=1)
        for layer in (1, 3, 5):
            name = f"LocEnc{number}.capsule.{layer}"
            x = F.relu(x @ own[f"{name}.weight"].T + own[f"{name}.bias"])
        total += x @ own[f"LocEnc{number}.head.0.weight"].T + own[f"LocEnc{number}.head.0.bias"]
    return total


@pytest.fixture(scope="module")
def tower() -> Location:
    return Location()


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """An installed package `geoclip` that must not be imported; gives the folder of its weights."""
    weights = tmp_path / "geoclip" / "model" / "weights"
    weights.mkdir(parents=True)
    (tmp_path / "geoclip" / "__init__.py").write_text("raise ImportError('imports torchvision')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "geoclip", raising=False)
    return weights


# --- the map -----------------------------------------------------------------------------------------------


def test_the_map_is_one_unit_wide_on_either_side():
    assert equal_earth(0, 180) == pytest.approx((1, 0), abs=1e-7)
    assert equal_earth(0, -180) == pytest.approx((-1, 0), abs=1e-7)
    assert equal_earth(90, 0) == pytest.approx((0, 0.486717), abs=1e-6)


def test_the_map_is_equal_area():
    """Each small cell covers the same share of the map as of the sphere (that is Equal Earth's promise)."""
    step = 1e-4
    for latitude in (-80.0, -33.0, 0.0, 12.0, 60.0, 85.0):
        width = equal_earth(latitude, 10 + step)[0] - equal_earth(latitude, 10)[0]
        height = equal_earth(latitude + step, 10)[1] - equal_earth(latitude, 10)[1]
        sphere = math.cos(math.radians(latitude + step / 2))
        assert width * height / sphere == pytest.approx(
            step**2 * (66.50336 / 180 * math.pi / 180) ** 2, rel=1e-4
        )


# --- positions ---------------------------------------------------------------------------------------------


def test_longitudes_of_grids_from_0_to_360_are_the_same_places():
    processor = pickle.loads(pickle.dumps(LocationProcessor()))
    east = processor({"location": (5, 200)})["point"]
    assert torch.equal(east, processor({"location": np.array([5.0, -160.0])})["point"])
    assert torch.equal(east, processor({"location": [5, -160]}, rng=np.random.default_rng(0))["point"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ((95, 10), r"^latitude 95 is outside -90\.\.90; the order is \(latitude, longitude\)$"),
        ((-157.8, 21.3), r"^latitude -157\.8 is outside -90\.\.90; the order is \(latitude, longitude\)$"),
        ((10, 361), r"^longitude 361 is outside -180\.\.180"),
        ((10, -181), r"^longitude -181 is outside -180\.\.180"),
        ((math.nan, 10), r"^location: \(nan, 10\) has NaN or infinity"),
        ((10, math.inf), r"has NaN or infinity"),
        ((1, 2, 3), r"^location: \(1, 2, 3\) is not a position; give \(latitude, longitude\) in degrees$"),
        ("Honolulu", r"is not a position"),
        (None, r"is not a position"),
        (12.5, r"is not a position"),
    ],
)
def test_what_is_no_position_is_one_line(value, message):
    with pytest.raises(MediaError, match=message):
        LocationProcessor()({"location": value})


# --- the network -------------------------------------------------------------------------------------------


def test_the_tower_equals_its_formula(tower):
    expected = written_out(tower.state_dict(), PLACES)
    torch.testing.assert_close(embed(tower, PLACES).double(), expected, rtol=0, atol=2e-5)


def test_an_embedding_does_not_depend_on_the_batch(tower):
    rng = np.random.default_rng(0)
    places = list(zip(rng.uniform(-90, 90, 37), rng.uniform(-180, 180, 37), strict=True))
    together = embed(tower, places)
    assert torch.equal(together, embed(tower, places))
    alone = torch.cat([embed(tower, [place]) for place in places])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


def test_frequencies_are_drawn_from_the_seed_alone(tower):
    torch.manual_seed(123)
    same, other = Location(), Location(seed=1)
    for number, sigma in enumerate((1, 16, 256)):
        b = tower.get_buffer(f"LocEnc{number}.capsule.0.b")
        assert torch.equal(b, same.get_buffer(f"LocEnc{number}.capsule.0.b"))
        assert not torch.equal(b, other.get_buffer(f"LocEnc{number}.capsule.0.b"))
        assert b.std().item() == pytest.approx(sigma, rel=0.1)
    assert not any(name.endswith(".b") for name, _ in tower.named_parameters())


def test_mixed_precision_does_not_round_the_position(tower):
    """In bfloat16 thousands of cycles would be noise; the features stay float32, the layers do not."""
    exact = F.normalize(embed(tower, PLACES), dim=1)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = F.normalize(embed(tower, PLACES).float(), dim=1)
    assert (exact * mixed).sum(1).min() > 0.99


# --- weights and files -------------------------------------------------------------------------------------


def test_the_weights_of_the_package_are_read_without_importing_it(package):
    state = published_state()
    torch.save(state, package / "location_encoder_weights.pth")
    tower = build_tower("location", modality="location", dim=512, weights="geoclip")
    assert "geoclip" not in sys.modules
    assert tower.pretrained
    for key, value in tower.state_dict().items():
        assert torch.equal(value, state.pop(key))
    assert not state  # every key is used
    expected = written_out(published_state(), PLACES)
    torch.testing.assert_close(embed(tower, PLACES).double(), expected, rtol=0, atol=2e-4)


def test_a_package_of_another_architecture_is_refused(package):
    state = published_state()
    del state["LocEnc2.head.0.bias"]
    torch.save(state, package / "location_encoder_weights.pth")
    with pytest.raises(
        GeoBindError, match=r"LocEnc2\.head\.0\.bias has shape None, the tower takes \(512,\)"
    ):
        Location(weights="geoclip")


def test_a_package_without_its_weights_is_one_line(package):
    with pytest.raises(
        GeoBindError, match=r"location_encoder_weights\.pth: the weights cannot be read"
    ) as caught:
        Location(weights="geoclip")
    assert "\n" not in str(caught.value)


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(GeoBindError, match=r"pip install --no-deps geoclip"):
        Location(weights="geoclip")


def test_the_package_has_its_own_sigmas(package):
    with pytest.raises(GeoBindError, match=r"the weights of geoclip are of"):
        Location(weights="geoclip", sigmas=(1, 2, 3))
    with pytest.raises(GeoBindError, match=r"'sigmas' = \(\): give one or more numbers above 0"):
        Location(sigmas=())


def test_a_saved_tower_comes_back_in_the_layout_of_geoclip(tmp_path):
    tower = build_tower("location", modality="location", dim=64, sigmas=(1, 8), seed=3)
    tower.save(tmp_path)
    loaded = load_tower(tmp_path)
    assert torch.equal(embed(loaded, PLACES), embed(tower, PLACES))
    assert fingerprint(loaded) == fingerprint(tower)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config == {"model_type": "geoclip-location-encoder", "format_version": 1, "sigma": [1.0, 8.0]}
    state = load_file(tmp_path / "model.safetensors")
    assert state.keys() == {key for key in published_state() if not key.startswith("LocEnc2.")}

    elsewhere = Location(weights=tmp_path, sigmas=(1, 8))  # the same weights as a start
    assert torch.equal(elsewhere.state_dict()["LocEnc1.capsule.0.b"], state["LocEnc1.capsule.0.b"])
    save_file({}, tmp_path / "model.safetensors")
    with pytest.raises(GeoBindError, match=r"of another architecture"):
        load_tower(tmp_path)
