"""The derived side of a gallery: its vectors as float16 segments in the cache, of which only what is new is written."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geobind.errors import GeoBindError
from geobind.gallery.store import Gallery
from geobind.storage import cache_folder, write_text, writing

_COLUMNS = {"embedding": np.float16, "row": np.uint64, "centre_lat": np.float64, "centre_lon": np.float64}
ROUNDING = 2.0**-10
# Below this share of rows, those asked for are gathered and compared; above, all are and the rest is left out.
_GATHER = 0.25
_ATTEMPTS = 10
_A_DAY = 86_400  # in seconds: what is half written after that was left by a killed process


@dataclass(frozen=True, eq=False)
class Matrix:
    """All rows of one version in the table's order: vectors (n, dim) float16 as `segments` that follow each other,
    memory-mapped; lance row ids (n,), latitude and longitude (n,)."""

    segments: Sequence[NDArray[np.float16]]
    rows: NDArray[np.uint64]
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(segments + 1,): the position of each one's first row, and in the end the number of rows."""
        return np.cumsum([0, *map(len, self.segments)])

    def take(self, positions: NDArray[np.intp]) -> NDArray[np.float16]:
        """Vectors (m, dim) of ascending positions."""
        cuts = np.searchsorted(positions, self.starts)
        parts = zip(self.segments, self.starts, cuts, cuts[1:], strict=False)
        return np.concatenate([segment[positions[a:b] - start] for segment, start, a, b in parts])

    def cosines(
        self, vectors: NDArray[np.floating], positions: NDArray[np.intp] | None = None
    ) -> NDArray[np.float32]:
        """(m, rows): of unit vectors (m, dim) and all rows, or those at ascending positions; rounded to float16.

        The error is at most `ROUNDING` for vectors of unit length.
        """
        segments = self.segments
        if positions is not None and len(positions) < _GATHER * len(self):
            segments, positions = [self.take(positions)], None
        found = torch.empty(len(vectors), sum(map(len, segments)), dtype=torch.float16)
        # One by one: of float16, torch's product of two matrices is many times slower than that with a vector.
        for vector, row in zip(torch.from_numpy(np.asarray(vectors, np.float16)), found, strict=True):
            start = 0
            for segment in segments:
                torch.mv(torch.from_numpy(segment), vector, out=row[start : start + len(segment)])
                start += len(segment)
        rounded = found.float().numpy()
        return rounded if positions is None else rounded[:, positions]

    def nearest(
        self, vector: NDArray[np.float32], k: int, positions: NDArray[np.intp] | None = None
    ) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Positions and cosines of the k rows nearest to a unit vector (dim,), best first, ties in the table's order.

        The cosines are of the rows as float16, without further rounding: within 1e-4 of those of the table.
        """
        rough = self.cosines(vector[None], positions)[0]
        k = min(k, len(rough))
        if k == 0:
            return np.zeros(0, np.intp), np.zeros(0, np.float32)
        near = np.flatnonzero(rough >= kth(rough, k) - 2 * ROUNDING)
        if positions is not None:
            near = positions[near]
        cosines = self.take(near).astype(np.float32) @ vector
        best = np.argsort(-cosines, kind="stable")[:k]
        return near[best], cosines[best]


def kth(scores: NDArray[np.float32], k: int) -> float:
    """The k-th largest."""
    return float(torch.topk(torch.from_numpy(scores), k).values[-1])


def matrix_of(gallery: Gallery) -> Matrix:
    """The matrix of the gallery's newest version, from the cache, or made from what the cache has of older ones.

    A segment is a folder of consecutive rows, never changed once it has its name; a version is a file that
    names its segments. Lance never gives one row id to two contents, so the segments whose row ids a new
    version begins with are kept and the rest is written as one more. Those of less than twice its size
    are written again with it: there are at most about log2(n). Deleting, and `optimize`, which moves rows, end
    what is kept. Several processes may do this at once, and be killed at any moment.
    """
    snapshot = gallery.snapshot()
    home = cache_folder() / "galleries" / str(snapshot.record["id"])
    file = home / f"{snapshot.version}.json"
    for _ in range(_ATTEMPTS):
        if not file.exists():
            with writing(home):
                home.mkdir(parents=True, exist_ok=True)
                _extend(snapshot, home, file)
        with suppress(FileNotFoundError):
            return _read(file)
        file.unlink(missing_ok=True)  # another process had no use for one of its segments
    raise GeoBindError(f"other searches keep changing {home}: search again")


@lru_cache(2)  # what is mapped stays mapped: to map it again costs as much as to compare it
def _read(file: Path) -> Matrix:
    segments = [_columns(file.parent / name) for name in json.loads(file.read_text(encoding="utf-8"))]
    joined = {
        name: _joined([columns[name] for columns in segments], kind) for name, kind in _COLUMNS.items() if name != "embedding"
    }  # fmt: skip
    vectors = [columns["embedding"] for columns in segments]
    return Matrix(vectors, joined["row"], joined["centre_lat"], joined["centre_lon"])


def _extend(gallery: Gallery, home: Path, file: Path) -> None:
    """Write the version's file, and before it the segment that is missing."""
    batches = gallery.batches(["modality"], row_ids=True)
    ids = _joined([batch["_rowid"].to_numpy() for batch in batches], np.uint64)
    kept, ends = [], [0]
    for name in _newest(home):
        try:
            have = _columns(home / name)["row"]
        except FileNotFoundError:
            break
        if not np.array_equal(ids[ends[-1] : ends[-1] + len(have)], have):
            break
        kept.append(name)
        ends.append(ends[-1] + len(have))
    while kept and ends[-1] - ends[-2] < 2 * (len(ids) - ends[-1]):
        kept.pop()
        ends.pop()
    if ends[-1] < len(ids):
        kept.append(f"{gallery.version}-{ends[-1]}")
        _write(gallery, ids[ends[-1] :], ends[-1], home / kept[-1])
    write_text(file, json.dumps(kept))
    _remove_older(gallery.version, home)


