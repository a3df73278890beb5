"""One modality's values of many rows, held as arrays: what `Pairs` is made of.

Columns are picklable and small to send to a loader worker: strings stay Arrow arrays, vectors are looked
up by index in a memory-mapped or loaded matrix.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from geobind.errors import GeoBindError, shorten


@runtime_checkable
class Column(Protocol):
    """Values of one modality by row; a row may lack it."""

    def __len__(self) -> int: ...

    def value(self, row: int) -> Any:
        """What a processor reads, None where the row lacks it."""

    def take(self, rows: NDArray[np.int64]) -> Column:
        """The column of some rows, in that order."""

    def present(self) -> NDArray[np.bool_]:
        """(n,): does the row have a value."""

    def keys(self) -> pa.Array:
        """(n,) strings: identity of the values; null where the row lacks it."""


@dataclass
class RawColumns:
    """What a reader found: values by modality (or columns of them), and what tells of the rows."""

    columns: dict[str, Any]
    split: Any = None
    place: Any = None
    group: Any = None
    datetime: Any = None
    record: NDArray[np.int64] | None = None  # where a record of the file became several rows: its number


class Strings:
    """Paths under a root, or (root None) strings that are content themselves."""

    def __init__(self, values: pa.Array, root: Path | None) -> None:
        self.values = values
        self.root = root

    def __len__(self) -> int:
        return len(self.values)

    def value(self, row: int) -> Path | str | None:
        value = self.values[row].as_py()
        return value if value is None or self.root is None else self.root / value

    def take(self, rows: NDArray[np.int64]) -> Strings:
        return Strings(self.values.take(pa.array(rows)), self.root)

    def present(self) -> NDArray[np.bool_]:
        return self.values.is_valid().to_numpy(zero_copy_only=False)

    def keys(self) -> pa.Array:
        return self.values


class Vectors:
    """Rows of a matrix (m, width) by index, -1 where missing; `names` are keys of a feature file."""

    def __init__(self, matrix: NDArray[Any], index: NDArray[np.int64], names: pa.Array | None = None) -> None:
        self.matrix = matrix
        self.index = index
        self.names = names

    def __len__(self) -> int:
        return len(self.index)

    def value(self, row: int) -> NDArray[np.float32] | None:
        index = self.index[row]
        return None if index < 0 else np.array(self.matrix[index], dtype=np.float32)

    def take(self, rows: NDArray[np.int64]) -> Vectors:
        names = None if self.names is None else self.names.take(pa.array(rows))
        return Vectors(self.matrix, self.index[rows], names)

    def present(self) -> NDArray[np.bool_]:
        return self.index >= 0

    def keys(self) -> pa.Array:
        if self.names is not None:
            return self.names
        return pa.array([_digest(self.value(row)) for row in range(len(self))], pa.large_string())

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if isinstance(self.matrix, np.memmap):  # workers map the file themselves instead of getting its bytes
            m = self.matrix
            state["matrix"] = (m.filename, m.dtype, m.offset, m.shape, "C" if m.flags.c_contiguous else "F")
        elif len(self.index) < len(self.matrix):
            used, index = np.unique(np.maximum(self.index, 0), return_inverse=True)
            state["matrix"] = np.asarray(self.matrix)[used]
            state["index"] = np.where(self.index < 0, -1, index)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if isinstance(self.matrix, tuple):
            name, dtype, offset, shape, order = self.matrix
            self.matrix = np.memmap(name, dtype, "r", offset, shape, order)


class Locations:
    """(n, 2) float64 latitude and longitude in degrees WGS84; NaN where missing."""

    def __init__(self, degrees: NDArray[np.float64]) -> None:
        self.degrees = degrees

    def __len__(self) -> int:
        return len(self.degrees)

    def value(self, row: int) -> tuple[float, float] | None:
        latitude, longitude = self.degrees[row].tolist()
        return None if math.isnan(latitude) else (latitude, longitude)

    def take(self, rows: NDArray[np.int64]) -> Locations:
        return Locations(self.degrees[rows])

    def present(self) -> NDArray[np.bool_]:
        return ~np.isnan(self.degrees[:, 0])

    def keys(self) -> pa.Array:
        texts = [None if math.isnan(a) else f"{a:.6f},{b:.6f}" for a, b in self.degrees.tolist()]
        return pa.array(texts, pa.large_string())


class Objects:
    """Values in memory that processors take as they are: bytes, PIL images, arrays, (samples, rate)."""

    def __init__(self, values: NDArray[np.object_]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def value(self, row: int) -> Any:
        return self.values[row]

    def take(self, rows: NDArray[np.int64]) -> Objects:
        return Objects(self.values[rows])

    def present(self) -> NDArray[np.bool_]:
        return np.array([value is not None for value in self.values], dtype=bool)

    def keys(self) -> pa.Array:
        return pa.array([_digest(value) for value in self.values], pa.large_string())


def _digest(value: Any) -> str | None:
    """Identity of a value in memory: 32 hexadecimal digits of its kind, shape and bytes."""
    if value is None:
        return None
    digest = hashlib.blake2b(digest_size=16)
    for part in value if isinstance(value, tuple) else (value,):
        if isinstance(part, (bytes, bytearray, memoryview)):
            digest.update(part)
        elif isinstance(part, str):
            digest.update(part.encode())
        else:
            array = np.ascontiguousarray(part)
            if array.dtype.hasobject:
                raise GeoBindError(
                    f"{shorten(value)} has no bytes to tell it by: give a path, bytes, an image or an array"
                )
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def strings(values: Any) -> pa.Array:
    """Any column as one Arrow array of strings, blank ones as null."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, np.ndarray) and values.dtype != object:
        values = pa.array(values)
    if not isinstance(values, pa.Array):
        values = pa.array([None if item is None else str(item) for item in values], pa.large_string())
    try:
        values = values.cast(pa.large_string())
    except pa.ArrowException:
        raise GeoBindError(f"a column of type {values.type} where strings are expected") from None
    blank = pc.equal(pc.utf8_trim_whitespace(values), "")
    return pc.if_else(blank, pa.scalar(None, pa.large_string()), values)


