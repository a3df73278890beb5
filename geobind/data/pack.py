"""A data set rewritten once as tar shards of a training size, which later epochs read in a fraction of the time.

A row of `Pairs` is a sample of a shard, in the same order: `000000042.satellite.jpg`, `000000042.audio.flac` and
`000000042.json` with captions, position, time, split, place, group and the keys that its values had. A value that
several rows of a shard share is there once; the others are hard links to it, as tar has them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from geobind.console import progress_bar
from geobind.data.columns import Locations, Strings, Vectors
from geobind.data.inspection import look, media_bytes
from geobind.data.packed import MANIFEST, key_field
from geobind.data.pairs import Pairs
from geobind.data.shards import index_shard
from geobind.errors import GeoBindError, MediaError
from geobind.media.audio import load_audio
from geobind.media.files import opened
from geobind.media.images import image_size, load_image, shrink
from geobind.storage import read_json, replacing, write_text, writing

ROWS = 1000  # of a shard: about 50 MB of tiles, and what a killed job does again
QUALITY = 95
RATE = 48_000  # Hz: CLAP's


@dataclass
class Packed:
    """What `pack` did: rows, bytes of the source's media and of the shards, a line for each unreadable value."""

    rows: int
    before: int
    after: int
    unreadable: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Packing:
    """How modalities are rewritten: pictures to a shorter side in pixels, sounds to a rate in Hz, others as they are."""

    sides: dict[str, int]
    rates: dict[str, int]


def pack(
    pairs: Pairs, out: str | Path, packing: Packing, *, workers: int | None = None, progress: bool = False
) -> Packed:
    """Write the rows of `pairs` as shards into the folder `out`; `Pairs.from_folder(out)` reads the same rows.

    >>> pack(pairs, "packed/tiles", Packing(sides={"satellite": 448}, rates={"audio": 48_000}))

    A picture is made smaller, never larger, and is then a JPEG of quality 95 without chroma subsampling;
    a JPEG that is small enough is kept as it is. A sound becomes mono FLAC of 16 bit. A value that cannot be
    read is listed and left empty, so that rows keep their numbers and training replaces it as before. A shard has
    its name when it is whole: the same call goes on where a killed one stopped. Raises GeoBindError for a
    folder that holds another pack.
    """
    out = Path(out)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    plan = _plan(pairs, packing)
    begun = read_json(out / MANIFEST)
    if begun and begun != plan:
        raise GeoBindError(
            f"{out} holds a pack of other data or another size: choose another folder, or delete it"
        )
    if not begun and next(out.glob("*.tar"), None) is not None:
        raise GeoBindError(f"{out} holds shards that are no pack: choose another folder")
    write_text(out / MANIFEST, json.dumps(plan, indent=2) + "\n")
    shards = _Shards(pairs, out, packing, plan)
    missing = [number for number in range(len(shards)) if not shards.path(number).exists()]
    with progress_bar(disable=not progress) as bar:
        task = bar.add_task(f"packing {pairs.name}", total=len(pairs), note="")
        bar.advance(task, len(pairs) - sum(len(shards.rows(number)) for number in missing))
        for number, failed in DataLoader(
            shards,
            batch_size=None,
            sampler=missing,
            num_workers=min((os.cpu_count() or 1) if workers is None else workers, len(missing)),
        ):
            if failed is not None:
                raise GeoBindError(failed)
            bar.advance(task, len(shards.rows(number)))
    return _packed(pairs, shards)


# --- what becomes of a value -------------------------------------------------------------------------------


def packed_picture(value: Any, side: int) -> bytes:
    """A picture whose shorter side is `side` at most, as a JPEG file; one that needs no change is returned as it is.

    Raises MediaError for one that cannot be read.
    """
    if min(image_size(value)) <= side:
        content = _content(value, "image")
        if content.startswith(b"\xff\xd8"):
            load_image(value)  # raises, where only its header is right
            return content
    pixels = load_image(value, target=side)
    if min(pixels.shape[:2]) > side:
        pixels = shrink(pixels, side)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY, subsampling=0)
    return file.getvalue()


