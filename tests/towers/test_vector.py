"""The `vector` tower: features from elsewhere, standardised by their training rows or passed on unchanged.

Pinned: mean and deviation equal numpy's; a frozen target changes no bit; an unreadable vector is one line
in embedding and left out in fitting.
"""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from geobind.errors import GeoBindError, MediaError
from geobind.towers.base import build_tower, fingerprint, load_tower
from geobind.towers.vector import Vector

VECTORS = (np.random.default_rng(0).normal(3.0, [1.0, 10.0, 0.01, 0.0], size=(50, 4)) + 1e4).astype(
    np.float32
)
ROWS = [{"environment": vector} for vector in VECTORS]


def encode(tower: Vector, vectors: np.ndarray) -> torch.Tensor:
    items = [tower.processor({"environment": vector}) for vector in vectors]
    return tower(**tower.processor.collate(items))


def test_fit_standardises_by_the_mean_and_deviation_of_the_rows():
    tower = Vector("environment", width=4)
    assert not tower.fitted
    tower.fit(iter(ROWS))
    assert tower.fitted
    rows = VECTORS.astype(np.float64)
    torch.testing.assert_close(tower.mean.double().numpy(), rows.mean(0), rtol=1e-7, atol=0)
    torch.testing.assert_close(tower.deviation[:3].double().numpy(), rows.std(0)[:3], rtol=1e-6, atol=0)
    assert tower.deviation[3] == 1  # a constant is not blown up
    # float32 holds 1e4 to a thousandth, which is what the third column's 0.01 is measured in
    assert encode(tower, VECTORS).mean(0).abs().max() < 0.1


def test_a_frozen_target_passes_its_vectors_on_unchanged():
    tower = build_tower("vector", modality="environment", dim=4, width=4, standardize=False, head="none")
    assert tower.fitted
    assert torch.equal(encode(tower.eval(), VECTORS), torch.from_numpy(VECTORS))


def test_dropout_is_for_training_only():
    tower = Vector("environment", width=4, standardize=False, dropout=0.5)
    assert (encode(tower.train(), VECTORS) == 0).float().mean() > 0.2
    assert torch.equal(encode(tower.eval(), VECTORS), torch.from_numpy(VECTORS))


def test_a_saved_tower_keeps_what_it_was_fitted_to(tmp_path):
    tower = build_tower("vector", modality="environment", dim=8, width=4, head={"kind": "mlp", "hidden": 6})
    untouched = fingerprint(tower)
    tower.fit(ROWS)
    assert fingerprint(tower) != untouched
    tower.save(tmp_path)
    loaded = load_tower(tmp_path)
    assert loaded.fitted
    assert torch.equal(encode(loaded, VECTORS), encode(tower.eval(), VECTORS))


def test_values_may_be_lists_tensors_and_read_only_arrays():
    processor = pickle.loads(pickle.dumps(Vector("environment", width=3).processor))
    frozen = np.array([1.0, 2.0, 3.0], dtype=np.float16)
    frozen.flags.writeable = False
    for value in ([1, 2, 3], torch.tensor([1, 2, 3]), frozen):
        vector = processor({"environment": value})["vector"]
        assert torch.equal(vector, torch.tensor([1.0, 2.0, 3.0]))
    assert torch.equal(processor({"environment": [1, 2, 3]}, rng=np.random.default_rng(0))["vector"], vector)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1.0, np.nan, 2.0], r"environment: a vector with NaN or infinity"),
        ([1.0, 2.0], r"environment: a vector of shape \(2,\), the tower takes \(3,\)"),
        ("warm", r"environment: 'warm' is not a vector; give 3 numbers"),
        (None, r"environment: .*(not a vector|shape|NaN)"),
    ],
)
def test_an_unreadable_vector_is_one_line(value, message):
    with pytest.raises(MediaError, match=message) as caught:
        Vector("environment", width=3).processor({"environment": value})
    assert "\n" not in str(caught.value)


def test_fit_leaves_out_what_cannot_be_read():
    broken = [{"environment": [np.nan] * 4}, *ROWS, {"environment": [1.0]}]
    tower, clean = Vector("environment", width=4), Vector("environment", width=4)
    tower.fit(broken)
    clean.fit(ROWS)
    assert torch.equal(tower.mean, clean.mean)
    assert int(tower.seen) == len(ROWS)
    with pytest.raises(GeoBindError, match=r"no row to learn from: environment: a vector with NaN"):
        Vector("environment", width=4).fit(broken[:1])
