"""The derived side of a gallery: its vectors as one float16 matrix in the cache, made once per version."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geobind.gallery.store import Gallery
from geobind.storage import cache_folder, writing

_COLUMNS = {"embedding": np.float16, "row": np.uint64, "centre_lat": np.float64, "centre_lon": np.float64}


@dataclass(frozen=True, eq=False)
class Matrix:
    """All rows of one version: vectors (n, dim) float16, lance row ids (n,), latitude and longitude (n,); memory-mapped."""

    vectors: NDArray[np.float16]
    rows: NDArray[np.uint64]
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.rows)


def matrix_of(gallery: Gallery) -> Matrix:
    """The matrix of the gallery's newest version, from the cache or made now.

    It is written under the number of the version and takes its name when it is whole; older ones are removed.
    """
    gallery = gallery.snapshot()
    home = cache_folder() / "galleries" / str(gallery.record["id"])
    folder = home / str(gallery.version)
    if not folder.exists():
        with writing(folder):
            _write(gallery, home, folder)
    arrays = {name: _mapped(folder / f"{name}.npy") for name in _COLUMNS}
    return Matrix(arrays["embedding"], arrays["row"], arrays["centre_lat"], arrays["centre_lon"])


def _write(gallery: Gallery, home: Path, folder: Path) -> None:
    temporary = home / f"{folder.name}.{os.getpid()}.tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    count = len(gallery)
    shapes = {name: (count, gallery.dim) if name == "embedding" else (count,) for name in _COLUMNS}
    out = {
        name: np.lib.format.open_memmap(temporary / f"{name}.npy", "w+", dtype, shapes[name])
        for name, dtype in _COLUMNS.items()
    }
    start = 0
    for batch in gallery.batches(["embedding", "centre_lat", "centre_lon"], row_ids=True):
        part = slice(start, start + batch.num_rows)
        out["embedding"][part] = batch["embedding"].flatten().to_numpy().reshape(-1, gallery.dim)
        out["row"][part] = batch["_rowid"].to_numpy()
        for name in ("centre_lat", "centre_lon"):
            out[name][part] = batch[name].to_numpy(zero_copy_only=False)
        start = part.stop
    del out
    try:
        os.replace(temporary, folder)
    except OSError:  # another process was first, with the same content
        shutil.rmtree(temporary, ignore_errors=True)
    for old in home.iterdir():
        if old != folder and not old.name.endswith(".tmp"):
            with suppress(OSError):
                shutil.rmtree(old)


def _mapped(path: Path) -> Any:
    """Copy on write, since torch wants writable arrays; nothing is written. An empty file cannot be mapped."""
    try:
        return np.load(path, mmap_mode="c")
    except ValueError:
        return np.load(path)
