"""What is in a data set on disk: layout, counts, sizes, examples, what is broken or on both sides of a split."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from geobind.console import progress_bar
from geobind.data.columns import Locations, Strings
from geobind.data.duplicates import FLAT, near_duplicates, perceptual_hash
from geobind.data.embedded import HUB
from geobind.data.layouts import read_layout
from geobind.data.pairs import Pairs
from geobind.data.ranges import Ranges
from geobind.data.shards import expand, index_shard, read_shards
from geobind.data.source import Source
from geobind.errors import GeoBindError, GeoBindWarning, MediaError, shorten
from geobind.media.files import opened, unreadable
from geobind.media.http import is_url
from geobind.media.images import image_size
from geobind.media.stored import Stored

_SOUNDS = (b"fLaC", b"OggS", b"ID3", b"FORM")
_OURS = {"__key__", "latitude", "longitude", "split", "place", "datetime"}  # read without being named


@dataclass
class ModalityFacts:
    """One modality: its column, rows that have it, distinct values, bytes of its files, what they are like."""

    name: str
    column: str
    rows: int
    distinct: int
    size: int | None
    like: str
    example: str


@dataclass
class Inspection:
    """What `inspect` found; `geobind.data.inspection_tables` prints it.

    `checked`: rows whose media were decoded; `broken`: what cannot be read, a line each; `told`: what the
    readers warned of (dates that are none, members that are lacking, values on both sides of a split);
    `twins`: near-duplicate tiles across splits as (key, split, key, split); `flat`: tiles too even to tell.
    """

    path: str
    layout: str
    pairs: Pairs
    source: Source | None
    modalities: list[ModalityFacts]
    checked: int
    broken: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    twins: list[tuple[str, str, str, str]] = field(default_factory=list)
    flat: int = 0

    @property
    def recipe(self) -> str:
        """Lines of a recipe that use these pairs."""
        return _recipe(self)


def inspect(path: str | Path, *, rows: int | None = 1000, progress: bool = False) -> Inspection:
    """Look into a table, a folder, tar shards or a URL of one, and decode media of `rows` rows (None: all).

    >>> print(inspect("data/SoundingEarth").recipe)

    Rows are drawn at random, the same in every call. Broken shards are listed and left out. Raises
    GeoBindError where nothing can be read.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", GeoBindWarning)
        broken: list[str] = []
        layout, source, pairs = open_data(str(path), broken)
    told = [str(item.message) for item in caught if item.category is GeoBindWarning]
    chosen = np.arange(len(pairs))
    if rows is not None and rows < len(pairs):
        chosen = np.sort(np.random.default_rng(0).permutation(len(pairs))[:rows])
    found = Inspection(str(path), layout, pairs, source, [], len(chosen), broken, told)
    hashed: dict[int, tuple[int, NDArray[np.float64], float]] = {}
    with progress_bar(disable=not progress) as bar:
        for modality in pairs.modalities:
            task = bar.add_task(f"reading {modality}", total=len(chosen), note="")
            looks, example, keys = Counter[str](), "", pairs.keys(modality)
            for row in map(int, chosen):
                value = pairs[row][modality]
                try:
                    like = look(value)
                    if modality == "satellite" and like is not None and like.startswith("picture"):
                        hashed[row] = perceptual_hash(value)
                except MediaError as error:
                    found.broken.append(f"row {row}, {modality}: {error}")
                    like = None
                if like is not None:
                    looks[like] += 1
                    example = example or _example(value, keys[row])
                bar.advance(task)
            found.modalities.append(_facts(pairs, source, modality, looks, example))
    _compare_tiles(found, hashed)
    return found


def open_data(path: str, broken: list[str] | None = None) -> tuple[str, Source | None, Pairs]:
    """(layout, source, pairs) of a table, a folder of any layout, or tar shards by path, pattern or URL.

    Where a list `broken` is given, shards that cannot be read are named there and left out.
    """
    if path.startswith(HUB):
        raise GeoBindError(
            f"{path} is on the Hub, and looking into it would read all of it: geobind data fetch "
            f"hub:{path.removeprefix(HUB)}, then give the folder"
        )
    folder = Path(path)
    if is_url(path) or path.endswith(".tar") or (folder.is_dir() and any(folder.glob("**/*.tar"))):
        source: Source | None = read_shards(path if broken is None else _readable(path, broken))
    elif folder.is_dir():
        source = read_layout(folder)
    else:
        return "table", None, Pairs.from_table(path)
    if source is None:
        return "folder of files", None, Pairs.from_folder(folder)
    name = folder.resolve().name if folder.is_dir() else "shards"
    return source.layout, source, Pairs.from_source(source, name)


def _readable(path: str, broken: list[str]) -> list[str]:
    good = []
    for name in expand(path):
        try:
            index_shard(name)
            good.append(name)
        except GeoBindError as error:
            broken.append(str(error))
    if not good:
        raise GeoBindError(broken[0])
    return good


