"""A layout of files as one table: what readers of published data give and `Pairs` is made of."""

from __future__ import annotations

import re
import warnings
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import pyarrow as pa

from geobind.data.columns import Column
from geobind.errors import GeoBindWarning

_SPLIT = re.compile(r"(train|val|valid|validation|dev|test)(?![a-z])", re.IGNORECASE)
_SAME = {"valid": "val", "validation": "val", "dev": "val"}


class TableOptions(TypedDict, total=False):
    """What layouts take, as `Pairs.from_table` does."""

    columns: Mapping[str, str | Sequence[str]] | None
    features: Mapping[str, str | Path] | None
    place: str | None
    group: str | None
    verbatim: Sequence[str]


class ShardOptions(TableOptions, total=False):
    """The same, and the column of the splits."""

    split: str | None


@dataclass
class Source:
    """A table and what its columns mean; `Pairs.from_folder` and `from_shards` start from one.

    table: a row an observation; columns latitude, longitude, datetime, split, place where they are known.
    where: its name in messages; root: folder of relative paths; columns: modality to its column unless the
    user says otherwise; media: columns that are no part of the table, such as members of tar shards;
    layout: what to call it; notes: what a user should know of it.
    """

    table: pa.Table
    where: str
    root: Path
    columns: dict[str, str | Sequence[str]]
    media: Mapping[str, Column] = field(default_factory=dict)
    layout: str = "table"
    notes: list[str] = field(default_factory=list)


def split_of_name(path: str) -> str | None:
    """The split that a file's name begins with, or a folder above it is called: train, val, test or None.

    >>> split_of_name("with_sentinel/train_12.tar")
    'train'
    """
    *folders, name = path.split("/")
    match = _SPLIT.match(name)
    for folder in reversed(folders):
        match = match or _SPLIT.fullmatch(folder)
    if match is None:
        return None
    found = match[1].lower()
    return _SAME.get(found, found)


def first_known(options: Iterable[str], names: Container[str]) -> str | None:
    """The first of some names that is among others."""
    return next((name for name in options if name in names), None)


def warn(message: str) -> None:
    """Tell the user something about data, as one line."""
    warnings.warn(message, GeoBindWarning, stacklevel=3)
