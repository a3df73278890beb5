"""Folders of files as columns: named by position, or in sub-folders by modality with equal stems."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from geobind.data.columns import RawColumns
from geobind.errors import GeoBindError, GeoBindWarning, shorten

_SPLITS = {"train", "val", "valid", "validation", "test"}
_IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".npy"}
_POSITION = re.compile(r"(?:.*_)?(-?\d+(?:\.\d+)?)_(-?\d+(?:\.\d+)?)")


def read_folder(folder: Path, split: str | None = None) -> RawColumns:
    """Columns of a folder; paths are relative to it. Raises GeoBindError for a layout that is neither."""
    if not folder.is_dir():
        raise GeoBindError(f"folder {folder} does not exist")
    names = _folders(folder)
    parts: list[tuple[str | None, Path]] = [(split, folder)]
    if names and _SPLITS.issuperset(names):
        if split is not None:
            raise GeoBindError(
                f"folder {folder} has split folders ({', '.join(names)}): leave out split={split!r}"
            )
        parts = [(name, folder / name) for name in names]
    rows: list[tuple[str | None, str, dict[str, Any]]] = []
    left_out: list[str] = []
    for split, part in parts:
        read = _by_modality if _folders(part) else _by_position
        rows.extend((split, place, row) for place, row in read(part, folder, left_out))
    if not rows:
        example = f", such as {shorten(left_out[0])}" if left_out else ""
        raise GeoBindError(
            f"folder {folder} has no pairs ({len(left_out)} files do not fit{example}); expected <lat>_<lon>.jpg, "
            f"or sub-folders by modality (satellite/, audio/, ...) with equal stems"
        )
    if left_out:
        warnings.warn(
            f"folder {folder}: {len(left_out)} files left out, such as {shorten(left_out[0])}: no other modality "
            f"has their stem, or their name is no position",
            GeoBindWarning,
            stacklevel=3,
        )
    modalities = dict.fromkeys(modality for _, _, row in rows for modality in row)
    return RawColumns(
        {modality: [row.get(modality) for _, _, row in rows] for modality in modalities},
        split=None if parts[0][0] is None else [split for split, _, _ in rows],
        place=[place for _, place, _ in rows],
    )


def _by_position(part: Path, root: Path, left_out: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """`<lat>_<lon>.<ext>`, `<id>_<lat>_<lon>.<ext>`: satellite and location; one position is one place."""
    for path in _files(part):
        position = _POSITION.fullmatch(path.stem)
        relative = path.relative_to(root).as_posix()
        if position is None or path.suffix.lower() not in _IMAGES:
            left_out.append(relative)
            continue
        location = (float(position[1]), float(position[2]))
        if not _on_globe(location):
            raise GeoBindError(
                f"{path}: latitude {location[0]:g} or longitude {location[1]:g} is outside -90 to 90, -180 to 180 "
                f"degrees: the name must be <lat>_<lon>"
            )
        yield f"{location}", {"satellite": relative, "location": location}


def _by_modality(part: Path, root: Path, left_out: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """One row a stem that at least two modality folders have; several captions make several rows."""
    modalities = _folders(part)
    if len(modalities) < 2:
        raise GeoBindError(
            f"folder {part} has the one sub-folder {modalities[0]!r}: pairs need two modalities with equal stems"
        )
    stems: dict[str, dict[str, Path]] = {}
    for modality in modalities:
        for path in _files(part / modality):
            if modality == "text" and path.suffix.lower() != ".txt":
                left_out.append(path.relative_to(root).as_posix())
                continue
            stem = path.relative_to(part / modality).with_suffix("").as_posix()
            known = stems.setdefault(stem, {}).setdefault(modality, path)
            if known != path:
                raise GeoBindError(
                    f"{known} and {path.name} have one stem: keep one file for each place and modality"
                )
    for stem, found in sorted(stems.items()):
        if len(found) < 2:
            left_out.extend(path.relative_to(root).as_posix() for path in found.values())
            continue
        row: dict[str, Any] = {
            modality: path.relative_to(root).as_posix()
            for modality, path in found.items()
            if modality != "text"
        }
        position = _POSITION.fullmatch(Path(stem).name)
        # A stem such as tile_01_02 is no position: here only decimals tell.
        if position is not None and "." in position[1] and "." in position[2]:
            location = (float(position[1]), float(position[2]))
            if _on_globe(location):
                row["location"] = location
        place = (part / stem).relative_to(root).as_posix()
        for caption in _captions(found["text"]) if "text" in found else [None]:
            yield place, row if caption is None else {**row, "text": caption}


def _on_globe(location: tuple[float, float]) -> bool:
    return abs(location[0]) <= 90 and abs(location[1]) <= 180


def _captions(path: Path) -> list[str | None]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise GeoBindError(
            f"captions {path} cannot be read ({error}): expected UTF-8, one caption a line"
        ) from None
    return [line.strip() for line in lines if line.strip()] or [None]


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] not in "._")


def _files(folder: Path) -> Iterator[Path]:
    """All files below, hidden ones apart, in the order of their names."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] not in "._")
        for name in sorted(names):
            if name[0] not in "._":
                yield Path(parent, name)
