"""Parquet files that hold media themselves, as on the Hub: columns of bytes, laid out once to be read by row."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from geobind.console import progress_bar
from geobind.data.columns import embedded_bytes, is_embedded
from geobind.data.ranges import Ranges
from geobind.data.releases import find_release
from geobind.data.source import Source, first_known, split_of_name
from geobind.errors import GeoBindError, shorten
from geobind.media.http import RangeFile, is_url
from geobind.storage import cache_folder, replacing, writing

HUB = "hf://datasets/"
_ROWS_AT_ONCE = 64  # of media in memory while they are laid out
_COLUMNS = {  # what a modality's column is called, the first that is there
    "satellite": ("satellite", "googleearth_image", "bingmap_image", "sentinel_image"),
    "image": ("image", "img", "jpg", "groundlevel"),
    "audio": ("audio",),
    "text": ("text", "audio_caption", "caption", "txt"),
}
_DATES = ("date_recorded", "date_taken", "timestamp", "date")


@dataclass(frozen=True)
class ParquetShard:
    """One file: `name` below its folder or data set, the path or URL that it is read from, what tells it from others."""

    name: str
    source: str
    identity: str

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """What pyarrow reads. Raises GeoBindError for a file that is not whole."""
        try:
            yield io.BufferedReader(RangeFile(self.source)) if is_url(self.source) else self.source
        except (OSError, pa.ArrowException) as error:
            raise GeoBindError(
                f"{self.source} is no whole Parquet file ({shorten(str(error), 100)}): download it again"
            ) from None


def parquet_shards(folder: str | Path) -> list[ParquetShard]:
    """The Parquet files of a folder (its own, and those in `data/` or in folders by split), or of hf://datasets/ID."""
    if str(folder).startswith(HUB):
        release = find_release(f"hub:{str(folder).removeprefix(HUB)}")
        return [
            ParquetShard(file.path, file.url, f"{file.url} {file.checksum}")
            for file in sorted(release.files, key=lambda file: file.path)
            if file.path.endswith(".parquet")
        ]
    folder, shards = Path(folder), []
    for path in sorted({*folder.glob("*.parquet"), *folder.glob("*/*.parquet")}):
        status = path.stat()
        identity = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
        shards.append(ParquetShard(path.relative_to(folder).as_posix(), str(path), identity))
    return shards


def read_parquet_folder(folder: str | Path) -> Source:
    """A folder of Parquet shards, or hf://datasets/owner/name, as one table: MVRL/SoundingEarth, MVRL/GeoSound.

    Files are named by split (`data/train-00000-of-00041.parquet`). Columns of bytes, or of structs {bytes,
    path} as `datasets` writes them, are media: the first time that one is used, its bytes are laid out one
    after another in a file of the cache, of the size of the media, since a row of Parquet itself costs
    reading its whole row group. Of a data set on the Hub just those columns travel. Rows of one position
    are one place.

    Raises GeoBindError for a file that is broken or whose columns are not those of the first.
    """
    shards = parquet_shards(folder)
    where = f"{folder}/*.parquet"
    if not shards:
        raise GeoBindError(
            f"{where}: no Parquet files: fetch the data set (geobind data fetch) and give its folder"
        )
    schemas = [_schema(shard) for shard in shards]
    for shard, schema in zip(shards, schemas, strict=True):
        if schema.names != schemas[0].names:
            odd = next(iter({*schema.names} ^ {*schemas[0].names}), "their order")
            raise GeoBindError(
                f"{shard.source} has other columns than {shards[0].source} ({odd}): put other data elsewhere"
            )
    geo = json.loads((schemas[0].metadata or {}).get(b"geo", b"{}")).get(
        "columns", {}
    )  # points are bytes too
    media = {field.name for field in schemas[0] if is_embedded(field.type) and field.name not in geo}
    light = [f.name for f in schemas[0] if f.name not in media and not _is_nested(f.type)]
    parts = [_light_columns(shard, light) for shard in shards]
    table = pa.concat_tables(parts, promote_options="permissive")
    file = np.repeat(np.arange(len(shards)), [part.num_rows for part in parts])
    splits = [split_of_name(shard.name) for shard in shards]
    if any(splits) and "split" not in table.column_names:
        table = table.append_column("split", pa.array(splits, pa.string()).take(pa.array(file)))
    date = first_known(_DATES, table.column_names)
    if date is not None and "datetime" not in table.column_names:
        table = table.append_column("datetime", table[date])
    columns = {
        modality: name
        for modality, options in _COLUMNS.items()
        if (name := first_known(options, schemas[0].names)) is not None
    }
    layout = "Parquet"
    if "googleearth_image" in media:
        layout = "SoundingEarth (Hub)"
    elif {"bingmap_image", "sentinel_image"} <= media:
        layout = "GeoSound (Hub)"
    return Source(table, where, Path(), columns, _Media(shards, sorted(media)), layout=layout)  # type: ignore[arg-type]