def packed_sound(value: Any, rate: int) -> bytes:
    """A sound as a FLAC file: mono, 16 bit, `rate` Hz; peaks beyond full scale are cut. Raises MediaError."""
    samples = load_audio(value, rate)
    file = io.BytesIO()
    soundfile.write(file, samples.clip(-1, 1), rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def packing_of(pairs: Pairs, sides: Mapping[str, int], side: int | None) -> Packing:
    """How to pack without a recipe: pictures to `sides`, else to `side`; sounds to 48 kHz; told by their first value.

    Raises GeoBindError for a modality that the pairs lack, or that holds no pictures.
    """
    for modality in sides:
        pairs.column(modality)
    packing = Packing(dict(sides), {})
    for modality in pairs.modalities:
        kind = _kind(pairs, modality)
        if kind == "sound":
            packing.rates[modality] = RATE
        elif kind == "picture" and side is not None:
            packing.sides.setdefault(modality, side)
        if modality in packing.sides and kind != "picture":
            raise GeoBindError(f"a size for {modality!r}, which holds no pictures but {kind}: leave it out")
    return packing


def _kind(pairs: Pairs, modality: str) -> str:
    """The first word of what the first readable value is like: picture, sound, text, vector, position, nothing."""
    for row in np.flatnonzero(pairs.column(modality).present())[:100].tolist():
        try:
            return (look(pairs[row][modality]) or "nothing").split()[0]
        except MediaError:
            continue
    return "nothing"


def _content(value: Any, noun: str) -> bytes:
    with opened(value, noun) as file:
        return file.read()


# --- shards ------------------------------------------------------------------------------------------------


def _plan(pairs: Pairs, packing: Packing) -> dict[str, Any]:
    """What a pack holds: by it a folder is read, and a pack that was cut off is known again."""
    members: dict[str, str] = {}
    columns: dict[str, str | list[str]] = {}
    for modality in pairs.modalities:
        column = pairs.column(modality)
        if isinstance(column, Locations):
            continue
        if isinstance(column, Vectors) and column.names is None:
            width = column.matrix.shape[1]
            columns[modality] = [f"{modality}.{number}" for number in range(width)]
        elif isinstance(column, Strings) and column.root is None:
            columns[modality] = modality
        elif not isinstance(column, Vectors):  # whose feature file is named again: its keys are kept
            members[modality] = f"{modality.lower()}.{_suffix(pairs, modality, packing)}"
    return {
        "rows": len(pairs), "members": members, "columns": columns,
        "sides": dict(packing.sides), "rates": dict(packing.rates), "source": _identity(pairs),
    }  # fmt: skip


def _identity(pairs: Pairs) -> str:
    """Digest of the keys of all rows."""
    digest = hashlib.blake2b(digest_size=16)
    for modality in pairs.modalities:
        digest.update(repr((modality, pairs.column(modality).keys().to_pylist())).encode())
    return digest.hexdigest()


def _suffix(pairs: Pairs, modality: str, packing: Packing) -> str:
    if modality in packing.sides:
        return "jpg"
    if modality in packing.rates:
        return "flac"
    first = next((key for key in pairs.keys(modality) if key is not None), "")
    suffix = Path(first).suffix.lower().lstrip(".")
    return {"jpeg": "jpg", "tiff": "tif"}.get(suffix, suffix) or "bin"


class _Shards(Dataset[tuple[int, str | None]]):
    """The shards by number: item `i` writes shard `i` and is its number and what went wrong."""

    def __init__(self, pairs: Pairs, out: Path, packing: Packing, plan: Mapping[str, Any]) -> None:
        self.pairs, self.out, self.packing = pairs, out, packing
        self.members, self.columns = plan["members"], plan["columns"]
        self.keys = {modality: pairs.keys(modality) for modality in pairs.modalities}
        self.splits, self.groups = pairs.splits, pairs.groups

    def __len__(self) -> int:
        return -(-len(self.pairs) // ROWS)

    def path(self, number: int) -> Path:
        return self.out / f"{number:06}.tar"

    def rows(self, number: int) -> range:
        return range(number * ROWS, min((number + 1) * ROWS, len(self.pairs)))

    def __getitem__(self, number: int) -> tuple[int, str | None]:
        try:
            with replacing(self.path(number)) as temporary, tarfile.open(temporary, "w") as tar:
                there: dict[tuple[str, str], tuple[str, str | None]] = {}
                for row in self.rows(number):
                    self._write(tar, row, there)
        except GeoBindError as error:  # a worker's own exception would come as a page of traceback
            return number, str(error)
        return number, None

    def _write(
        self, tar: tarfile.TarFile, row: int, there: dict[tuple[str, str], tuple[str, str | None]]
    ) -> None:
        """One sample; `there` holds the members of the shard by modality and key."""
        values, stem, unreadable = self.pairs[row], f"{row:09}", []
        for modality, member in self.members.items():
            key = self.keys[modality][row]
            if key is None:
                continue
            name = f"{stem}.{member}"
            if (modality, key) in there:
                first, failure = there[modality, key]
                link = tarfile.TarInfo(name)
                link.type, link.linkname = tarfile.LNKTYPE, first
                tar.addfile(link)
            else:
                failure, content = None, b""
                try:
                    content = self._packed(modality, values[modality])
                except MediaError as error:
                    failure = str(error)
                _add(tar, name, content)
                there[modality, key] = name, failure
            if failure is not None:
                unreadable.append(failure)
        _add(
            tar,
            f"{stem}.json",
            json.dumps(self._fields(row, values, unreadable), ensure_ascii=False).encode(),
        )

    def _packed(self, modality: str, value: Any) -> bytes:
        if modality in self.packing.sides:
            return packed_picture(value, self.packing.sides[modality])
        if modality in self.packing.rates:
            return packed_sound(value, self.packing.rates[modality])
        return _content(value, modality)

    def _fields(self, row: int, values: Mapping[str, Any], unreadable: Sequence[str]) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "split": self.splits[row], "group": self.groups[row], "place": int(self.pairs.places[row]),
            "latitude": values.get("latitude"), "longitude": values.get("longitude"),
            "unreadable": "; ".join(unreadable) or None,
        }  # fmt: skip
        if values.get("datetime") is not None:
            fields["datetime"] = values["datetime"].isoformat()
        for modality in self.pairs.modalities:
            value, key = values[modality], self.keys[modality][row]
            if modality in self.members:
                fields[key_field(modality)] = key
            elif isinstance(value, np.ndarray) and modality in self.columns:
                fields |= {f"{modality}.{number}": float(part) for number, part in enumerate(value)}
            elif modality != "location":
                fields[modality] = key
        return {name: value for name, value in fields.items() if value is not None}


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _packed(pairs: Pairs, shards: _Shards) -> Packed:
    """Sizes and what was unreadable, from the shards themselves, so that a call that went on tells of all."""
    paths = [shards.path(number) for number in range(len(shards))]
    tables = [index_shard(str(path)) for path in paths]
    failed = [
        message
        for table in tables
        for message in (
            table["unreadable"].to_pylist() if "unreadable" in table.column_names else [None] * len(table)
        )
    ]
    return Packed(
        len(pairs),
        sum(media_bytes(pairs, modality) or 0 for modality in shards.members),
        sum(path.stat().st_size for path in paths),
        [f"row {row}: {message}" for row, message in enumerate(failed) if message is not None],
    )
