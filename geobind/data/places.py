"""Place ids: which rows are of one place, and that a place has one position."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geobind.data.columns import Column, Locations, RawColumns, strings
from geobind.errors import GeoBindError, shorten

_SAME_PLACE = 1e-4  # degrees, about 11 m: rounding in a table, not another place


def common_length(raw: RawColumns, where: str) -> int:
    """The number of rows. Raises GeoBindError where columns differ in it, or there is none."""
    others = {"split": raw.split, "place": raw.place, "group": raw.group, "datetime": raw.datetime}
    lengths = {key: len(values) for key, values in {**raw.columns, **others}.items() if values is not None}
    if not raw.columns:
        raise GeoBindError(f"{where}: no modality given")
    first = next(iter(lengths))
    for key, length in lengths.items():
        if length != lengths[first]:
            raise GeoBindError(f"{where}: {length} values of {key!r} but {lengths[first]} of {first!r}")
    if lengths[first] == 0:
        raise GeoBindError(f"{where}: no rows")
    return lengths[first]


def number_places(columns: Mapping[str, Column], raw: RawColumns, n: int, where: str) -> NDArray[np.int64]:
    """A number a place: by the given ids, else by satellite value, else by position, else by record.

    Raises GeoBindError for a given id that has two positions.
    """
    located = columns.get("location")
    record = np.arange(n) if raw.record is None else raw.record
    if raw.place is not None:
        ids = strings(raw.place)
    elif "satellite" in columns:
        ids = columns["satellite"].keys()
    elif located is not None:
        ids = located.keys()
    else:
        return record
    codes = ids.dictionary_encode().indices
    # A record without an id is a place of its own.
    places = np.where(
        ids.is_valid().to_numpy(zero_copy_only=False),
        codes.fill_null(0).to_numpy(zero_copy_only=False),
        n + record,
    ).astype(np.int64)
    if raw.place is not None and isinstance(located, Locations):
        _refuse_two_positions(places, ids, located.degrees, where)
    return places


def _refuse_two_positions(
    places: NDArray[np.int64], ids: pa.Array, degrees: NDArray[np.float64], where: str
) -> None:
    known = np.flatnonzero(~np.isnan(degrees[:, 0]))
    if not len(known):
        return
    _, first, inverse = np.unique(places[known], return_index=True, return_inverse=True)
    reference, position = degrees[known][first][inverse], degrees[known]
    apart = np.abs(position - reference)
    apart[:, 1] = np.minimum(apart[:, 1], 360 - apart[:, 1])
    bad = np.flatnonzero((apart > _SAME_PLACE).any(1))
    if len(bad):
        row = bad[0]
        one, two = ("({:g}, {:g})".format(*pair) for pair in (reference[row], position[row]))
        raise GeoBindError(
            f"{where}: place {shorten(ids[int(known[row])].as_py())} has two positions, {one} and {two}: "
            f"give each position a place id of its own"
        )
