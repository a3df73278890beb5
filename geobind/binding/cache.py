"""Embeddings of frozen towers, computed once and kept in memory-mapped files.

A frozen side with the fixed transform never changes, so a stage embeds it once and then decodes and
runs its learners only. Entries are kept under the tower's fingerprint (which covers the processor's
settings) and the digest of the value, so two captions of one place do not collide.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geobind.data.pairs import Pairs
from geobind.errors import GeoBindError
from geobind.media.stored import Stored
from geobind.space import GeoBind, warn_unreadable
from geobind.storage import cache_folder
from geobind.towers.base import Row

DIGEST = 16  # bytes of a key


def value_digest(row: Row, columns: Sequence[str]) -> bytes:
    """What identifies the values that a processor reads of a row; a file by path, size and time."""
    digest = hashlib.blake2b(digest_size=DIGEST)
    for column in columns:
        digest.update(column.encode() + b"\0" + _content(row.get(column)) + b"\0")
    return digest.digest()


def _content(value: Any) -> bytes:
    if isinstance(value, Path):
        try:
            status = value.stat()
        except OSError:  # reading it will give the message
            return str(value).encode()
        return f"{value.resolve()} {status.st_size} {status.st_mtime_ns}".encode()
    if isinstance(value, Stored):
        return value.identity().encode()
    if isinstance(value, bytes):
        return value
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}".encode() + np.ascontiguousarray(value).tobytes()
    return repr(value).encode()


def target_folder(space: GeoBind, modality: str, folder: Path | None = None) -> Path:
    """Where the embeddings of a tower are kept, in the cache `folder` or the user's."""
    return (folder or cache_folder()) / "targets" / f"{modality}-{space.fingerprint(modality)}"


def read_digests(folder: Path, dim: int) -> list[bytes]:
    """Digests of the values whose embeddings (dim,) a folder holds, in their order; nothing is written."""
    keys, vectors = folder / "keys", folder / "vectors"
    if not (keys.exists() and vectors.exists()):
        return []
    count = min(keys.stat().st_size // DIGEST, vectors.stat().st_size // (4 * dim))
    data = keys.read_bytes()
    return [data[i * DIGEST : (i + 1) * DIGEST] for i in range(count)]


class TargetCache:
    """Append-only store of one frozen tower's embeddings: `keys` (16 bytes each) and `vectors` (float32).

    Vectors are written before keys and both are cut to the shorter on opening, so that a killed run
    loses at most its last block and never reads a wrong row.
    """

    def __init__(self, folder: Path, dim: int) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name in ("keys", "vectors"):
                (folder / name).touch()
        except OSError as error:
            raise GeoBindError(
                f"cannot write the target cache in {folder} ({error.strerror}): set GEOBIND_CACHE"
            ) from None
        self.folder, self.dim = folder, dim
        digests = read_digests(folder, dim)
        self._row = {digest: row for row, digest in enumerate(digests)}
        self._count = len(digests)
        os.truncate(folder / "keys", self._count * DIGEST)
        os.truncate(folder / "vectors", self._count * 4 * dim)

    def __len__(self) -> int:
        return self._count

    def find(self, digests: Sequence[bytes]) -> np.ndarray:
        """Row of each digest, -1 where it is missing: (n,) int64."""
        return np.fromiter(
            (self._row.get(digest, -1) for digest in digests), dtype=np.int64, count=len(digests)
        )

    def append(self, digests: Sequence[bytes], vectors: np.ndarray) -> None:
        """Add rows; a full disk is a GeoBindError and leaves what was there."""
        try:
            for name, data in (
                ("vectors", np.ascontiguousarray(vectors, np.float32).tobytes()),
                ("keys", b"".join(digests)),
            ):
                with open(self.folder / name, "ab") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise GeoBindError(
                f"cannot write the target cache in {self.folder} ({error.strerror}): free space or set GEOBIND_CACHE"
            ) from None
        for digest in digests:
            self._row[digest] = self._count
            self._count += 1

    def append_all(self, parts: Sequence[tuple[Sequence[bytes], np.ndarray]]) -> None:
        """`append` of several parts as one; nothing for none."""
        if parts:
            self.append(
                [digest for part, _ in parts for digest in part], np.concatenate([v for _, v in parts])
            )

    @property
    def vectors(self) -> np.ndarray:
        """(rows, dim) float32, memory-mapped, read-only."""
        if not self._count:
            return np.zeros((0, self.dim), np.float32)
        return np.memmap(self.folder / "vectors", np.float32, "r", shape=(self._count, self.dim))


class Targets:
    """The cached embeddings of one frozen modality for the rows of a stage.

    `rows` maps a row of the pairs to a row of `cache.vectors`; -1 where the value could not be read.
    """

    def __init__(self, cache: TargetCache, rows: np.ndarray) -> None:
        self.rows = rows
        self._vectors = cache.vectors

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Embeddings of rows of the pairs: (len(rows), dim) float32."""
        return np.asarray(self._vectors[self.rows[rows]])

    @property
    def readable(self) -> np.ndarray:
        return self.rows >= 0


def cache_targets(
    space: GeoBind, modality: str, rows: Sequence[Row], *, folder: Path | None = None, block: int = 4096,
    strict: bool = False, write: bool = True, **embedding: Any,
) -> Targets:  # fmt: skip
    """Embed the values of a frozen modality that the cache does not hold yet, block by block.

    Unreadable values are left out (row -1) with a warning, or raise MediaError when `strict`.
    `write` is false on every process but one: those read what the first has written.
    """
    columns = space.tower(modality).processor.columns
    cache = TargetCache(target_folder(space, modality, folder), space.dim)
    digests = [value_digest(rows[i], columns) for i in range(len(rows))]
    if write:
        missing = {digests[i]: i for i in np.flatnonzero(cache.find(digests) < 0)[::-1]}
        order = sorted(missing.values())
        wanted = rows.subset(order) if isinstance(rows, Pairs) else [rows[i] for i in order]
        # One pass for all, so that workers start once; what is embedded is written every `block` rows.
        kept: list[tuple[list[bytes], np.ndarray]] = []
        failed: list[str] = []
        for positions, vectors, errors in space.embed_batches(
            modality, wanted, on_error="raise" if strict else "skip", **embedding
        ):
            kept.append(([digests[order[position]] for position in positions], vectors))
            failed += errors
            if sum(len(part) for part, _ in kept) >= block:
                cache.append_all(kept)
                kept = []
        cache.append_all(kept)
        if failed:
            warn_unreadable(failed, f"{len(order)} {modality} values", "are left out")
    return Targets(cache, cache.find(digests))
