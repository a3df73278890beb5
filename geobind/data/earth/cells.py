"""Geographic splits: cells of about 5 degrees, and no test cell touches a training cell."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from geobind.data.cells import Cells

_DEGREES = 5.0
_GRID = Cells(_DEGREES)
N_CELLS = len(_GRID)

SPLITS = ("train", "val", "test", "")  # the last one: cells that stay empty
TRAIN, VAL, TEST, UNUSED = range(4)
_TEST_SHARE, _VAL_SHARE_OF_BUFFER = 0.06, 0.125


cell_of = _GRID.of  # of latitude and longitude in degrees, see Cells.of


@lru_cache(maxsize=1)
def near() -> NDArray[np.bool_]:
    """(N_CELLS, N_CELLS): do two cells touch, be it at a corner, or pass each other closer than 3 degrees.

    Cells of neighbouring rows do not line up, so that some miss each other's corner by very little; tiles,
    2 degrees wide, would overlap there. A cell is near itself.
    """
    matrix = np.zeros((N_CELLS, N_CELLS), bool)
    for row in range(_GRID.rows):
        for other in range(max(0, row - 1), min(_GRID.rows, row + 2)):
            n, m = int(_GRID.counts[row]), int(_GRID.counts[other])
            west, east = np.arange(n)[:, None] / n, (np.arange(n)[:, None] + 1) / n
            margin = (
                3 / _DEGREES / max(n, m)
            )  # in turns, as the edges: 3 of the 5 degrees that a cell is wide
            for turn in (-1, 0, 1):
                low, high = np.arange(m) / m + turn, (np.arange(m) + 1) / m + turn
                block = matrix[
                    _GRID.first[row] : _GRID.first[row + 1], _GRID.first[other] : _GRID.first[other + 1]
                ]
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
