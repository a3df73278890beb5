"""Feature files: vectors by key, in place of media.

`.npz` with arrays `key` (strings: the path as in the table, the caption itself) and `vector` (n, width), or
Parquet with columns `key` and `vector` (lists of numbers). float16 is welcome; values come out as float32.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geobind.data.columns import Vectors, first_not_finite, is_vector_list, list_matrix
from geobind.errors import GeoBindError, shorten

_ROWS_AT_ONCE = 65536


def read_features(path: str | Path) -> tuple[pa.Array, NDArray[Any]]:
    """Keys (n,) and vectors (n, width) of a feature file; an uncompressed `.npz` is memory-mapped.

    Raises GeoBindError for a file that is missing or is no feature file.
    """
    path = Path(path)
    if not path.is_file():
        raise GeoBindError(
            f"feature file {path} does not exist: give a .npz or .parquet with `key` and `vector`"
        )
    if path.suffix == ".npz":
        keys, vectors = _read_npz(path)
    elif path.suffix in (".parquet", ".pq"):
        keys, vectors = _read_parquet(path)
    else:
        raise GeoBindError(f"feature file {path}: expected .npz or .parquet with `key` and `vector`")
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu" or len(keys) != len(vectors):
        raise GeoBindError(
            f"feature file {path}: {len(keys)} keys and vectors of shape {vectors.shape}, type {vectors.dtype}; "
            f"expected (n,) and (n, width) numbers"
        )
    return keys, vectors


def look_up(modality: str, values: pa.Array, path: str | Path) -> Vectors:
    """The vectors of a column of keys (null: missing) as a column that reads them by index.

    Raises GeoBindError for keys that the file lacks or has twice with different vectors, and for vectors
    with NaN or infinity among those used.
    """
    path = Path(path)
    keys, matrix = read_features(path)
    _refuse_contradictions(keys, matrix, path)
    index = pc.index_in(values, value_set=keys, skip_nulls=True)
    missing = pc.and_(index.is_null(), values.is_valid())
    count = pc.sum(missing).as_py() or 0
    if count:
        first = values[pc.index(missing, pa.scalar(True)).as_py()].as_py()
        raise GeoBindError(
            f"feature file {path} lacks {count} of the {len(values)} rows of {modality!r}, the first is "
            f"{shorten(first)}; its keys look like {shorten(keys[0].as_py() if len(keys) else None)}: they must be "
            f"the table's strings"
        )
    rows = index.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    column = Vectors(matrix, rows, values)
    bad = first_not_finite(column)
    if bad is not None:
        raise GeoBindError(
            f"feature file {path}: the vector of {shorten(values[bad].as_py())} has NaN or infinity: compute it again"
        )
    return column


def _refuse_contradictions(keys: pa.Array, matrix: NDArray[Any], path: Path) -> None:
    """A key may stand there twice (one row per caption is natural) but not with two vectors."""
    first = pc.index_in(keys, value_set=keys).to_numpy(zero_copy_only=False)
    again = np.flatnonzero(first != np.arange(len(keys)))
    for start in range(0, len(again), _ROWS_AT_ONCE):
        rows = again[start : start + _ROWS_AT_ONCE]
        differs = (matrix[rows] != matrix[first[rows]]).any(1)
        if differs.any():
            key = keys[int(rows[differs.argmax()])].as_py()
            raise GeoBindError(f"feature file {path} has two different vectors for {shorten(key)}")


def _read_npz(path: Path) -> tuple[pa.Array, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            absent = [name for name in ("key", "vector") if name not in archive.files]
            if absent:
                raise GeoBindError(
                    f"feature file {path} has no array {absent[0]!r}, only {', '.join(archive.files) or 'none'}: "
                    f"write it with np.savez(path, key=keys, vector=vectors)"
                )
            keys = archive["key"]
            vectors = _map_stored(path, "vector.npy")
            if vectors is None:
                vectors = archive["vector"]
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise GeoBindError(
            f"feature file {path} cannot be read ({error}): write it again with np.savez"
        ) from None
    except ValueError as error:  # numpy's refusal of pickled objects, or a broken header
        raise GeoBindError(
            f"feature file {path} cannot be read ({error}): save keys as np.array(keys, dtype=str), vectors as numbers"
        ) from None
    if keys.ndim != 1:
        raise GeoBindError(f"feature file {path}: `key` has shape {keys.shape}, expected (n,)")
    if keys.dtype.kind == "S":
        keys = np.char.decode(keys, "utf-8")
    return pa.array(keys.astype(str), pa.string()).cast(pa.large_string()), vectors


def _map_stored(path: Path, member: str) -> NDArray[Any] | None:
    """Memory-map an array inside a `.npz`, None where it is compressed (np.load cannot map either)."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
    if info.compress_type != zipfile.ZIP_STORED:
        return None
    with open(path, "rb") as file:
        # The local header: 30 bytes, the last four of them the lengths of the name and of the extra field.
        file.seek(info.header_offset + 26)
        name, extra = np.frombuffer(file.read(4), "<u2").tolist()
        file.seek(name + extra, 1)
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            return None
        if dtype.hasobject or 0 in shape:
            return None
        return np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran else "C")


def _read_parquet(path: Path) -> tuple[pa.Array, NDArray[Any]]:
    try:
        schema = pq.read_schema(path)
        absent = [name for name in ("key", "vector") if name not in schema.names]
        if absent:
            raise GeoBindError(
                f"feature file {path} has no column {absent[0]!r}, only {', '.join(schema.names)}: "
                f"name the columns `key` and `vector`"
            )
        table = pq.read_table(path, columns=["key", "vector"])
    except (OSError, pa.ArrowException) as error:
        raise GeoBindError(
            f"feature file {path} cannot be read ({shorten(str(error))}): write it again"
        ) from None
    vectors = table["vector"].combine_chunks()
    if not is_vector_list(vectors.type) or vectors.null_count:
        raise GeoBindError(
            f"feature file {path}: `vector` is {vectors.type}, expected lists of numbers, none empty"
        )
    return table["key"].combine_chunks().cast(pa.large_string()), list_matrix(vectors, f"feature file {path}")