def paths(values: Any, modality: str, root: Path, where: str) -> Strings:
    """A column of paths under a root. Raises GeoBindError for URLs, which nothing here downloads."""
    array = strings(values)
    remote = pc.match_substring_regex(array, r"^[A-Za-z][A-Za-z0-9+.\-]+://")
    row = pc.index(remote, pa.scalar(True)).as_py()
    if row >= 0:
        raise GeoBindError(
            f"{where}, row {row} (from 0): {modality} {shorten(array[row].as_py())} is a URL; geobind reads files: "
            f"download it and give its path"
        )
    return Strings(array, root)


def vectors(values: Any, modality: str, where: str) -> Vectors:
    """Numbers (n,), (n, width), or a sequence of equally long vectors and None, as a column.

    Raises GeoBindError naming the row whose vector has another length, NaN or infinity.
    """
    if isinstance(values, np.ndarray) and values.dtype != object:
        return with_gaps(
            np.asarray(values).reshape(len(values), -1), np.ones(len(values), bool), modality, where
        )
    rows = [None if value is None else np.asarray(value, dtype=np.float32).reshape(-1) for value in values]
    known = [row for row in rows if row is not None]
    for number, row in enumerate(rows):
        if row is not None and len(row) != len(known[0]):
            raise GeoBindError(
                f"{where}, row {number} (from 0): {modality} has {len(row)} numbers, before it had {len(known[0])}"
            )
    present = np.array([row is not None for row in rows], dtype=bool)
    return with_gaps(np.stack(known) if known else np.zeros((0, 1), np.float32), present, modality, where)


def is_vector_list(kind: pa.DataType) -> bool:
    """Is a column of this Arrow type a column of vectors (lists of numbers)."""
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return False
    return pa.types.is_integer(kind.value_type) or pa.types.is_floating(kind.value_type)


def list_matrix(lists: pa.Array, what: str) -> NDArray[Any]:
    """(n, width) from an Arrow array of lists without nulls. Raises GeoBindError where lengths differ."""
    lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    odd = np.flatnonzero(lengths != lengths[:1])
    if len(odd):
        raise GeoBindError(
            f"{what}: vector {odd[0]} has {lengths[odd[0]]} numbers, the first one {lengths[0]}: all need one length"
        )
    width = int(lengths[0]) if len(lengths) else 1
    return lists.flatten().to_numpy(zero_copy_only=False).reshape(len(lists), width)


def first_not_finite(column: Vectors, rows_at_once: int = 65536) -> int | None:
    """The first row whose vector has NaN or infinity; reads the matrix in pieces, only what is used."""
    used = np.unique(column.index[column.index >= 0])
    for start in range(0, len(used), rows_at_once):
        piece = used[start : start + rows_at_once]
        finite = np.isfinite(column.matrix[piece]).all(1)
        if not finite.all():
            return int(np.flatnonzero(np.isin(column.index, piece[~finite]))[0])
    return None


