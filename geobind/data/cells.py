"""Geographic splits: cells of about equal area, whole cells to a split, and a buffer between the splits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geobind.errors import GeoBindError

EARTH_KM = 6371.0
KM_OF_DEGREE = EARTH_KM * np.pi / 180
_AT_ONCE = 1 << 22  # distances in memory


@dataclass(frozen=True)
class Cells:
    """The Earth in rows of `degrees` of latitude, each cut into cells about as wide as high on the ground.

    So cells are alike in area at every latitude (a polar cap is one cell), no id is given twice, and a cell's
    bounds are the same for all points, which ids of latitude bins times 360 do not grant.

    >>> Cells(5.0).of([48.86], [2.35])
    array([1433])
    """

    degrees: float

    @property
    def rows(self) -> int:
        return round(180 / self.degrees)

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """(rows,) cells of each row, from the south."""
        middles = np.radians(-90 + 180 / self.rows * (np.arange(self.rows) + 0.5))
        counts = np.round(2 * self.rows * np.cos(middles)).astype(np.int64)
        counts[[0, -1]] = 1
        return counts

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """(rows + 1,) number of each row's first cell; the last one is the number of cells."""
        return np.concatenate([[0], np.cumsum(self.counts)])

    def __len__(self) -> int:
        return int(self.first[-1])

    def of(self, latitude: ArrayLike, longitude: ArrayLike) -> NDArray[np.int64]:
        """(n,) number of the cell, 0 to len - 1, from 90 S and 180 W, that holds each point (degrees)."""
        latitude, longitude = np.asarray(latitude, float), np.asarray(longitude, float)
        row = np.clip(np.floor((latitude + 90) / 180 * self.rows), 0, self.rows - 1).astype(np.int64)
        turn = np.mod((longitude + 180) / 360, 1.0)
        counts = self.counts[row]
        return self.first[row] + np.minimum((turn * counts).astype(np.int64), counts - 1)


def split_by_cells(
    latitude: ArrayLike, longitude: ArrayLike, *, test: float = 0.1, val: float = 0.05, cell_km: float = 100.0,
    buffer_km: float = 10.0, seed: int = 0,
) -> NDArray[np.object_]:  # fmt: skip
    """(n,) "train", "val", "test", or None for points of the buffer, by whole cells drawn from a seed.

    Cells are drawn until `test` and then `val` hold their share of the points; a cell that would overshoot
    it is passed over. A training point within `buffer_km` of a point of val or test is left out, as is one
    of val near one of test: neighbouring tiles overlap and look alike, which flatters every score.

    latitude, longitude: (n,) degrees. Raises GeoBindError where a share finds no cell, or the buffer leaves
    nothing to train on. Buffer and equal cells: Roberts et al. 2017, Ecography 40, 913-929.
    """
    latitude, longitude = np.asarray(latitude, float), np.asarray(longitude, float)
    if not (0 < test < 1 and 0 <= val < 1 and test + val < 1) or not 0 < cell_km <= 5000 or buffer_km < 0:
        raise GeoBindError(
            f"test={test}, val={val}, cell_km={cell_km}, buffer_km={buffer_km}: give shares that leave some to "
            f"train on, cells of up to 5000 km and a buffer of 0 or more"
        )
    cell = Cells(cell_km / KM_OF_DEGREE).of(latitude, longitude)
    occupied, inverse, counts = np.unique(cell, return_inverse=True, return_counts=True)
    chosen = np.zeros(len(occupied), np.int64)
    order = np.random.default_rng(seed).permutation(len(occupied))
    for number, share in ((2, test), (1, val)):
        left = share * len(cell) + 0.5
        for index in order:
            if chosen[index] == 0 and counts[index] <= left:
                chosen[index] = number
                left -= counts[index]
        if share and not (chosen == number).any():
            raise GeoBindError(
                f"{len(cell):,} points in {len(occupied):,} cells of {cell_km:g} km: none is small enough for a share "
                f"of {share:g}; give smaller cells"
            )
    splits = np.array(["train", "val", "test"], dtype=object)[chosen[inverse]]
    for judged, judging in ((("train", "val"), "test"), (("train",), "val")):
        rows = np.flatnonzero(np.isin(splits, judged))
        near = within(latitude, longitude, rows, np.flatnonzero(splits == judging), buffer_km)
        splits[rows[near]] = None
    if not (splits == "train").any():
        raise GeoBindError(
            f"no point is farther than {buffer_km:g} km from val and test: give a smaller buffer, or smaller shares"
        )
    return splits


def within(
    latitude: NDArray[np.float64], longitude: NDArray[np.float64], rows: NDArray[np.int64],
    others: NDArray[np.int64], km: float,
) -> NDArray[np.bool_]:  # fmt: skip
    """(len(rows),): is a point of `others` within so many km (great circle) of the point of the row."""
    near = np.zeros(len(rows), bool)
    if km == 0 or not len(others):
        return near
    phi, theta = np.radians(latitude), np.radians(longitude)
    points = np.stack([np.cos(phi) * np.cos(theta), np.cos(phi) * np.sin(theta), np.sin(phi)], axis=1)
    chord = 2 * np.sin(min(km / EARTH_KM, np.pi) / 2)
    others = others[np.argsort(latitude[others])]
    order = np.argsort(latitude[rows])
    margin = km / KM_OF_DEGREE * (1 + 1e-9)
    start = 0
    while start < len(rows):  # rows of like latitude against the others within the margin of it
        low = latitude[rows[order[start]]] - margin
        first = np.searchsorted(latitude[others], low)
        size = 256
        while True:
            part = rows[order[start : start + size]]
            last = np.searchsorted(latitude[others], latitude[part[-1]] + margin, side="right")
            if size == 1 or len(part) * (last - first) <= _AT_ONCE:
                break
            size //= 2
        if last > first:
            apart = np.linalg.norm(points[part][:, None] - points[others[first:last]][None], axis=2)
            near[order[start : start + size]] = (apart <= chord).any(1)
        start += size
    return near
