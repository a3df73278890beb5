"""What `geobind embed --gallery` takes: folders, tables, shards, big rasters, as values with where and when."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geobind.data.columns import Locations
from geobind.data.embedded import HUB
from geobind.data.layouts import read_layout
from geobind.data.pairs import Pairs
from geobind.data.table import read_table
from geobind.errors import GeoBindError, did_you_mean
from geobind.files import Values, read_values
from geobind.gallery import tiles
from geobind.towers.base import Row

TABLES = (".csv", ".tsv", ".parquet", ".pq", ".geoparquet")
_ROWS_AT_ONCE = 16_384
_RENAMED = {"centre_lat": "latitude", "centre_lon": "longitude", "timestamp": "datetime"}
# Decimals only: tile_01_02 is no position.
_POSITION = re.compile(r"(?:.*_)?(-?\d+\.\d+)_(-?\d+\.\d+)")


@dataclass
class Known:
    """What is known of values: sources (n,), places (n, 2) and moments (n,) or None, footprints as WKB or None."""

    sources: list[str]
    locations: NDArray[np.float64] | None = None
    times: NDArray[np.datetime64] | None = None
    geometry: list[bytes] | None = None

    def take(self, rows: list[int]) -> Known:
        """Some of them, in that order."""
        return Known(
            [self.sources[i] for i in rows],
            None if self.locations is None else self.locations[rows],
            None if self.times is None else self.times[rows],
            None if self.geometry is None else [self.geometry[i] for i in rows],
        )


class Source(Protocol):
    """Rows of one modality by index, read when they are asked for, and what is known of them before."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int) -> Row: ...

    def known(self, positions: Sequence[int]) -> Known:
        """Source ("" where the row lacks the modality), place and time of some rows, without reading their media."""

    def part(self, positions: Sequence[int]) -> Sequence[Row]:
        """Some rows apart from the others, light enough to be sent to another process; nothing is read."""


def open_sources(
    modality: str,
    takes: Literal["file", "text", "vector", "location"],
    arguments: Sequence[str],
    *,
    column: str | None = None,
    tile: int = 256,
) -> tuple[Iterator[Source], int]:
    """What the arguments name, one part after the other, and how many values that is.

    * a folder: its files and those below; `<lat>_<lon>.jpg` and GeoTIFFs have a place. Of tar shards: their samples.
    * a table (CSV, Parquet, GeoParquet): its column of the modality, or `column` (a Major TOM table's is
      `embedding`); columns latitude and longitude, centre_lat and centre_lon, datetime or timestamp.
    * a .tar, also https://host/{000..127}.tar, and hf://datasets/owner/name: its samples; `column` is the
      member (`jpg`, `tile.png`) or column if not that of the modality's name. A TIFF larger than `tile` pixels: tiles of that size. Else a file, or what
      `read_values` takes: sentences, latitude,longitude, feature files.

    Tables of Parquet, shards and rasters are read as they are needed. Raises GeoBindError where nothing is found.
    """
    opened = [_open(modality, takes, argument, column, tile) for argument in arguments]
    total = sum(count for _, count in opened)
    if not total:
        raise GeoBindError(
            f"nothing to embed in {', '.join(arguments[:3]) or 'no arguments'}: give files, folders or tables"
        )
    return (source for parts, _ in opened for source in parts), total


def _open(
    modality: str, takes: Any, argument: str, column: str | None, tile: int
) -> tuple[Iterator[Source], int]:
    remote = argument.startswith(HUB) or (
        argument.startswith(("http://", "https://")) and argument.endswith(".tar")
    )
    # Names, and paths for processes that run elsewhere, do not depend on the folder this one runs in.
    path = Path(argument).absolute()
    suffix = path.suffix.lower()
    if remote or suffix == ".tar" or (path.is_dir() and read_layout(path) is not None):
        options: Any = {} if column is None else {"columns": {modality: column}}
        whole = path.is_dir() or argument.startswith(HUB)
        where = argument if remote else str(path)
        pairs = (Pairs.from_folder if whole else Pairs.from_shards)(where, **options)
        if modality not in pairs.modalities:
            raise GeoBindError(
                f"{argument} has no {modality}, but {', '.join(pairs.modalities)}: say with --column which member or "
                f"column it is, such as jpg"
            )
        source = _Table(modality, pairs, where)
        return iter([source]), len(source)
    if suffix in TABLES and _is_table(path, takes):
        return _table_parts(modality, takes, path, column)
    if takes == "file" and suffix in tiles.TIFF and path.is_file() and tiles.is_big(path, tile):
        windows = _Raster(modality, tiles.Windows(str(path), tile))
        return iter([windows]), len(windows)
    parts: list[Source] = [
        _Listed(modality, part, takes) for part in read_values(modality, takes, [argument])
    ]
    return iter(parts), sum(map(len, parts))


def _is_table(path: Path, takes: str) -> bool:
    """A Parquet file of features (key, vector) is no table of rows."""
    return takes != "vector" or "embedding" in (
        pq.read_schema(path).names if path.suffix == ".parquet" else ()
    )


def _table_parts(modality: str, takes: str, path: Path, column: str | None) -> tuple[Iterator[Source], int]:
    if path.suffix.lower() in (".csv", ".tsv"):
        table = read_table(path)
        return iter([_rows_of(modality, takes, table, path, column)]), table.num_rows
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise GeoBindError(f"table {path} cannot be read: {error}") from None

    def parts() -> Iterator[Source]:
        for batch in file.iter_batches(_ROWS_AT_ONCE):
            table = pa.Table.from_batches([batch]).replace_schema_metadata(file.schema_arrow.metadata)
            yield _rows_of(modality, takes, table, path, column)

    return parts(), file.metadata.num_rows


