"""Values named on the command line, embedded into a Parquet file in constant memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from geobind.data.features import read_features
from geobind.errors import GeoBindError, shorten
from geobind.space import GeoBind, warn_unreadable
from geobind.storage import writing
from geobind.towers.base import Row

ROW_GROUP = 16_384  # rows held before they are written: 32 MB at 512 numbers


@dataclass(frozen=True, eq=False)
class Values(Sequence[Row]):
    """Values of one modality and their names, as the rows that `embed_batches` takes."""

    modality: str
    keys: pa.Array
    values: Sequence[Any] | np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, position: int) -> Row:  # type: ignore[override]
        return {self.modality: self.values[position]}


def embed_to_parquet(
    space: GeoBind,
    modality: str,
    values: Sequence[str],
    out: str | Path,
    *,
    on_error: Literal["raise", "skip"] = "raise",
    batch_size: int = 64,
    device: str | None = None,
    workers: int = 0,
    progress: bool = False,
) -> tuple[int, int]:
    """Embed what the strings name (see `read_values`) and count the embeddings written and left out.

    >>> embed_to_parquet(space, "satellite", ["tiles/"], "tiles.parquet", on_error="skip")
    (12000, 3)

    The file has the columns `key` (path, sentence or position as given; the key of a feature file) and
    `embedding`, float32 lists of the space's dimension and unit length. `geobind` in its schema's metadata
    is JSON: modality, dim, and the tower's fingerprint and chain, which tell what it can be compared with.
    The file appears when it is whole. Raises GeoBindError where there is nothing to embed, where nothing
    can be read, and, before anything is read, where `out` cannot be written.
    """
    tower = space.tower(modality)
    schema = pa.schema(
        [("key", pa.string()), ("embedding", pa.list_(pa.float32(), space.dim))],
        metadata={
            "geobind": json.dumps(
                {
                    "modality": modality,
                    "dim": space.dim,
                    "fingerprint": space.fingerprint(modality),
                    "chain": space.chain(modality),
                }
            )
        },
    )
    if tower.processor.takes != "file":
        workers = 0  # nothing to decode, and a worker would get a copy of all values
    unreadable: list[str] = []
    written = 0
    with _EmbeddingFile(Path(out), schema) as file:
        parts = read_values(modality, tower.processor.takes, values)
        total = sum(map(len, parts))
        for part in parts:
            with closing(
                space.embed_batches(
                    modality, part, batch_size=batch_size, device=device, on_error=on_error,
                    workers=workers, progress=progress,
                )
            ) as batches:  # fmt: skip
                for positions, vectors, errors in batches:
                    file.add(part.keys.take(pa.array(positions, pa.int64())), vectors)
                    written += len(positions)
                    unreadable += errors
        if not written:
            raise GeoBindError(
                f"none of the {total} {modality} values can be read, the first because: {unreadable[0]}"
            )
    if unreadable:
        warn_unreadable(unreadable, f"{total} {modality} values", "are left out")
    return written, len(unreadable)


def read_values(
    modality: str, takes: Literal["file", "text", "vector", "location"], arguments: Sequence[str]
) -> list[Values]:
    """What command-line arguments mean to a processor that takes files, text, vectors or locations.

    "file": paths; a folder stands for all files in it and below, in sorted order, hidden ones left out.
    "text": sentences; a name ending in .txt is a file of one sentence a line.
    "location": latitude,longitude in degrees. "vector": feature files (`geobind.data.features`).

    Raises GeoBindError for an argument of another form and where nothing is found.
    """
    if takes == "vector":
        parts = [Values(modality, *read_features(path)) for path in arguments]
    else:
        found = [pair for argument in arguments for pair in _READ[takes](argument)]
        keys = pa.array([key for key, _ in found], pa.large_string())
        parts = [Values(modality, keys, [value for _, value in found])]
    if not any(map(len, parts)):
        raise GeoBindError(
            f"nothing to embed in {', '.join(map(shorten, arguments[:3])) or 'no arguments'}: {_EXPECTED[takes]}"
        )
    return parts


def _files(argument: str) -> Iterator[tuple[str, Path]]:
    path = Path(argument)
    if not path.is_dir():
        yield argument, path
        return
    for file in sorted(path.rglob("*")):
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts):
            yield str(file), file


def _sentences(argument: str) -> Iterator[tuple[str, str]]:
    if not argument.lower().endswith(".txt"):
        yield argument, argument
        return
    try:
        lines = Path(argument).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise GeoBindError(
            f"text file {argument} cannot be read ({error.strerror}): check the path"
        ) from None
    except UnicodeDecodeError as error:
        raise GeoBindError(
            f"text file {argument} is not UTF-8 (byte {error.start}): convert it, one sentence a line"
        ) from None
    yield from ((line.strip(), line.strip()) for line in lines if line.strip())


def _location(argument: str) -> Iterator[tuple[str, tuple[float, float]]]:
    try:
        latitude, longitude = map(float, argument.split(","))
    except ValueError:
        raise GeoBindError(f"{argument!r} is no location: {_EXPECTED['location']}") from None
    yield argument.strip(), (latitude, longitude)


_READ: dict[str, Callable[[str], Iterator[tuple[str, Any]]]] = {
    "file": _files,
    "text": _sentences,
    "location": _location,
}
_EXPECTED = {
    "file": "give files, or folders that hold some",
    "text": "give sentences, or a .txt file of one sentence a line",
    "location": "give latitude,longitude in degrees, such as 21.3,-157.8",
    "vector": "give feature files (.npz or .parquet) with `key` and `vector`",
}


class _EmbeddingFile:
    """A Parquet file of keys and embeddings, written in row groups, that takes its name when it is whole."""

    def __init__(self, out: Path, schema: pa.Schema) -> None:
        self.out, self.schema = out, schema
        self._temporary = out.with_name(out.name + ".tmp")
        self._keys: list[pa.Array] = []
        self._vectors: list[np.ndarray] = []
        with writing(out):
            if out.is_dir():
                raise IsADirectoryError("it is a folder")
            out.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._temporary, schema)

    def add(self, keys: pa.Array, vectors: np.ndarray) -> None:
        """Keys (n,) and embeddings (n, dim)."""
        self._keys.append(keys)
        self._vectors.append(vectors)
        if sum(map(len, self._keys)) >= ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        flat = pa.array(np.concatenate(self._vectors).ravel(), pa.float32())
        embeddings = pa.FixedSizeListArray.from_arrays(flat, type=self.schema.field("embedding").type)
        keys = pa.concat_arrays(self._keys).cast(pa.string())
        with writing(self.out):
            self._writer.write_table(pa.table([keys, embeddings], schema=self.schema))
        self._keys, self._vectors = [], []

    def __enter__(self) -> _EmbeddingFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        try:
            if kind is None:
                if self._keys:
                    self._flush()
                with writing(self.out):
                    self._writer.close()
                    descriptor = os.open(self._temporary, os.O_RDWR)
                    os.fsync(descriptor)
                    os.close(descriptor)
                    os.replace(self._temporary, self.out)
        finally:
            with suppress(OSError):
                self._writer.close()
            self._temporary.unlink(missing_ok=True)
