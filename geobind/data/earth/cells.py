"""Geographic splits: cells of about 5 degrees, and no test cell touches a training cell."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

_DEGREES = 5.0
_ROWS = round(180 / _DEGREES)
# Cells of a row are about as wide as high on the ground; a polar cap is one cell.
_MIDDLES = np.radians(-90 + _DEGREES * (np.arange(_ROWS) + 0.5))
_COUNTS = np.round(2 * _ROWS * np.cos(_MIDDLES)).astype(np.int64)
_COUNTS[[0, -1]] = 1
_FIRST = np.concatenate([[0], np.cumsum(_COUNTS)])
N_CELLS = int(_FIRST[-1])

SPLITS = ("train", "val", "test", "")  # the last one: cells that stay empty
TRAIN, VAL, TEST, UNUSED = range(4)
_TEST_SHARE, _VAL_SHARE_OF_BUFFER = 0.06, 0.125


def cell_of(latitude: ArrayLike, longitude: ArrayLike) -> NDArray[np.int64]:
    """(n,) number of the cell, 0 to N_CELLS - 1, from 90 S and 180 W, that holds each point (degrees)."""
    latitude, longitude = np.asarray(latitude, float), np.asarray(longitude, float)
    row = np.clip(np.floor((latitude + 90) / _DEGREES), 0, _ROWS - 1).astype(np.int64)
    turn = np.mod((longitude + 180) / 360, 1.0)
    return _FIRST[row] + np.minimum((turn * _COUNTS[row]).astype(np.int64), _COUNTS[row] - 1)


@lru_cache(maxsize=1)
def near() -> NDArray[np.bool_]:
    """(N_CELLS, N_CELLS): do two cells touch, be it at a corner, or pass each other closer than 3 degrees.

    Cells of neighbouring rows do not line up, so that some miss each other's corner by very little; tiles,
    2 degrees wide, would overlap there. A cell is near itself.
    """
    matrix = np.zeros((N_CELLS, N_CELLS), bool)
    for row in range(_ROWS):
        for other in range(max(0, row - 1), min(_ROWS, row + 2)):
            n, m = int(_COUNTS[row]), int(_COUNTS[other])
            west, east = np.arange(n)[:, None] / n, (np.arange(n)[:, None] + 1) / n
            margin = (
                3 / _DEGREES / max(n, m)
            )  # in turns, as the edges: 3 of the 5 degrees that a cell is wide
            for turn in (-1, 0, 1):
                low, high = np.arange(m) / m + turn, (np.arange(m) + 1) / m + turn
                block = matrix[_FIRST[row] : _FIRST[row + 1], _FIRST[other] : _FIRST[other + 1]]
                block |= (west <= high + margin) & (low <= east + margin)
    return matrix


def split_cells(seed: int) -> NDArray[np.int64]:
    """(N_CELLS,) TRAIN, VAL, TEST or UNUSED, drawn from a seed.

    Test cells are drawn one by one, so that they lie on all continents; the cells near them are a buffer,
    which stays empty but for some cells that are `val`. So training stays 3 degrees away from the test
    (tiles are 2 degrees wide), while validation, which only chooses when to stop, may touch either. Six
    cells in a hundred are test, 57 to 60 train.
    """
    rng = np.random.default_rng([seed, 0])
    test = rng.random(N_CELLS) < _TEST_SHARE
    buffer = near()[test].any(0) & ~test
    val = buffer & (rng.random(N_CELLS) < _VAL_SHARE_OF_BUFFER)
    return np.select([test, val, buffer], [TEST, VAL, UNUSED], TRAIN)