def _rows_of(modality: str, takes: str, table: pa.Table, path: Path, column: str | None) -> Source:
    names = table.column_names
    column = column or (modality if modality in names or "embedding" not in names else "embedding")
    wanted: list[str] = column.split(",") if modality != "location" else []
    for name in wanted:
        if name not in names:
            raise GeoBindError(
                f"table {path} has no column {name!r}{did_you_mean(name, names)} (say which with --column)"
            )
    keep = [name for name in names if name not in ("split", "group", "place") or name in wanted]
    chosen = table.select(keep).rename_columns(
        [_RENAMED.get(n, n) if _RENAMED.get(n) not in names else n for n in keep]
    )
    columns = {modality: wanted if len(wanted) > 1 else wanted[0]} if wanted else None
    pairs = Pairs.from_table(chosen, name=str(path), root=path.parent, columns=columns)
    ids = table["unique_id"].to_pylist() if "unique_id" in names and len(pairs) == table.num_rows else None
    return _Table(
        modality,
        pairs,
        str(path),
        root=path.parent if takes == "file" else None,
        ids=ids,
    )


class _Table:
    """Rows of `Pairs`, named by their file under `root`, by their text, or by the table and an id or key."""

    def __init__(
        self,
        modality: str,
        pairs: Pairs,
        name: str,
        *,
        root: Path | None = None,
        ids: list[str] | None = None,
    ) -> None:
        self.modality, self.pairs = modality, pairs
        self.places = np.full((len(pairs), 2), np.nan)
        if "location" in pairs.modalities:
            located = pairs.column("location")
            assert isinstance(located, Locations)
            self.places = located.degrees
        keys: Sequence[str | None] = pairs.keys(modality).tolist() if ids is None else ids
        if root is not None and ids is None:
            self.sources: list[str | None] = [None if key is None else str(root / key) for key in keys]
        elif modality in ("text", "location"):
            self.sources = [*keys]
        else:
            self.sources = [None if key is None else f"{name}#{key}" for key in keys]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, position: int) -> Row:
        return self.pairs[position]

    def known(self, positions: Sequence[int]) -> Known:
        rows = np.asarray(positions)
        sources = [self.sources[row] or "" for row in rows]
        return Known(sources, self.places[rows], None if self.pairs.times is None else self.pairs.times[rows])

    def part(self, positions: Sequence[int]) -> Sequence[Row]:
        return self.pairs.subset(positions)


class _Raster:
    """A big raster's tiles."""

    def __init__(self, modality: str, windows: tiles.Windows) -> None:
        self.modality, self.windows = modality, windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, position: int) -> Row:
        row: dict[str, Any] = {self.modality: self.windows[position]}
        corners = self.windows.corners([position])
        if corners is not None:
            row["latitude"], row["longitude"] = tiles.centres(corners)[0].tolist()
        return row

    def known(self, positions: Sequence[int]) -> Known:
        sources, corners = self.windows.names(positions), self.windows.corners(positions)
        if corners is None:
            return Known(sources)
        return Known(sources, tiles.centres(corners), None, tiles.polygons(corners))

    def part(self, positions: Sequence[int]) -> Sequence[Row]:
        return _Part(self, positions)


@dataclass(frozen=True)
class _Part(Sequence[Row]):
    """Some tiles of a raster."""

    raster: _Raster
    positions: Sequence[int]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, position: int) -> Row:  # type: ignore[override]
        return self.raster[self.positions[position]]


class _Listed:
    """Files, sentences, positions or vectors as they were named."""

    def __init__(self, modality: str, values: Values, takes: str) -> None:
        self.modality, self.values, self.takes = modality, values, takes

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, position: int) -> Row:
        row = dict(self.values[position])
        if self.takes == "file":
            place, _ = _place_of(row[self.modality])
            if place is not None:
                row["latitude"], row["longitude"] = place
        return row

    def known(self, positions: Sequence[int]) -> Known:
        keys = [self.values.keys[i].as_py() for i in positions]
        if self.takes == "location":
            return Known(keys, np.array([self.values.values[i] for i in positions], np.float64))
        if self.takes != "file":
            return Known(keys)
        found = [_place_of(self.values.values[i]) for i in positions]
        places = np.array([(np.nan, np.nan) if place is None else place for place, _ in found])
        return Known([str(Path(key).absolute()) for key in keys], places, None, [shape for _, shape in found])  # type: ignore[misc]

    def part(self, positions: Sequence[int]) -> Sequence[Row]:
        values = [self.values.values[i] for i in positions]
        if self.takes == "file":
            values = [Path(value).absolute() for value in values]
        keys = self.values.keys.take(pa.array(positions, pa.int64()))
        return _Listed(self.modality, Values(self.modality, keys, values), self.takes)  # type: ignore[return-value]


def _place_of(path: Path) -> tuple[tuple[float, float] | None, bytes | None]:
    """(latitude, longitude) and footprint of a file: from a GeoTIFF's header, or from its name."""
    if path.suffix.lower() in tiles.TIFF:
        corners = tiles.footprint(path)
        if corners is not None:
            latitude, longitude = tiles.centres(corners[None])[0].tolist()
            return (latitude, longitude), tiles.polygons(corners[None])[0]
    match = _POSITION.fullmatch(path.stem)
    if match is not None and abs(float(match[1])) <= 90 and abs(float(match[2])) <= 180:
        return (float(match[1]), float(match[2])), None
    return None, None
