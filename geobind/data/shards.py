"""Tar shards (WebDataset, Sat2Cap's) as tables of rows: where each member lies, found once."""

from __future__ import annotations

import glob
import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from geobind.console import progress_bar
from geobind.data.ranges import Ranges
from geobind.data.source import Source, first_known, split_of_name, warn
from geobind.errors import GeoBindError, shorten
from geobind.media.http import RangeFile, is_url
from geobind.storage import cache_folder, replacing, writing

MEMBER = pa.struct([("offset", pa.int64()), ("size", pa.int64())])
KEY = "__key__"

_SUFFIXES = {"jpeg": "jpg", "tiff": "tif"}
_TEXTS = ("txt", "text", "caption")
_MEMBERS = {  # what a modality's member is called, the first that is there
    "satellite": ("overhead.jpg", "satellite.jpg", "satellite.png", "satellite.tif", "sat.jpg"),
    "image": ("groundlevel.jpg", "image.jpg", "image.png", "jpg", "png", "webp"),
    "audio": ("audio.flac", "audio.wav", "audio.mp3", "audio.ogg", "flac", "wav", "mp3", "ogg"),
    "text": ("txt", "text", "caption"),
}
_DATES = ("datetime", "date_taken", "date_recorded", "timestamp")
# The shards that Sat2Cap's code tests on, and the one that fills its queue of negatives; the others train.
_SAT2CAP = {
    "9f248448-1d13-43cb-a336-a7d92bc5359e": "test",
    "206faf6d-e5f4-428e-b27c-4a55746d5629": "test",
    "1ae82f9a-5cf7-4430-bb9b-00f41d2bc9c3": "queue",
}


def read_shards(shards: str | Path | Sequence[str | Path]) -> Source:
    """Tar shards as a table: a row a sample, members by the end of their names, fields of its JSON as columns.

    A sample is what shares a name up to its first dot. `x.overhead.jpg` is the column `overhead.jpg`
    (`.jpeg` counts as `.jpg`), read from the tar when its row is; `x.metadata.json` gives the columns of
    its fields, `x.txt` is text. Rows are of the split that their shard or its folder is named by (train,
    val, test), of Sat2Cap's own for its shards. Each shard is read once for its index, kept in the cache.

    shards: a folder, paths or URLs, with {000..127} for numbers. Raises GeoBindError for a shard that is
    cut off, has a member twice or is no tar; warns of samples that lack a member.
    """
    names = expand(shards)
    where = f"shards {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
    tables, lengths = [], []
    with progress_bar() as bar, ThreadPoolExecutor(8) as pool:
        task = bar.add_task("indexing shards", total=len(names), note="")
        for table in pool.map(index_shard, names):
            tables.append(table)
            lengths.append(int(table.schema.metadata[b"length"]))
            bar.advance(task)
    table = pa.concat_tables(tables, promote_options="default").combine_chunks()
    if table.num_rows == 0:
        raise GeoBindError(f"{where}: no samples: expected members such as <key>.overhead.jpg")
    file = np.repeat(np.arange(len(names)), [part.num_rows for part in tables])
    keys = table[KEY].combine_chunks()
    _warn_of_repeated(keys, where)
    shared = os.path.commonprefix(names).rpartition("/")[0]  # noqa: RUF071  cut at a slash
    stems = pa.array([name[len(shared) :].strip("/").removesuffix(".tar") for name in names])
    stems = stems.take(pa.array(file))
    media: dict[str, Ranges] = {}
    for name in [field.name for field in table.schema if field.type == MEMBER]:
        member = table[name].combine_chunks()
        offset, size = (pc.fill_null(part, -1).to_numpy(zero_copy_only=False) for part in member.flatten())
        there = member.is_valid()
        identity = pc.if_else(there, pc.binary_join_element_wise(stems, keys, "/"), None)
        identity = pc.binary_join_element_wise(identity, name, ".").cast(pa.large_string())
        media[name] = Ranges(names, lengths, file, offset, np.where(offset < 0, -1, size), identity)
        table = table.drop_columns([name])
    splits = [_SAT2CAP.get(_stem(shard)) or split_of_name(shard) for shard in names]
    if any(split in ("test", "queue") for split in splits) and _is_sat2cap(media):
        splits = [split or "train" for split in splits]
    if any(splits) and "split" not in table.column_names:
        table = table.append_column("split", pa.array(splits, pa.string()).take(pa.array(file)))
    date = first_known(_DATES, table.column_names)
    if date not in (None, "datetime"):
        table = table.append_column("datetime", table[date])
    known = {*media, *table.column_names}
    columns: dict[str, str | Sequence[str]] = {}
    for modality, options in _MEMBERS.items():
        found = first_known(options, known)
        if found is not None:
            columns[modality] = found
    _warn_of_lacking(media, keys, where)
    return Source(
        table, f"of {where}", Path(), columns, media, layout="Sat2Cap" if _is_sat2cap(media) else "WebDataset"
    )


def _is_sat2cap(media: dict[str, Ranges]) -> bool:
    return {"overhead.jpg", "groundlevel.jpg"} <= media.keys()


def expand(shards: str | Path | Sequence[str | Path]) -> list[str]:
    """Names of shards: a folder's, those of a pattern ({000..127}, *), or the list itself."""
    items = [shards] if isinstance(shards, str | Path) else list(shards)
    names: list[str] = []
    for item in map(str, items):
        for name in _braces(item):
            if is_url(name):
                names.append(name)
            elif os.path.isdir(name):
                names += sorted(str(path) for path in Path(name).rglob("*.tar"))
            else:
                names += sorted(glob.glob(name)) if glob.has_magic(name) else [name]
    if not names:
        raise GeoBindError(f"no shards in {shorten(shards)}: give a folder of .tar files, paths or URLs")
    return names


