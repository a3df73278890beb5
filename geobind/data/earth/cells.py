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
def touching() -> NDArray[np.bool_]:
    """(N_CELLS, N_CELLS): do two cells have a point in common, be it a corner; a cell touches itself."""
    matrix = np.zeros((N_CELLS, N_CELLS), bool)
    for row in range(_ROWS):
        for other in range(max(0, row - 1), min(_ROWS, row + 2)):
            n, m = int(_COUNTS[row]), int(_COUNTS[other])
            # Edges as whole multiples of 1 / (n m) of a turn: no rounding decides what touches.
            west, east = np.arange(n)[:, None] * m, (np.arange(n)[:, None] + 1) * m
            for turn in (-1, 0, 1):
                low, high = (np.arange(m) + turn * m) * n, (np.arange(m) + 1 + turn * m) * n
                block = matrix[_FIRST[row] : _FIRST[row + 1], _FIRST[other] : _FIRST[other + 1]]
                block |= (west <= high) & (low <= east)
    return matrix


def split_cells(seed: int) -> NDArray[np.int64]:
    """(N_CELLS,) TRAIN, VAL, TEST or UNUSED, drawn from a seed.

    Test cells are drawn one by one, so that they lie on all continents; the cells around them are a buffer,
    which stays empty but for some cells that are `val`. So training stays a cell away from the test, at
    least 5 degrees of latitude (tiles are 2 degrees wide), while validation, which only chooses when to
    stop, may touch either. Six cells in a hundred are test, 55 to 60 train.
    """
    rng = np.random.default_rng([seed, 0])
    test = rng.random(N_CELLS) < _TEST_SHARE
    buffer = touching()[test].any(0) & ~test
    val = buffer & (rng.random(N_CELLS) < _VAL_SHARE_OF_BUFFER)
    return np.select([test, val, buffer], [TEST, VAL, UNUSED], TRAIN)
