"""Shards that `geobind data pack` wrote, read as the rows that they were made of."""

from __future__ import annotations

import warnings
from pathlib import Path

import pyarrow as pa

from geobind.data.ranges import Ranges
from geobind.data.shards import read_shards
from geobind.data.source import Source
from geobind.errors import GeoBindError, GeoBindWarning
from geobind.storage import read_json

MANIFEST = "pack.json"


def is_pack(folder: Path) -> bool:
    """Does a folder hold a pack, be it finished or not."""
    return (folder / MANIFEST).is_file()


def read_pack(folder: Path) -> Source:
    """The shards that `pack` wrote, with the keys that their values had. Raises what `read_shards` raises."""
    with warnings.catch_warnings():  # what the source's rows lack, the pack's do
        warnings.filterwarnings("ignore", ".*lack the member", GeoBindWarning)
        source, plan = read_shards(folder), read_json(folder / MANIFEST)
    names = source.table.column_names
    media: dict[str, Ranges] = {}
    for modality, member in plan["members"].items():
        ranges = source.media[member]
        assert isinstance(ranges, Ranges)
        ranges.names = source.table[key_field(modality)].combine_chunks().cast(pa.large_string())
        media[member] = ranges
    columns = {
        modality: name for modality, name in plan["columns"].items() if set(_names(name)) <= set(names)
    }
    if source.table.num_rows != plan["rows"]:
        raise GeoBindError(
            f"{folder} holds {source.table.num_rows:,} of {plan['rows']:,} rows: the same geobind data pack goes on"
        )
    return Source(
        source.table, f"of pack {folder}", Path(), {**plan["members"], **columns}, media, layout="pack"
    )


def _names(name: str | list[str]) -> list[str]:
    return [name] if isinstance(name, str) else name


def key_field(modality: str) -> str:
    """The field of a sample's JSON that holds the key which a value had in the source."""
    return f"{modality} key"
