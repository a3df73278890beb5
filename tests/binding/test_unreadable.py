"""Unreadable media is replaced by the same other rows in every run, counted and listed; --strict stops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from geobind import GeoBind, GeoBindWarning, MediaError, Pairs, Stage, bind, build_tower

ROWS, BROKEN = 24, 5


@pytest.fixture
def pairs(tmp_path) -> Pairs:
    """Small JPEGs of one colour each, with a vector; one file is cut off."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 255, (ROWS, 3), dtype=np.uint8)
    for row, colour in enumerate(colours):
        Image.fromarray(np.broadcast_to(colour, (24, 24, 3)).copy()).save(tmp_path / f"{row}.jpg")
    whole = (tmp_path / f"{BROKEN}.jpg").read_bytes()
    (tmp_path / f"{BROKEN}.jpg").write_bytes(whole[: len(whole) // 2])
    return Pairs.from_columns(
        {"satellite": [f"{row}.jpg" for row in range(ROWS)], "text": np.eye(ROWS, 64, dtype=np.float32)},
        root=tmp_path,
    )


def space() -> GeoBind:
    torch.manual_seed(0)
    satellite = build_tower("small", modality="satellite", dim=64, size=32, width=64)
    text = build_tower("vector", modality="text", dim=64, width=64, standardize=False)
    return GeoBind(64, [satellite, text])


def test_a_learners_bad_file_is_replaced_the_same_way_each_time(pairs):
    stage = Stage(learner="satellite", target="text", pairs=pairs, epochs=2, batch_size=8, validation=0)
    reports = [bind(space(), stage, workers=workers, progress=False) for workers in (0, 0, 2)]
    assert reports[0].rows == ROWS
    assert len(reports[0].unreadable) == 2  # once an epoch
    assert f"{BROKEN}.jpg" in reports[0].unreadable[0]
    assert reports[0].unreadable == reports[1].unreadable == reports[2].unreadable
    assert reports[0].losses == reports[1].losses
    assert reports[2].losses == pytest.approx(reports[0].losses, abs=1e-5)


def test_strict_stops_at_it(pairs):
    stage = Stage(learner="satellite", target="text", pairs=pairs, epochs=1, batch_size=8, validation=0)
    with pytest.raises(MediaError, match=f"{BROKEN}.jpg"):
        bind(space(), stage, strict=True, progress=False)


def test_a_row_whose_frozen_target_is_unreadable_is_left_out(pairs):
    stage = Stage(learner="text", target="satellite", pairs=pairs, epochs=1, batch_size=8, validation=0)
    trained = space()
    trained.add(build_tower("vector", modality="text", dim=64, width=64, head="linear"))
    with pytest.warns(GeoBindWarning, match=f"{BROKEN}.jpg"):
        report = bind(trained, stage, progress=False)
    assert report.rows == ROWS - 1
    with pytest.raises(MediaError, match=f"{BROKEN}.jpg"):
        bind(trained, stage, strict=True, progress=False)