def _braces(pattern: str) -> Iterator[str]:
    """`a-{08..11}.tar` as a-08.tar to a-11.tar."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if match is None:
        yield pattern
        return
    for number in range(int(match[1]), int(match[2]) + 1):
        middle = f"{number:0{len(match[1])}}"
        yield from _braces(pattern[: match.start()] + middle + pattern[match.end() :])


def _stem(shard: str) -> str:
    return shard.rsplit("/", 1)[-1].removesuffix(".tar")


def index_shard(shard: str) -> pa.Table:
    """One shard's samples: column __key__, a {offset, size} a member, a string a field. From the cache, if there.

    The schema's metadata holds `length`, the bytes of the shard. A local shard is known by its path, size
    and time, a URL by itself. Raises GeoBindError as `read_shards`.
    """
    identity = shard
    if not is_url(shard):
        try:
            status = os.stat(shard)
        except OSError:
            raise GeoBindError(f"shard {shard} does not exist: check the path") from None
        identity = f"{os.path.abspath(shard)} {status.st_size} {status.st_mtime_ns}"
    digest = hashlib.blake2b(identity.encode(), digest_size=16).hexdigest()
    cached = cache_folder() / "shards" / f"{digest}.parquet"
    if cached.exists():
        try:
            return pq.read_table(cached)
        except (OSError, pa.ArrowException):
            pass  # written by a machine that lost power: made again
    table = _index(shard)
    with writing(cached):
        cached.parent.mkdir(parents=True, exist_ok=True)
    with replacing(cached) as temporary:
        pq.write_table(table, temporary)
    return table


@contextmanager
def _opened(shard: str) -> Iterator[tuple[BinaryIO, int]]:
    if is_url(shard):
        remote = RangeFile(shard)
        yield io.BufferedReader(remote, 1 << 18), remote.size
        return
    with open(shard, "rb") as file:
        yield file, os.path.getsize(shard)


def _index(shard: str) -> pa.Table:
    samples: dict[str, dict[str, Any]] = {}
    fields: set[str] = set()
    with _opened(shard) as (file, length):
        for name, offset, size in _members(shard, file, length):
            folder, _, base = name.rpartition("/")
            stem, dot, ending = base.partition(".")
            if not dot or not stem:
                continue
            key = f"{folder}/{stem}" if folder else stem
            *words, suffix = ending.lower().split(".")
            ending = ".".join([*words, _SUFFIXES.get(suffix, suffix)])
            sample = samples.setdefault(key, {})
            if ending in sample:
                raise GeoBindError(
                    f"shard {shard} has the member {name!r} twice (or {key!r} is the key of two samples): "
                    f"write it again with one key a sample"
                )
            if suffix == "json" or ending in _TEXTS:
                file.seek(offset)
                content = _text(shard, name, file.read(size), suffix == "json")
                fields |= content.keys()
                sample |= {ending: None} | content
            else:
                sample[ending] = {"offset": offset, "size": size}
    endings = dict.fromkeys(
        e for sample in samples.values() for e, value in sample.items() if value is not None
    )
    arrays = {
        name: pa.array(
            [sample.get(name) for sample in samples.values()], pa.string() if name in fields else MEMBER
        )
        for name in endings
    }
    table = pa.table({KEY: pa.array(list(samples), pa.string()), **arrays})
    return table.replace_schema_metadata({"length": str(length)})


def _members(shard: str, file: BinaryIO, length: int) -> Iterator[tuple[str, int, int]]:
    """(name, offset, size) of every file of a tar that is whole; a hard link is the file it leads to."""
    end, there = 0, dict[str, tuple[int, int]]()
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # else all of them stay in memory
                # The next header, as a link has no data of its own.
                end = tar.offset
                if end > length:
                    raise tarfile.ReadError
                if member.isfile():
                    there[member.name] = member.offset_data, member.size
                    yield member.name, member.offset_data, member.size
                elif member.islnk() and member.linkname in there:
                    yield member.name, *there[member.linkname]
    except tarfile.TarError as error:
        if end == 0:
            raise GeoBindError(
                f"shard {shard} is no tar archive ({error}): give .tar files, not compressed"
            ) from None
        end = length + 1
    if end + 512 > length:  # a tar ends with blocks of zeros
        raise GeoBindError(
            f"shard {shard} is cut off after {length:,} bytes: download or copy it again, or leave it out"
        )


def _text(shard: str, name: str, content: bytes, as_json: bool) -> dict[str, Any]:
    """The scalar fields of a JSON member as strings, or the one text of a text member."""
    try:
        text = content.decode("utf-8")
        if not as_json:
            return {name.rsplit("/", 1)[-1].partition(".")[2].lower(): text.strip()}
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("no object")
    except ValueError as error:
        raise GeoBindError(
            f"shard {shard}: member {name} is no {'JSON object' if as_json else 'UTF-8'} ({error}): write it again"
        ) from None
    return {key: str(value) for key, value in values.items() if isinstance(value, str | int | float)}


def _warn_of_lacking(media: dict[str, Ranges], keys: pa.Array, where: str) -> None:
    for name, column in media.items():
        lacking = np.flatnonzero(~column.present())
        if len(lacking):
            warn(
                f"{where}: {len(lacking):,} of {len(column):,} samples lack the member {name}, such as "
                f"{keys[int(lacking[0])].as_py()!r}: they are left out where a stage needs it"
            )


def _warn_of_repeated(keys: pa.Array, where: str) -> None:
    counts = pc.value_counts(keys)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        warn(
            f"{where}: {len(repeated):,} keys are in several shards, such as {repeated[0]['values'].as_py()!r}: "
            f"the same samples twice? leave out one of the shards"
        )
