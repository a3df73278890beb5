"""The approximate index of a gallery, asked by recall: how far it must look is measured when it is built."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geobind.errors import GeoBindError
from geobind.gallery.filters import Filter
from geobind.gallery.matrix import Matrix, matrix_of
from geobind.gallery.store import Gallery

NAME = "embedding_idx"
SHARES = (1.0, 0.1, 0.01)
"""Shares of the rows that filters keep, for which recall is measured."""
FEW = 20_000
"""Rows that a filter keeps up to which comparing them all is faster than the index."""
SMALLEST = 10_000
"""Rows below which there is nothing to gain, and too little to train an index on."""
_CANDIDATES = 100  # compared in float32, at least, and ten for each result
_PROBES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_QUERIES = 200
_BOXES = 25  # odd, so that near and far queries meet all of them
_FAR = 0.5  # cosine of a query of another modality and what it looks for
_ROWS_A_PARTITION = 4096
_BITS = 4  # a dimension; one is not enough for queries of another modality
_TIE = 1e-4  # cosines closer than this are equal: a row that near to the tenth is found
_MEASURED = "recall"  # the table of probes and recalls beside the gallery's


def build_index(gallery: Gallery, *, seed: int = 0) -> list[dict[str, float]]:
    """Index the gallery's vectors and area, and measure recall@10 by the partitions looked into.

    >>> build_index(Gallery("africa"))[:2]
    [{'share': 1.0, 'probes': 1, 'recall': 0.61}, {'share': 1.0, 'probes': 2, 'recall': 0.78}]

    The index is lance's IVF_RQ: cells of a k-means, in them four bits a dimension (RaBitQ), of which ten times k
    candidates are compared in float32. The measure is of 200 queries drawn by `seed`, whose true neighbours
    an exact search knows: rows of the gallery, and rows turned away to a cosine of 0.5, as far as queries
    of another modality are. `recall` is the lower of the two, less what such a sample may be wrong by (5 %).
    `share` is that of the rows that a filter keeps: the nearest ones that pass it lie in more partitions.
    Rows added later are found too, compared one by one until the next `optimize`.
    Raises GeoBindError for fewer than 10,000 rows.
    """
    from lancedb.index import BTree, IvfRq

    rows = len(gallery)
    if rows < SMALLEST:
        raise GeoBindError(
            f"gallery {gallery.uri} has {rows:,} rows: below {SMALLEST:,} exact search is as fast"
        )
    partitions = max(16, 2 ** round(np.log2(rows / _ROWS_A_PARTITION)))
    config = IvfRq(distance_type="l2", num_partitions=partitions, num_bits=_BITS)
    gallery.table.create_index("embedding", config=config, replace=True, name=NAME)
    for column in ("centre_lat", "centre_lon"):
        gallery.table.create_index(column, config=BTree(), replace=True)
    measured = _measure(gallery, partitions, np.random.default_rng(seed))
    gallery.write_aside(_MEASURED, pa.Table.from_pylist(measured))
    return measured


def probes_for(gallery: Gallery, recall: float, share: float) -> int | None:
    """Partitions to look into for a recall@10, where filters keep a share of the rows; None where none are enough.

    Raises GeoBindError for a recall outside 0.5..1 and a gallery without an index.
    """
    if not 0.5 <= recall <= 1:
        raise GeoBindError(f"recall is {recall:g}: give a share between 0.5 and 1, such as 0.98")
    measured = gallery.read_aside(_MEASURED)
    if measured is None:
        raise GeoBindError(
            f"gallery {gallery.uri} has no index: leave out recall, or run geobind gallery {gallery.uri} --index"
        )
    level = max((level for level in SHARES if level <= share), default=SHARES[-1])
    enough = [
        row["probes"] for row in measured.to_pylist() if row["share"] == level and row["recall"] >= recall
    ]
    return min(enough, default=None)


def approximate(
    gallery: Gallery,
    vector: NDArray[np.float32],
    k: int,
    probes: int,
    condition: str | None,
    columns: Sequence[str],
) -> pa.Table:
    """About the k nearest rows that an SQL condition keeps, by the index."""
    query = gallery.table.search(vector, vector_column_name="embedding").distance_type("l2")
    if condition is not None:
        query = query.where(condition, prefilter=True)
    query = query.select([*columns, "_distance"]).with_row_id(True).nprobes(probes)
    return query.refine_factor(max(10, -(-_CANDIDATES // k))).limit(k).to_arrow()


def _measure(gallery: Gallery, partitions: int, rng: np.random.Generator) -> list[dict[str, float]]:
    """Recall@10 by share and partitions, until it is 1 or more of them change nothing."""
    matrix = matrix_of(gallery)
    queries = _queries(matrix, rng)
    measured: list[dict[str, float]] = []
    for share in SHARES:
        boxes = [Filter()] if share == 1 else _boxes(matrix, share, rng)
        if not boxes or (share < 1 and share * len(matrix) <= FEW):
            continue
        asked = list(zip(queries, itertools.cycle(boxes), strict=False))
        asked = asked if share == 1 else asked[: _QUERIES // 2]
        tenth = [_tenth(matrix, vector, box) for vector, box in asked]
        recall = 0.0
        for probes in (p for p in _PROBES if p <= partitions):
            found = []
            for (vector, box), least in zip(asked, tenth, strict=True):
                hits = approximate(gallery, vector, 10, probes, box.box_sql(), [])
                found.append(float(np.sum(1 - hits["_distance"].to_numpy() / 2 >= least - _TIE) / 10))
            before, recall = recall, min(_sure(found[0::2]), _sure(found[1::2]))  # near and far
            measured.append({"share": share, "probes": probes, "recall": recall})
            if recall in (before, 1):
                break
    return measured


def _sure(found: list[float]) -> float:
    """A mean that the true one is below in 5 % of samples at most."""
    return float(np.mean(found) - 1.645 * np.std(found) / np.sqrt(len(found)))


def _queries(matrix: Matrix, rng: np.random.Generator) -> NDArray[np.float32]:
    """(queries, dim): a row of the gallery and one turned away, in turns."""
    drawn = np.sort(rng.choice(len(matrix), _QUERIES // 2, replace=False))
    near = rng.permutation(matrix.take(drawn).astype(np.float32))
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    away = rng.standard_normal(near.shape, np.float32)
    away -= (away * near).sum(1, keepdims=True) * near
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    far = _FAR * near + np.float32(np.sqrt(1 - _FAR**2)) * away
    return np.stack([near, far], 1).reshape(_QUERIES, -1)


def _boxes(matrix: Matrix, share: float, rng: np.random.Generator) -> list[Filter]:
    """Boxes around rows, each with about this share of the rows; none where too few have a place."""
    placed = np.flatnonzero(~np.isnan(matrix.latitude))
    if len(placed) < 2 * share * len(matrix):
        return []
    latitude, longitude = matrix.latitude[placed], matrix.longitude[placed]
    found = []
    for row in rng.choice(len(placed), _BOXES):
        y, x = latitude[row], longitude[row]
        away = np.maximum(np.abs(latitude - y), np.abs(longitude - x) / 2)
        half = np.quantile(away, share * len(matrix) / len(placed))
        west, east = max(x - 2 * half, -180), min(x + 2 * half, 180)
        found.append(Filter(bbox=(west, max(y - half, -90), east, min(y + half, 90))))
    return found


def _tenth(matrix: Matrix, vector: NDArray[np.float32], box: Filter) -> float:
    inside = np.flatnonzero(box.inside(matrix.latitude, matrix.longitude)) if box.spatial else None
    return float(matrix.nearest(vector, 10, inside)[1][-1])
