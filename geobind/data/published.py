"""Published data sets that are folders with a table: SoundingEarth, as on Zenodo and as GeoCLAP arranges it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from geobind.data.columns import strings
from geobind.data.source import Source, warn
from geobind.data.table import column, numbers, read_table
from geobind.errors import GeoBindError

_IMAGES = {"googleearth": ("images/googleEarth", "images"), "sentinel": ("images/sentinel_geoclap",)}
_GEOCLAP = {"train": "train_df.csv", "val": "validate_df.csv", "test": "test_df.csv"}
_BY_LAST_DIGIT = {7: "val", 2: "test", 5: "test"}  # of the key (Heidler et al.)


def is_soundingearth(folder: Path) -> bool:
    """Does a folder hold SoundingEarth's table and images."""
    return _table(folder) is not None and (folder / "images").is_dir()


def _table(folder: Path) -> Path | None:
    names = ("final_metadata_with_captions.csv", "metadata.csv")
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_soundingearth(folder: Path) -> Source:
    """SoundingEarth (Zenodo 5600379): metadata.csv, images/<key>.jpg, raw_audio/<long_key>/<name>.mp3.

    Columns `googleearth` and `sentinel` are tiles (`.jpg` or `.jpeg`, whichever is there), `audio` the clip,
    `description` (and GeoCLAP's `caption`) text. The split is GeoCLAP's where its train_df.csv, validate_df.csv
    and test_df.csv are there (column `split_geoclap`; clips under 16 kHz are in none), else by the last
    digit of the key: 7 is val, 2 and 5 are test (`split_by_key`). Recordings at one position are one place.
    Clips of corrupt_ids_final.csv are left out.

    Raises GeoBindError for a table without those columns; warns of files that are not there.
    """
    path = _table(folder)
    if path is None:
        raise GeoBindError(f"folder {folder} has no metadata.csv: that is SoundingEarth's table")
    where = str(path)
    table = read_table(path)
    keys = strings(column(table, "key", where, "SoundingEarth's id"))
    long_keys = strings(column(table, "long_key", where, "SoundingEarth's id of a recording"))
    columns: dict[str, str | Sequence[str]] = {}
    for name, folders in _IMAGES.items():
        images = next((folder / part for part in folders if (folder / part).is_dir()), None)
        if images is not None:
            files = _by_stem(images)
            found = [files.get(key) for key in keys.to_pylist()]
            if any(found):
                prefix = images.relative_to(folder).as_posix()
                values = [name and f"{prefix}/{name}" for name in found]
                table = _with(table, name, pa.array(values, pa.string()))
                columns.setdefault("satellite", name)
                _warn_of_absent(where, name, keys, values)
    if (folder / "raw_audio").is_dir():
        names = strings(column(table, "mp3name", where, "the clip's file")).to_pylist()
        clips = _clips(folder, long_keys.to_pylist(), names)
        _warn_of_absent(where, "clip", long_keys, clips)
        table = _with(table, "audio", _without_corrupt(folder, long_keys, pa.array(clips, pa.string())))
        columns["audio"] = "audio"
    columns["text"] = "caption" if "caption" in table.column_names else "description"
    table = _with(table, "split_by_key", pa.array(_split_by_key(keys, where), pa.string()))
    chosen = "split_by_key"
    if all((folder / name).is_file() for name in _GEOCLAP.values()):
        chosen = "split_geoclap"
        table = _with(table, chosen, pa.array(_split_of_files(folder, long_keys), pa.string()))
    table = _with(table, "split", table[chosen])
    if "date_recorded" in table.column_names:
        table = _with(table, "datetime", table["date_recorded"])
    notes = [f"split: {chosen}" + ("; split_by_key is there too" if chosen != "split_by_key" else "")]
    if "audio" not in columns:
        notes.append("no raw_audio folder: the recordings are on archive.org (column mp3file)")
    layout = "SoundingEarth (GeoCLAP)" if "split_geoclap" in table.column_names else "SoundingEarth (Zenodo)"
    return Source(table, where, folder, columns, layout=layout, notes=notes)


def _with(table: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, values)
    return table.append_column(name, values)


def _by_stem(folder: Path) -> Mapping[str, str]:
    with os.scandir(folder) as entries:
        return {entry.name.rpartition(".")[0]: entry.name for entry in entries if entry.is_file()}


def _clips(folder: Path, long_keys: list[str | None], names: list[str | None]) -> list[str | None]:
    """The path of each clip: under its name, or the one file of its folder."""
    found: dict[str, list[str]] = {}
    for parent, _, files in os.walk(folder / "raw_audio"):
        found[os.path.basename(parent)] = sorted(name for name in files if name[0] != ".")
    clips: list[str | None] = []
    for key, name in zip(long_keys, names, strict=True):
        files = found.get(key or "", [])
        chosen = name if name in files else files[0] if len(files) == 1 else None
        clips.append(chosen and f"raw_audio/{key}/{chosen}")
    return clips


def _without_corrupt(folder: Path, long_keys: pa.Array, clips: pa.Array) -> pa.Array:
    path = folder / "corrupt_ids_final.csv"
    if not path.is_file():
        return clips
    corrupt = strings(read_table(path).column(0))
    return pc.if_else(pc.is_in(long_keys, value_set=corrupt), None, clips)


def _split_by_key(keys: pa.Array, where: str) -> list[str | None]:
    values = numbers(keys, f"table {where}, column 'key'").to_pylist()
    return [None if key is None else _BY_LAST_DIGIT.get(int(key) % 10, "train") for key in values]


def _split_of_files(folder: Path, long_keys: pa.Array) -> list[str | None]:
    split_of: dict[str, str] = {}
    for split, name in _GEOCLAP.items():
        path = folder / name
        listed = column(read_table(path), "long_key", str(path), "SoundingEarth's id of a recording")
        split_of |= dict.fromkeys(strings(listed).to_pylist(), split)
    return [split_of.get(key) for key in long_keys.to_pylist()]


def _warn_of_absent(where: str, what: str, keys: pa.Array, values: Sequence[str | None]) -> None:
    absent = [row for row, value in enumerate(values) if value is None]
    if absent:
        warn(
            f"table {where}: the {what} of {len(absent):,} of {len(values):,} rows is not there, such as of "
            f"{keys[absent[0]].as_py()!r}: those rows lack it"
        )