def _write(gallery: Gallery, ids: NDArray[np.uint64], start: int, folder: Path) -> None:
    """The rows from `start` on as a segment, which takes its name when it is whole."""
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir(exist_ok=True)
    shapes = {name: (len(ids), gallery.dim) if name == "embedding" else (len(ids),) for name in _COLUMNS}
    out = {
        name: np.lib.format.open_memmap(temporary / f"{name}.npy", "w+", kind, shapes[name])
        for name, kind in _COLUMNS.items()
    }
    out["row"][:] = ids
    done = 0
    for batch in gallery.batches(["embedding", "centre_lat", "centre_lon"], offset=start):
        part = slice(done, done + batch.num_rows)
        out["embedding"][part] = batch["embedding"].flatten().to_numpy().reshape(-1, gallery.dim)
        for name in ("centre_lat", "centre_lon"):
            out[name][part] = batch[name].to_numpy(zero_copy_only=False)
        done = part.stop
    for array in out.values():
        array.flush()
    del out
    try:
        os.replace(temporary, folder)
    except OSError:  # another process was first, with the same content
        shutil.rmtree(temporary, ignore_errors=True)


def _newest(home: Path) -> list[str]:
    """The segments of the newest version in the cache."""
    versions = _versions(home)
    try:
        return json.loads(versions[max(versions)].read_text(encoding="utf-8")) if versions else []
    except FileNotFoundError:
        return []


def _versions(home: Path) -> dict[int, Path]:
    return {int(path.stem): path for path in home.glob("*.json")}


def _remove_older(version: int, home: Path) -> None:
    """Remove versions before this one, and segments that no remaining one names."""
    with suppress(OSError):  # whoever still maps a file keeps it, or its name
        needed: set[str] = set()
        for other, path in _versions(home).items():
            if other < version:
                path.unlink()
            else:
                needed.update(json.loads(path.read_text(encoding="utf-8")))
        for folder in home.iterdir():
            being_written = folder.suffix == ".tmp" and time.time() - folder.stat().st_mtime < _A_DAY
            if folder.is_dir() and folder.name not in needed and not being_written:
                shutil.rmtree(folder)


def _columns(folder: Path) -> dict[str, Any]:
    """Mapped copy on write, since torch wants writable arrays; nothing is written."""
    return {name: np.load(folder / f"{name}.npy", mmap_mode="c") for name in _COLUMNS}


def _joined(arrays: Sequence[NDArray[Any]], kind: Any) -> NDArray[Any]:
    return np.concatenate(arrays) if len(arrays) > 1 else arrays[0] if arrays else np.zeros(0, kind)
