"""The columns of a gallery: those of the Major TOM embedding tables, and which tower made each vector."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from geobind.errors import GeoBindError, shorten
from geobind.space import GeoBind

MAJOR_TOM = {
    "unique_id": pa.string(),
    "embedding": pa.list_(pa.float32()),
    "timestamp": pa.string(),
    "product_id": pa.string(),
    "grid_cell": pa.string(),
    "grid_row_u": pa.int16(),
    "grid_col_r": pa.int16(),
    "geometry": pa.binary(),
    "centre_lat": pa.float64(),
    "centre_lon": pa.float64(),
    "utm_footprint": pa.string(),
    "utm_crs": pa.string(),
    "pixel_bbox": pa.list_(pa.int32()),
}
OWN = {"modality": pa.string(), "source": pa.string(), "tower": pa.string(), "chain": pa.list_(pa.string())}
# Of a primary key, lance compares the values of transactions that run at once, and tries the later one again.
_PRIMARY_KEY = {"lance-schema:unenforced-primary-key": "true"}


@dataclass(frozen=True)
class Origin:
    """Which tower made vectors, and to which it was bound: what decides whether vectors can be compared.

    >>> Origin.of(space, "satellite")
    Origin(modality='satellite', tower='3f0c...', chain=('clip:9ad1...',))
    """

    modality: str
    tower: str
    chain: tuple[str, ...] = ()

    @classmethod
    def of(cls, space: GeoBind, modality: str) -> Origin:
        """That of a space's tower."""
        return cls(modality, space.fingerprint(modality), space.chain(modality))

    def meets(self, others: Sequence[str]) -> bool:
        """Whether the chain, the tower itself included, has a link in common with `others`."""
        return not {self.tower, *self.chain}.isdisjoint(others)


def schema(dim: int) -> pa.Schema:
    """The Arrow schema of a gallery of vectors of `dim` numbers.

    `unique_id` is the key; `embedding` has unit length; `timestamp` is UTC as YYYYMMDDTHHMMSS, so that its order
    is that of time; `geometry` is the footprint as WKB in degrees WGS84; `source` is the path or value.
    Source: the Major TOM embedding tables (Francis and Czerkawski 2024), whose `embedding` has any length.
    """
    kinds = MAJOR_TOM | {"embedding": pa.list_(pa.float32(), dim)} | OWN
    key = pa.field("unique_id", pa.string(), nullable=False, metadata=_PRIMARY_KEY)
    return pa.schema([key, *(pa.field(name, kind) for name, kind in kinds.items() if name != key.name)])


def rows(
    embeddings: ArrayLike,
    *,
    origin: Origin,
    sources: Sequence[str],
    dim: int | None = None,
    unique_ids: Sequence[str] | None = None,
    locations: ArrayLike | None = None,
    times: ArrayLike | None = None,
    columns: dict[str, Any] | None = None,
) -> pa.Table:
    """Rows of a gallery from vectors (n, dim) and what is known of each; the vectors become unit length.

    sources: (n,) names; unique_ids: (n,), `row_id` of each source if not given; locations: (n, 2) latitude,
    longitude in degrees, NaN where unknown; times: (n,) datetime64 UTC; columns: other columns, by name.
    Raises GeoBindError, naming the source, for NaN, a zero vector, a wrong dimension and a place off the globe.
    """
    vectors = unit_rows(embeddings, sources, dim)
    n, width = vectors.shape
    ids = list(unique_ids) if unique_ids is not None else [row_id(origin, source) for source in sources]
    values: dict[str, Any] = {
        "unique_id": ids,
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.float32()), width),
        "modality": [origin.modality] * n,
        "source": list(sources),
        "tower": [origin.tower] * n,
        "chain": [list(origin.chain)] * n,
    }
    if locations is not None:
        degrees = _on_globe(np.asarray(locations, np.float64).reshape(n, 2), sources)
        values |= {"centre_lat": _with_nulls(degrees[:, 0]), "centre_lon": _with_nulls(degrees[:, 1])}
    if times is not None:
        values["timestamp"] = [time_text(moment) for moment in np.asarray(times, "datetime64[s]")]
    values |= columns or {}
    arrays = []
    for field in schema(width):
        given = values.get(field.name)
        if given is None:
            arrays.append(pa.nulls(n, field.type))
        else:
            arrays.append(given if isinstance(given, pa.Array) else pa.array(given, field.type))
    return pa.Table.from_arrays(arrays, schema=schema(width))


def row_id(origin: Origin, source: str) -> str:
    """The key of a value under a tower: the same value is one row, however often it is embedded."""
    text = "\0".join((origin.tower, origin.modality, source))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def unit_rows(embeddings: ArrayLike, names: Sequence[str], dim: int | None = None) -> NDArray[np.float32]:
    """Vectors (n, dim) at unit length. Raises GeoBindError naming the first that has none."""
    vectors = np.asarray(embeddings, np.float32)
    if vectors.ndim != 2 or len(vectors) != len(names) or dim not in (None, vectors.shape[1]):
        expected = f"({len(names)}, {dim or 'dim'})"
        raise GeoBindError(
            f"embeddings have shape {vectors.shape}, expected {expected}: embed with the gallery's space"
        )
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 1e-9)))
    if len(bad):
        kind = "zero" if lengths[bad[0]] <= 1e-9 else "NaN or infinite"
        raise GeoBindError(
            f"the vector of {shorten(names[bad[0]])} is {kind} ({len(bad)} such vectors): embed it again, or leave it out"
        )
    return (vectors / lengths[:, None]).astype(np.float32)


def time_text(moment: np.datetime64) -> str | None:
    """A UTC moment as the tables write it.

    >>> time_text(np.datetime64("2023-01-19T16:18:11"))
    '20230119T161811'
    """
    if np.isnat(moment):
        return None
    return str(moment.astype("datetime64[s]")).replace("-", "").replace(":", "")


def _with_nulls(degrees: NDArray[np.float64]) -> pa.Array:
    return pa.array(degrees, pa.float64(), mask=np.isnan(degrees))


def _on_globe(degrees: NDArray[np.float64], sources: Sequence[str]) -> NDArray[np.float64]:
    """Longitudes from -180 to 180, those of 180 to 360 turned. Raises GeoBindError for what is no place."""
    latitude, longitude = degrees.T
    bad = np.flatnonzero((np.abs(latitude) > 90) | (longitude < -180) | (longitude > 360))
    if len(bad):
        row = bad[0]
        raise GeoBindError(
            f"{shorten(sources[row])} lies at {latitude[row]:g}, {longitude[row]:g}: "
            f"expected latitude -90..90 and longitude -180..180, in that order"
        )
    return np.stack([latitude, np.where(longitude > 180, longitude - 360, longitude)], axis=1)
