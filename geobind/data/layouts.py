"""Which layout a folder has."""

from __future__ import annotations

from pathlib import Path

from geobind.data.published import is_soundingearth, read_soundingearth
from geobind.data.shards import read_shards
from geobind.data.source import Source


def read_layout(folder: Path) -> Source | None:
    """A folder of a published layout as a table: SoundingEarth's, or tar shards; None for plain folders of files."""
    if is_soundingearth(folder):
        return read_soundingearth(folder)
    if next(folder.glob("*.tar"), None) or next(folder.glob("*/*.tar"), None):
        return read_shards(folder)
    return None