def locations(degrees: Any, where: str) -> Locations:
    """(n, 2) latitude, longitude as a column. Raises GeoBindError naming the row that lies off the globe."""
    if not isinstance(degrees, np.ndarray):
        degrees = [(np.nan, np.nan) if pair is None else pair for pair in degrees]
    try:
        degrees = np.array(degrees, dtype=np.float64)  # a copy
    except (TypeError, ValueError):
        raise GeoBindError(f"{where}: {shorten(degrees)} are no pairs of latitude and longitude") from None
    if degrees.ndim != 2 or degrees.shape[1] != 2:
        raise GeoBindError(
            f"{where}: location has shape {degrees.shape}, expected (rows, 2): latitude, longitude"
        )
    degrees[np.isnan(degrees).any(1)] = np.nan
    for axis, (what, limit) in enumerate((("latitude", 90), ("longitude", 180))):
        outside = np.flatnonzero(np.abs(degrees[:, axis]) > limit)
        if len(outside):
            row = int(outside[0])
            remedy = "subtract 360 from longitudes above 180"
            if axis == 0:
                remedy = "are latitude and longitude swapped?"
            raise GeoBindError(
                f"{where}, row {row} (from 0): {what} {degrees[row, axis]:g} is outside -{limit} to {limit} degrees: {remedy}"
            )
    return Locations(degrees)


def as_column(values: Any, modality: str, *, root: Path, content: bool, where: str) -> Column:
    """Values in memory or an Arrow array as a column: strings as paths (or content), numbers as vectors,
    the rest as it is."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, pa.Array):
        return _from_arrow(values, modality, root, content, where)
    if modality == "location":
        return locations(values, where)
    if isinstance(values, np.ndarray) and values.dtype.kind not in "OUS":
        if values.ndim <= 2:
            return vectors(values, modality, where)
        return Objects(_object_array(values))
    items = list(values)
    known = [item for item in items if item is not None]
    if all(isinstance(item, (str, Path)) for item in known):
        return Strings(strings(items), None) if content else paths(items, modality, root, where)
    if all(_is_vector(item) for item in known):
        return vectors(items, modality, where)
    return Objects(_object_array(items))


def is_embedded(kind: pa.DataType) -> bool:
    """Does a column of this Arrow type hold files: bytes, or structs {bytes, path} as `datasets` writes them."""
    if pa.types.is_struct(kind) and "bytes" in kind.names:
        kind = kind.field("bytes").type
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def embedded_bytes(values: pa.Array) -> list[bytes | None]:
    """The files of such a column, None where there is none."""
    return (pc.struct_field(values, "bytes") if pa.types.is_struct(values.type) else values).to_pylist()


def _is_vector(item: Any) -> bool:
    if isinstance(item, (bytes, str, tuple)):
        return False
    return np.ndim(item) <= 1 and np.asarray(item).dtype.kind in "fiub"


def _object_array(items: Sequence[Any] | Iterable[Any]) -> NDArray[np.object_]:
    items = list(items)
    array = np.empty(len(items), dtype=object)
    for row, item in enumerate(items):  # a plain assignment would unpack sequences of equal length
        array[row] = item
    return array


def _from_arrow(values: pa.Array, modality: str, root: Path, content: bool, where: str) -> Column:
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind):
        return Strings(strings(values), None) if content else paths(values, modality, root, where)
    if is_embedded(kind):
        return Objects(_object_array(embedded_bytes(values)))
    if is_vector_list(kind):
        matrix = list_matrix(values.drop_null(), f"{where}, {modality}")
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        matrix = values.drop_null().to_numpy(zero_copy_only=False).reshape(-1, 1)
    else:
        raise GeoBindError(
            f"{where}: {modality} is a column of type {kind}, expected strings, numbers, lists of either, or binary"
        )
    return with_gaps(matrix, values.is_valid().to_numpy(zero_copy_only=False), modality, where)


def with_gaps(matrix: NDArray[Any], present: NDArray[np.bool_], modality: str, where: str) -> Vectors:
    """A column of vectors from those of the rows that have one. Raises GeoBindError for NaN, by row."""
    column = Vectors(matrix, np.where(present, np.cumsum(present) - 1, -1))
    if matrix.dtype.kind not in "fiub":
        raise GeoBindError(
            f"{where}: {modality} has values of type {matrix.dtype}, expected vectors of numbers"
        )
    row = first_not_finite(column)
    if row is not None:
        raise GeoBindError(
            f"{where}, row {row} (from 0): {modality} is a vector with NaN or infinity: mend it, or leave it empty"
        )
    return column
