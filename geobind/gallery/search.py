"""Search: the rows of a gallery that meet a query best, exactly or through an index."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from geobind.errors import GeoBindError, did_you_mean
from geobind.gallery.filters import Filter
from geobind.gallery.index import FEW, approximate, probes_for
from geobind.gallery.matrix import Matrix, matrix_of
from geobind.gallery.schema import Origin
from geobind.gallery.store import Gallery
from geobind.retrieval.query import VECTOR, Query, Term
from geobind.retrieval.scores import Score, score
from geobind.space import GeoBind

# The matrix finds this many candidates for every result, and at least these; the table's float32 orders them.
_SPARE, _LEAST = 2, 20
_COLUMNS = (
    "unique_id",
    "modality",
    "source",
    "centre_lat",
    "centre_lon",
    "timestamp",
    "geometry",
    "embedding",
)


@dataclass(frozen=True)
class Hit:
    """One result: its score and cosine, what it is and where it lies (None where unknown)."""

    score: float
    unique_id: str
    modality: str
    source: str
    latitude: float | None
    longitude: float | None
    timestamp: str | None
    geometry: bytes | None = None

    def as_json(self) -> dict[str, Any]:
        """All but the footprint."""
        return {key: value for key, value in asdict(self).items() if key != "geometry"}


@dataclass(frozen=True)
class Results(Sequence[Hit]):
    """The hits of a query, best first, and how many rows the filters kept."""

    hits: list[Hit]
    searched: int
    scored: str = "cosine"

    def __len__(self) -> int:
        return len(self.hits)

    def __getitem__(self, position: Any) -> Any:
        return self.hits[position]

    def to_json(self) -> str:
        """A JSON array of hits."""
        return json.dumps([hit.as_json() for hit in self.hits], indent=2)

    def to_geojson(self) -> str:
        """A GeoJSON FeatureCollection (RFC 7946): footprints where they are known, else points; hits without a place have none."""
        features = [
            {"type": "Feature", "geometry": _geometry(hit), "properties": hit.as_json() | {"rank": rank}}
            for rank, hit in enumerate(self.hits, 1)
        ]
        return json.dumps({"type": "FeatureCollection", "features": features}, indent=2)


def search(
    space: GeoBind | None,
    gallery: Gallery,
    query: Query | str | ArrayLike,
    *,
    k: int = 10,
    filter: Filter | None = None,
    scored: Score = "cosine",
    recall: float | None = None,
    device: str | None = None,
) -> Results:
    """The k rows of a gallery that meet a query best.

    >>> results = search(space, Gallery("africa"), '+text:"a port" -text:ships@0.5', filter=Filter(bbox=(-20, 0, 20, 20)))
    >>> results[0].score, results[0].latitude, results[0].source

    query: a `Query`, what `Query.parse` takes, or a vector (dim,), for which `space` may be None.
    Exact by default: all rows that the filter keeps are compared. `recall` (0.5 to 1, say 0.98) is satisfied with
    that recall@10 by the index of `build_index`; what is exact at no greater cost, or where the index was
    measured to stay below it, is searched exactly all the same. `scored` is the cosine, or what
    `geobind.retrieval.scores` makes of it for a query of one modality and a gallery of one.
    Ties keep the order of the table. A filter that keeps nothing gives no hits.
    Raises GeoBindError for k below 1, a query or gallery of another space, and where there is no index.
    """
    if k < 1:
        raise GeoBindError(f"k is {k}: give a number of at least 1")
    if scored not in get_args(Score):
        raise GeoBindError(f"no score {scored!r}{did_you_mean(scored, get_args(Score))}")
    keep = filter or Filter()
    asked = _query(query)
    if recall is not None and (asked.combine != "sum" or scored == "probability"):
        way = scored if asked.combine == "sum" else asked.combine
        raise GeoBindError(f"a search by {way} compares every row: leave out recall")
    snapshot = gallery.snapshot()
    vectors = _query_vectors(space, snapshot, asked, device)
    between = None if scored == "cosine" else _between(space, snapshot, asked, keep, scored)
    matrix = matrix_of(snapshot) if recall is None or keep.any else None
    chosen = _chosen(snapshot, matrix, keep) if matrix is not None and keep.any else None
    searched = len(snapshot) if chosen is None else len(chosen)
    probes = None if recall is None else probes_for(gallery, recall, searched / max(len(snapshot), 1))
    others = np.zeros(0, np.float32)  # cosines of rows that are compared, but found no further
    if probes is not None and keep.polygon is None and (chosen is None or searched > FEW):
        condition = " AND ".join(part for part in (keep.box_sql(), keep.sql()) if part) or None
        found = approximate(snapshot, vectors[0], k, probes, condition, _COLUMNS)
    else:
        matrix = matrix or matrix_of(snapshot)
        if asked.combine != "sum":
            shares = asked.conjunction(matrix.cosines(vectors, chosen))
            best = np.argsort(-shares, kind="stable")[:k]
            found = snapshot.take(matrix.rows[best if chosen is None else chosen[best]], _COLUMNS)
            return Results(_hits(found, shares[best]), searched, asked.combine)
        positions, _ = matrix.nearest(vectors[0], max(_SPARE * k, _LEAST), chosen)
        found = snapshot.take(matrix.rows[positions], _COLUMNS)
        if scored == "probability":
            taken = positions if chosen is None else np.searchsorted(chosen, positions)
            others = np.delete(matrix.cosines(vectors, chosen)[0], taken)
    cosines = found["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, snapshot.dim) @ vectors[0]
    order = np.argsort(-cosines, kind="stable")
    scores = cosines[order]
    if space is not None and between is not None and len(scores):
        scores = score(space, between, np.concatenate([scores, others]), scored)
    return Results(_hits(found.take(pa.array(order[:k])), scores[:k]), searched, scored)


def _query(query: Query | str | ArrayLike) -> Query:
    if isinstance(query, Query):
        return query
    return (
        Query.parse(query) if isinstance(query, str) else Query([Term(VECTOR, np.asarray(query, np.float32))])
    )


def _query_vectors(
    space: GeoBind | None, gallery: Gallery, query: Query, device: str | None
) -> NDArray[np.float32]:
    """(1, dim) for a sum, (terms, dim) otherwise. Raises GeoBindError where the gallery is of another space."""
    if space is None:
        if any(term.modality != VECTOR for term in query.terms):
            raise GeoBindError(
                "the query needs a space to be embedded with: give the one that the gallery was made with"
            )
        space = GeoBind(gallery.dim)
    for modality in {term.modality for term in query.terms} - {VECTOR}:
        gallery.check(Origin.of(space, modality), space.dim)
    return (
        query.vector(space, device=device)[None]
        if query.combine == "sum"
        else query.vectors(space, device=device)
    )


def _chosen(gallery: Gallery, matrix: Matrix, keep: Filter) -> NDArray[np.intp] | None:
    """Positions in the matrix that the filter keeps; None for all."""
    mask = keep.inside(matrix.latitude, matrix.longitude) if keep.spatial else None
    condition = keep.sql()
    if condition is not None:
        found = [
            batch["_rowid"].to_numpy()
            for batch in gallery.batches(["unique_id"], where=condition, row_ids=True)
        ]
        ids = np.isin(matrix.rows, np.concatenate(found) if found else np.zeros(0, np.uint64))
        mask = ids if mask is None else mask & ids
    return None if mask is None else np.flatnonzero(mask)


def _between(
    space: GeoBind | None, gallery: Gallery, query: Query, keep: Filter, scored: Score
) -> tuple[str, str]:
    """The modalities of a query and of the rows it is compared with, where there is one of each."""
    asked = query.terms[0]
    kinds = [keep.modality] if keep.modality else gallery.modalities
    plain = query.combine == "sum" and len(query.terms) == 1 and asked.weight > 0
    if space is None or not plain or asked.modality == VECTOR or len(kinds) > 1:
        raise GeoBindError(
            f"{scored} is of a query of one wanted value and rows of one modality: use cosine, or filter by modality"
        )
    return asked.modality, kinds[0] if kinds else asked.modality


def _hits(found: pa.Table, scores: NDArray[np.float32]) -> list[Hit]:
    rows = found.drop_columns("embedding").to_pylist()
    return [
        Hit(
            score=value, unique_id=row["unique_id"], modality=row["modality"], source=row["source"],
            latitude=row["centre_lat"], longitude=row["centre_lon"], timestamp=row["timestamp"],
            geometry=row["geometry"],
        )
        for value, row in zip(scores.tolist(), rows, strict=True)
    ]  # fmt: skip


def _geometry(hit: Hit) -> dict[str, Any] | None:
    if hit.geometry is not None:
        import shapely

        return json.loads(shapely.to_geojson(shapely.from_wkb(hit.geometry)))
    if hit.latitude is None or hit.longitude is None:
        return None
    return {"type": "Point", "coordinates": [hit.longitude, hit.latitude]}