def look(value: Any) -> str | None:
    """The kind of a value and what tells of its quality, None where there is none. Raises MediaError."""
    if value is None:
        return None
    if isinstance(value, str):
        return "text"
    if isinstance(value, tuple):
        return "position"
    if isinstance(value, np.ndarray):
        return f"vector of {len(value)}"
    with opened(value, "file") as file:
        head = file.read(12)
        mpeg = head[:1] == b"\xff" and head[1:2] >= b"\xe0"
        if not (head.startswith(_SOUNDS) or head[8:12] == b"WAVE" or mpeg):
            height, width = image_size(value)
            return f"picture {width} x {height}"
        file.seek(0)
        try:
            with soundfile.SoundFile(file) as sound:
                samples = len(sound.read(dtype="float32", always_2d=True))
                channels = {1: "mono", 2: "stereo"}.get(sound.channels, f"{sound.channels} channels")
                long = samples / sound.samplerate
                length = "up to 10 s" if long <= 10 else "10 to 60 s" if long <= 60 else "over 60 s"
                return f"sound {sound.samplerate / 1000:g} kHz {channels}, {length}"
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise unreadable("audio", value, getattr(error, "error_string", error)) from None


def _example(value: Any, key: str) -> str:
    if isinstance(value, Stored):
        return key
    if isinstance(value, tuple):
        return "{:.5f}, {:.5f}".format(*value)
    if isinstance(value, np.ndarray):
        return shorten(value[:4].round(3).tolist(), 50)
    return value.name if isinstance(value, Path) else shorten(value, 60)


def _facts(
    pairs: Pairs, source: Source | None, modality: str, looks: Counter[str], example: str
) -> ModalityFacts:
    column = pairs.column(modality)
    keys = [key for key in pairs.keys(modality).tolist() if key is not None]
    name = modality if source is None else source.columns.get(modality, modality)
    return ModalityFacts(
        modality, name if isinstance(name, str) else ", ".join(name), int(column.present().sum()),
        len(set(keys)), media_bytes(pairs, modality), _summary(looks), example,
    )  # fmt: skip


def _summary(looks: Counter[str]) -> str:
    """`picture 800 x 800 (97 %), ...`: the most frequent kinds."""
    total = sum(looks.values())
    if len(looks) <= 1:
        return next(iter(looks), "nothing readable")
    shown = [f"{look} ({count / total:.0%})" for look, count in looks.most_common(4)]
    return "; ".join(shown) + (f"; {len(looks) - 4} others" if len(looks) > 4 else "")


def media_bytes(pairs: Pairs, modality: str) -> int | None:
    """Bytes of a modality's files; None for what is in memory."""
    column = pairs.column(modality)
    if isinstance(column, Ranges):
        return int(np.maximum(column.size, 0).sum())
    if not isinstance(column, Strings) or column.root is None:
        return None
    paths = [column.root / key for key in column.keys().drop_null().unique().to_pylist()]
    return sum(path.stat().st_size for path in paths if path.exists())


def _compare_tiles(found: Inspection, hashed: dict[int, tuple[int, NDArray[np.float64], float]]) -> None:
    """Near-duplicate tiles among those read, between train and each other split."""
    rows = np.array([row for row, (_, _, contrast) in hashed.items() if contrast >= FLAT], np.int64)
    found.flat = len(hashed) - len(rows)
    if not len(rows):
        return
    hashes = np.array([hashed[row][0] for row in rows], np.uint64)
    colours = np.array([hashed[row][1] for row in rows])
    splits, keys = found.pairs.splits[rows], found.pairs.keys("satellite")[rows]
    train = np.flatnonzero(splits == "train")
    for split in sorted({split for split in splits.tolist() if split not in (None, "train")}):
        for i, j in near_duplicates(hashes, colours, train, np.flatnonzero(splits == split)):
            if keys[i] != keys[j]:
                found.twins.append((keys[i], "train", keys[j], split))


def _recipe(found: Inspection) -> str:
    name, path = re.sub(r"\W+", "_", found.pairs.name).strip("_") or "data", found.path
    key = "table" if found.layout == "table" else "folder" if Path(path).is_dir() else "shards"
    lines = ["pairs:", f"  {name}:", f"    {key}: {path}"]
    if found.source is not None:
        chosen = ", ".join(f"{modality}: {column}" for modality, column in found.source.columns.items())
        lines.append(f"    columns: {{{chosen}}}")
        used = {*found.source.columns.values(), *_OURS}
        others = [
            column for column in (*found.source.media, *found.source.table.column_names) if column not in used
        ]
        lines += [f"    # other columns: {', '.join(others)}"] if others else []
    lines += _stages(name, found.pairs)
    return "\n".join(lines)


def _stages(name: str, pairs: Pairs) -> Sequence[str]:
    learners = [modality for modality in pairs.modalities if modality not in ("satellite", "location")]
    if "satellite" not in pairs.modalities or not learners:
        return []
    lines = ["stages:"]
    for modality in learners:
        learner, target = ("satellite", "image") if modality == "image" else (modality, "satellite")
        lines.append(f"  - {{learner: {learner}, target: {target}, pairs: {name}}}")
    if (pairs.splits == "test").any():
        lines.append("evaluations:")
        lines += [f"  - {{between: [{modality}, satellite], pairs: {name}}}" for modality in learners]
    return lines


def density(pairs: Pairs, width: int = 72, height: int = 24) -> NDArray[np.int64] | None:
    """(height, width) rows by position, north up, from 180 W; None where rows have none."""
    if "location" not in pairs.modalities:
        return None
    column = pairs.column("location")
    assert isinstance(column, Locations)
    latitude, longitude = column.degrees[column.present()].T
    row = np.clip(((90 - latitude) / 180 * height).astype(np.int64), 0, height - 1)
    turn = np.clip(((longitude + 180) / 360 * width).astype(np.int64), 0, width - 1)
    return np.bincount(row * width + turn, minlength=width * height).reshape(height, width)
