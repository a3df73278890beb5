"""Geographic splits.

* Every point lies in one cell; cells are about as wide as high.
* `near` holds all neighbours, found independently on a fine grid, over the date line and at the poles too.
* No test cell touches a training cell, whatever the seed.
"""

from __future__ import annotations

import numpy as np
import pytest

from geobind.data.earth import cells


@pytest.fixture(scope="module")
def grid() -> np.ndarray:
    """Cells of points every quarter degree: (720, 1440)."""
    latitude, longitude = np.meshgrid(
        np.arange(-89.875, 90, 0.25), np.arange(-179.875, 180, 0.25), indexing="ij"
    )
    return cells.cell_of(latitude, longitude)


@pytest.fixture(scope="module")
def neighbours(grid: np.ndarray) -> np.ndarray:
    """(n, 2) pairs of cells that are neighbours on the grid, diagonals and the date line included."""
    east = np.roll(grid, -1, axis=1)
    pairs = [(grid, east), (grid[:-1], grid[1:]), (grid[:-1], east[1:]), (grid[1:], east[:-1])]
    codes = np.concatenate([(one * cells.N_CELLS + other).ravel() for one, other in pairs])
    codes = np.flatnonzero(np.bincount(codes))
    return np.stack(np.divmod(codes, cells.N_CELLS), axis=1)


def test_cells_cover_the_earth_and_are_alike(grid):
    assert np.array_equal(np.unique(grid), np.arange(cells.N_CELLS))
    area = np.bincount(grid.ravel(), np.repeat(np.cos(np.radians(np.arange(-89.875, 90, 0.25))), 1440)) / 16
    inner = area[1:-1]  # square degrees; the caps are single cells
    assert inner.min() > 20
    assert inner.max() < 30
    assert cells.cell_of(90, 0) == cells.cell_of(87, 120) == cells.N_CELLS - 1
    assert cells.cell_of(-90, 0) == 0
    assert cells.cell_of(10, 180) == cells.cell_of(10, -180) == cells.cell_of(10, 540)


def test_near_holds_all_neighbours(neighbours):
    near = cells.near()
    assert (near == near.T).all()
    assert near.diagonal().all()
    assert near[neighbours[:, 0], neighbours[:, 1]].all()
    assert near.sum(1)[36:-36].max() <= 11, "and hardly any others"
    assert near[cells.cell_of(12.0, 179.0), cells.cell_of(12.0, -179.0)]
    assert not near[cells.cell_of(12.0, 0.0), cells.cell_of(12.0, 12.0)]


@pytest.mark.parametrize("seed", range(5))
def test_no_test_cell_touches_a_training_cell(neighbours, seed):
    split = cells.split_cells(seed)
    test, train = split == cells.TEST, split == cells.TRAIN
    assert not cells.near()[np.ix_(test, train)].any()
    pairs = split[neighbours]
    assert not ((pairs == cells.TEST).any(1) & (pairs == cells.TRAIN).any(1)).any()
    assert np.array_equal(split, cells.split_cells(seed))
    assert 0.04 < test.mean() < 0.08
    assert 0.5 < train.mean() < 0.75
    assert 0.02 < (split == cells.VAL).mean() < 0.07


def test_seeds_differ():
    assert not np.array_equal(cells.split_cells(0), cells.split_cells(1))
