"""Parquet files that hold media themselves, as on the Hub: columns of bytes, laid out once to be read by row."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from geobind.console import progress_bar
from geobind.data.columns import embedded_bytes, is_embedded
from geobind.data.ranges import Ranges
from geobind.data.source import Source, first_known, split_of_name, with_places
from geobind.errors import GeoBindError, shorten
from geobind.storage import cache_folder, writing

_ROWS_AT_ONCE = 64  # of media in memory while they are laid out
_COLUMNS = {  # what a modality's column is called, the first that is there
    "satellite": ("satellite", "googleearth_image", "bingmap_image", "sentinel_image"),
    "image": ("image", "img", "jpg", "groundlevel"),
    "audio": ("audio",),
    "text": ("text", "audio_caption", "caption", "txt"),
}
_DATES = ("date_recorded", "date_taken", "timestamp", "date")


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files of a data set's folder: its own, or those in `data/` or in folders by split."""
    return sorted({*folder.glob("*.parquet"), *folder.glob("*/*.parquet")})


def read_parquet_folder(folder: Path) -> Source:
    """A folder of Parquet shards as one table, such as MVRL/SoundingEarth and MVRL/GeoSound from the Hub.

    Files are named by split (`data/train-00000-of-00041.parquet`). Columns of bytes, or of structs {bytes,
    path} as `datasets` writes them, are media: the first time that one is used, its bytes are laid out one
    after another in a file of the cache, of the size of the media, since a row of Parquet itself costs
    reading its whole row group. Rows of one position are one place.

    Raises GeoBindError for a file that is broken or whose columns are not those of the first.
    """
    files = parquet_files(folder)
    where = f"{folder}/*.parquet"
    schemas = [_schema(path) for path in files]
    for path, schema in zip(files, schemas, strict=True):
        if schema.names != schemas[0].names:
            odd = next(iter({*schema.names} ^ {*schemas[0].names}), "their order")
            raise GeoBindError(f"{path} has other columns than {files[0]} ({odd}): put other data elsewhere")
    media = {field.name for field in schemas[0] if is_embedded(field.type)}
    light = [f.name for f in schemas[0] if f.name not in media and not _is_nested(f.type)]
    table = pa.concat_tables([_light_columns(path, light) for path in files], promote_options="permissive")
    table = with_places(table)
    file = np.repeat(np.arange(len(files)), [pq.read_metadata(path).num_rows for path in files])
    splits = [split_of_name(path.relative_to(folder).as_posix()) for path in files]
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
    return Source(table, where, folder, columns, _Media(files, sorted(media)), layout=layout)  # type: ignore[arg-type]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise GeoBindError(
            f"{path} is no whole Parquet file ({shorten(str(error), 100)}): download it again"
        ) from None


def _light_columns(path: Path, names: list[str]) -> pa.Table:
    with _reading(path):
        return pq.read_table(path, columns=names)


def _schema(path: Path) -> pa.Schema:
    with _reading(path):
        return pq.read_schema(path)


def _is_nested(kind: pa.DataType) -> bool:
    """Columns that are no value of a modality, such as GeoSound's precomputed spectrograms."""
    return pa.types.is_nested(kind) and not (
        (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
        and not pa.types.is_nested(kind.value_type)
    )


class _Media(Mapping[str, Ranges]):
    """Columns of bytes by name, laid out when they are first asked for."""

    def __init__(self, files: list[Path], names: list[str]) -> None:
        self._files, self._names = files, names

    def __getitem__(self, name: str) -> Ranges:
        if name not in self._names:
            raise KeyError(name)
        laid = []
        with progress_bar() as bar:
            task = bar.add_task(f"laying out {name}", total=len(self._files), note="")
            for path in self._files:
                laid.append(_lay_out(path, name))
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


def _lay_out(path: Path, name: str) -> tuple[Path, pa.Table]:
    """The bytes of one column of one Parquet file, one after another, and where each lies."""
    status = path.stat()
    identity = f"{path.resolve()} {status.st_size} {status.st_mtime_ns} {name}"
    digest = hashlib.blake2b(identity.encode(), digest_size=16).hexdigest()
    content = cache_folder() / "media" / f"{digest}.bin"
    index = content.with_suffix(".parquet")  # written last: where it is, the bytes are whole
    if index.exists() and content.exists():
        return content, pq.read_table(index)
    with writing(content):
        content.parent.mkdir(parents=True, exist_ok=True)
        part = content.with_name(f"{content.name}.{os.getpid()}.tmp")
        try:
            with open(part, "wb") as file:
                table = _copy(path, name, file)
            os.replace(part, content)
            pq.write_table(table, part)
            os.replace(part, index)
        finally:
            part.unlink(missing_ok=True)
    return content, table


def _values(path: Path, name: str) -> Iterator[bytes | None]:
    with _reading(path):
        for batch in pq.ParquetFile(path).iter_batches(_ROWS_AT_ONCE, columns=[name]):
            yield from embedded_bytes(batch.column(0))


def _copy(path: Path, name: str, file: BinaryIO) -> pa.Table:
    sizes: list[int] = []
    names: list[str | None] = []
    for value in _values(path, name):
        names.append(None if value is None else f"{path.name}/{len(sizes)}")
        sizes.append(-1 if value is None else len(value))
        file.write(value or b"")
    size = np.array(sizes, np.int64)
    offset = np.cumsum(np.maximum(size, 0)) - np.maximum(size, 0)
    return pa.table({"offset": offset, "size": size, "name": pa.array(names, pa.large_string())})
