"""Splits in a file of their own: drawn by geography, written once, put on the rows that they were made for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from geobind.data.cells import split_by_cells
from geobind.data.columns import Locations, strings
from geobind.data.table import column, read_table
from geobind.errors import GeoBindError, shorten
from geobind.storage import replacing, writing

if TYPE_CHECKING:
    from geobind.data.pairs import Pairs


def geographic_splits(pairs: Pairs, **options: Any) -> list[str | None]:
    """Split of each row by whole cells with a buffer; a place is in one split, also where it has many rows.

    Rows of places without a position have none. Options are those of `split_by_cells`. Raises GeoBindError for
    pairs without positions.
    """
    if "location" not in pairs.modalities:
        raise GeoBindError(
            f"pairs {pairs.name!r} have no positions: add columns latitude and longitude, or use a published split"
        )
    located = pairs.column("location")
    assert isinstance(located, Locations)
    known = np.flatnonzero(located.present())
    places, first = np.unique(pairs.places[known], return_index=True)
    latitude, longitude = located.degrees[known[first]].T
    of_place = split_by_cells(latitude, longitude, **options)
    index = np.clip(np.searchsorted(places, pairs.places), 0, len(places) - 1)
    of_row = of_place[index]
    of_row[places[index] != pairs.places] = None
    return of_row.tolist()


def write_splits(pairs: Pairs, splits: Sequence[str | None], out: str | Path) -> None:
    """Write the columns key (latitude,longitude by row) and split as .parquet or .csv; whole or not at all."""
    out = Path(out)
    table = pa.table({"key": pairs.keys("location"), "split": pa.array(list(splits), pa.string())})
    if out.suffix not in (".parquet", ".csv"):
        raise GeoBindError(f"splits {out}: give a name that ends in .parquet or .csv")
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary:
        (pq.write_table if out.suffix == ".parquet" else pa.csv.write_csv)(table, temporary)


def read_splits(pairs: Pairs, path: str | Path) -> pa.Array:
    """(n,) the splits that a file holds for these rows. Raises GeoBindError where they are not the same rows."""
    table = read_table(path)
    keys = strings(column(table, "key", str(path), "which row"))
    mine = strings(pa.array(pairs.keys("location"), pa.large_string()))
    if len(keys) != len(mine) or not keys.equals(mine):
        differs = "their number" if len(keys) != len(mine) else ""
        for one, other in zip(keys.to_pylist(), mine.to_pylist(), strict=False):
            if not differs and one != other:
                differs = f"{shorten(one)} instead of {shorten(other)}"
        raise GeoBindError(
            f"splits {path} were made for {len(keys):,} other rows than the {len(mine):,} of pairs {pairs.name!r} "
            f"({differs}): make them again with geobind data split"
        )
    return strings(column(table, "split", str(path), "the split of a row"))
