"""The `satclip` tower: invariants.

* The harmonics are scipy's, in SatCLIP's order and angles, with its scale of order 0; they are orthonormal
  over the sphere otherwise, and stable at degree 40.
* The network equals its formula written out in float64; names and shapes are the published ones.
* The globe has no seam: poles and date line are points like any other.
* A saved tower is read back bit for bit; positions outside the Earth are one line.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geobind import GeoBind, GeoBindError, MediaError, Pairs, Stage, bind
from geobind.towers.base import build_tower, fingerprint, load_tower
from geobind.towers.satclip import SatClip, spherical_harmonics

PLACES = [(0.0, 0.0), (21.3, -157.8), (-90.0, 12.0), (90.0, 0.0), (0.0, 180.0), (0.0, -180.0), (51.5, -0.12)]


def columns(degree: int) -> list[tuple[int, int]]:
    return [(n, m) for n in range(degree) for m in range(-n, n + 1)]


@pytest.mark.parametrize("degree", [1, 2, 10, 40])
def test_harmonics_are_scipys(degree):
    from scipy.special import sph_harm_y

    rng = np.random.default_rng(0)
    places = np.concatenate(
        [np.array(PLACES), np.stack([rng.uniform(-90, 90, 20), rng.uniform(-180, 180, 20)], 1)]
    )
    theta, phi = np.radians(places[:, 0] + 90), np.radians(places[:, 1] + 180)
    expected = []
    for n, m in columns(degree):
        complex_ = (-1.0) ** m * sph_harm_y(n, abs(m), theta, phi)  # without the Condon-Shortley phase
        part = complex_.imag if m < 0 else complex_.real
        expected.append(part * (np.pi if m == 0 else np.sqrt(2)))
    np.testing.assert_allclose(spherical_harmonics(places, degree), np.stack(expected, 1), atol=1e-10)


def test_harmonics_are_orthonormal_but_for_the_published_scale():
    nodes, weights = np.polynomial.legendre.leggauss(12)
    longitudes = np.arange(24) * 15.0 - 180
    grid = np.array([(np.degrees(np.arcsin(x)), longitude) for x in nodes for longitude in longitudes])
    area = np.repeat(weights, 24) * np.radians(15)
    values = spherical_harmonics(grid, 8)
    scale = [np.pi if m == 0 else 1 for _, m in columns(8)]
    np.testing.assert_allclose((values * area[:, None]).T @ values, np.diag(np.square(scale)), atol=1e-10)


def embed(tower: SatClip, places) -> torch.Tensor:
    items = [tower.processor({"location": place}) for place in places]
    with torch.no_grad():
        return tower.eval()(**tower.processor.collate(items))


def test_the_network_is_its_formula_and_its_names_are_the_published_ones():
    torch.manual_seed(0)
    tower = SatClip(degree=10)
    state = {key: value.double() for key, value in tower.state_dict().items()}
    assert {key: tuple(value.shape) for key, value in state.items()} == {
        "nnet.layers.0.weight": (512, 100), "nnet.layers.0.bias": (512,),
        "nnet.layers.1.weight": (512, 512), "nnet.layers.1.bias": (512,),
        "nnet.last_layer.weight": (256, 512), "nnet.last_layer.bias": (256,),
    }  # fmt: skip
    x = torch.from_numpy(spherical_harmonics(np.array(PLACES), 10))
    x = torch.sin(30 * (x @ state["nnet.layers.0.weight"].T + state["nnet.layers.0.bias"]))
    x = torch.sin(x @ state["nnet.layers.1.weight"].T + state["nnet.layers.1.bias"])
    x = x @ state["nnet.last_layer.weight"].T + state["nnet.last_layer.bias"]
    torch.testing.assert_close(embed(tower, PLACES), x.float(), atol=1e-4, rtol=0)


def test_the_globe_has_no_seam():
    tower = SatClip(degree=40)
    torch.testing.assert_close(
        embed(tower, [(90, 0), (-90, 10), (12, 180), (12, 190)]),
        embed(tower, [(90, 77), (-90, -120), (12, -180), (12, -170)]),
        atol=1e-3, rtol=0,
    )  # fmt: skip


def test_latitude_comes_first():
    tower = SatClip()
    assert not torch.allclose(embed(tower, [(10, 50)]), embed(tower, [(50, 10)]), atol=1e-2)
    with pytest.raises(MediaError, match=r"order is \(latitude, longitude\)"):
        tower.processor({"location": (120.0, 30.0)})


def test_mixed_precision_changes_nothing():
    space = GeoBind(32, [build_tower("satclip", modality="location", dim=32, width=32, degree=20)])
    np.testing.assert_allclose(
        space.embed("location", PLACES), space.embed("location", PLACES, dtype="bfloat16"), atol=1e-6
    )


def test_a_saved_tower_is_read_back_bit_for_bit(tmp_path):
    tower = build_tower("satclip", modality="location", dim=48, degree=6, hidden=32, layers=3, dropout=0.1)
    tower.save(tmp_path)
    again = load_tower(tmp_path)
    assert torch.equal(embed(again, PLACES), embed(tower, PLACES))
    assert fingerprint(again) == fingerprint(tower)
    with pytest.raises(GeoBindError, match="another architecture"):
        SatClip(weights=tmp_path)
    with pytest.raises(GeoBindError, match="degree = 0"):
        SatClip(degree=0)


def test_a_stage_learns_where_things_are():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    places = np.stack([np.degrees(np.arcsin(rng.uniform(-1, 1, 64))), rng.uniform(-180, 180, 64)], 1)
    looks = spherical_harmonics(places, 4).astype(np.float32)
    satellite = build_tower("vector", modality="satellite", dim=16, width=16, standardize=False)
    location = build_tower("satclip", modality="location", dim=16, width=16, degree=6, hidden=64, dropout=0.0)
    space = GeoBind(16, [satellite, location])
    pairs = Pairs.from_columns({"satellite": looks, "location": places}, place=np.arange(64))
    stage = Stage(
        learner="location", target="satellite", pairs=pairs, epochs=60, batch_size=64, lr=3e-3, validation=0
    )
    bind(space, stage, progress=False)
    scores = space.similarity(space.embed("location", places), space.embed("satellite", looks))
    assert (scores.argmax(1) == np.arange(64)).mean() > 0.8