def _light_columns(shard: ParquetShard, names: list[str]) -> pa.Table:
    with shard.opened() as file:
        return pq.read_table(file, columns=names)


def _schema(shard: ParquetShard) -> pa.Schema:
    with shard.opened() as file:
        return pq.read_schema(file)


def _is_nested(kind: pa.DataType) -> bool:
    """Columns that are no value of a modality, such as GeoSound's precomputed spectrograms."""
    return pa.types.is_nested(kind) and not (
        (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
        and not pa.types.is_nested(kind.value_type)
    )


class _Media(Mapping[str, Ranges]):
    """Columns of bytes by name, laid out when they are first asked for."""

    def __init__(self, shards: list[ParquetShard], names: list[str]) -> None:
        self._shards, self._names = shards, names

    def __getitem__(self, name: str) -> Ranges:
        if name not in self._names:
            raise KeyError(name)
        laid = []
        with progress_bar() as bar:
            task = bar.add_task(f"laying out {name}", total=len(self._shards), note="")
            for shard in self._shards:
                laid.append(_lay_out(shard, name))
                bar.advance(task)
        index = pa.concat_tables([table for _, table in laid])
        files = [str(path) for path, _ in laid]
        file = np.repeat(np.arange(len(files)), [len(table) for _, table in laid])
        offset, size = (index[column].to_numpy() for column in ("offset", "size"))
        lengths = [os.path.getsize(path) for path in files]
        return Ranges(files, lengths, file, offset, size, index["name"].combine_chunks())

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _lay_out(shard: ParquetShard, name: str) -> tuple[Path, pa.Table]:
    """The bytes of one column of one Parquet file, one after another, and where each lies."""
    digest = hashlib.blake2b(f"{shard.identity} {name}".encode(), digest_size=16).hexdigest()
    content = cache_folder() / "media" / f"{digest}.bin"
    index = content.with_suffix(".parquet")  # written last: where it is, the bytes are whole
    if index.exists() and content.exists():
        return content, pq.read_table(index)
    with writing(content):
        content.parent.mkdir(parents=True, exist_ok=True)
    with replacing(content) as part, open(part, "wb") as file:
        table = _copy(shard, name, file)
    with replacing(index) as part:
        pq.write_table(table, part)
    return content, table


def _values(shard: ParquetShard, name: str) -> Iterator[bytes | None]:
    with shard.opened() as file:
        for batch in pq.ParquetFile(file).iter_batches(_ROWS_AT_ONCE, columns=[name]):
            yield from embedded_bytes(batch.column(0))


def _copy(shard: ParquetShard, name: str, file: BinaryIO) -> pa.Table:
    sizes: list[int] = []
    names: list[str | None] = []
    for value in _values(shard, name):
        names.append(None if value is None else f"{shard.name}/{len(sizes)}")
        sizes.append(-1 if value is None else len(value))
        file.write(value or b"")
    size = np.array(sizes, np.int64)
    offset = np.cumsum(np.maximum(size, 0)) - np.maximum(size, 0)
    return pa.table({"offset": offset, "size": size, "name": pa.array(names, pa.large_string())})
