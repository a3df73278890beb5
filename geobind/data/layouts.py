"""Which layout a folder has."""

from __future__ import annotations

from pathlib import Path

from geobind.data.embedded import HUB, read_parquet_folder
from geobind.data.packed import is_pack, read_pack
from geobind.data.published import is_soundingearth, read_soundingearth
from geobind.data.shards import read_shards
from geobind.data.source import Source


def read_layout(folder: str | Path) -> Source | None:
    """A folder (or hf://datasets/owner/name) of a published layout as a table: SoundingEarth's, a pack, tar or Parquet shards; None for plain folders of files."""
    if str(folder).startswith(HUB):
        return read_parquet_folder(folder)
    folder = Path(folder)
    if is_pack(folder):
        return read_pack(folder)
    if is_soundingearth(folder):
        return read_soundingearth(folder)
    if _holds(folder, "*.tar"):
        return read_shards(folder)
    if _holds(folder, "*.parquet"):
        return read_parquet_folder(folder)
    return None


def _holds(folder: Path, pattern: str) -> bool:
    """Are there such files in a folder or right below, and no sub-folders of anything else."""
    if not folder.is_dir():
        return False
    below = [path for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._"]
    inside = [next(path.glob(pattern), None) is not None for path in below]
    return all(inside) and (any(inside) or next(folder.glob(pattern), None) is not None)
