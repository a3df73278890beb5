"""The approximate index of a gallery, asked by recall: how far it must look is measured when it is built."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geobind.errors import GeoBindError
from geobind.gallery.filters import Filter
from geobind.gallery.matrix import Matrix, matrix_of
from geobind.gallery.store import Gallery

NAME = "embedding_idx"
REFINE = 10
_PROBES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_QUERIES = 200
_ROWS_A_PARTITION = 4096
_MEASURED = "recall"  # the table of probes and recalls beside the gallery's
SMALLEST = 10_000
"""Rows below which there is nothing to gain, and too little to train an index on."""


def build_index(gallery: Gallery, *, seed: int = 0) -> dict[int, float]:
    """Index the gallery's vectors and area, and measure recall@10 by the partitions looked into.

    >>> build_index(Gallery("africa"))
    {1: 0.61, 2: 0.78, 4: 0.91, 8: 0.97, 16: 0.99}

    The index is lance's IVF_RQ: cells of a k-means, in them one bit a dimension (RaBitQ), of which ten times k
    candidates are compared in float32. The measure is of 200 rows of the gallery, drawn by `seed`, whose true
    neighbours an exact search knows; it is kept with the gallery. Rows added later are found too, compared
    one by one until the next `optimize`. Raises GeoBindError for fewer than 10,000 rows.
    """
    from lancedb.index import BTree, IvfRq

    if len(gallery) < SMALLEST:
        raise GeoBindError(
            f"gallery {gallery.uri} has {len(gallery):,} rows: below {SMALLEST:,} exact search is as fast"
        )
    partitions = max(16, 2 ** round(np.log2(len(gallery) / _ROWS_A_PARTITION)))
    table = gallery.table
    table.create_index(
        "embedding", config=IvfRq(distance_type="dot", num_partitions=partitions), replace=True, name=NAME
    )
    for column in ("centre_lat", "centre_lon"):
        table.create_index(column, config=BTree(), replace=True)
    measured = _measure(gallery, partitions, seed)
    gallery.write_aside(_MEASURED, pa.table({"probes": list(measured), "recall": list(measured.values())}))
    return measured


def approximate(
    gallery: Gallery, vector: NDArray[np.float32], k: int, keep: Filter, recall: float
) -> tuple[NDArray[np.uint64], int]:
    """Row ids of about the best rows, and how many rows there are; the caller orders and cuts them.

    Raises GeoBindError for a recall outside 0.5..1 and a gallery without an index.
    """
    if not 0.5 <= recall <= 1:
        raise GeoBindError(f"recall is {recall:g}: give a share between 0.5 and 1, such as 0.98")
    measured = gallery.read_aside(_MEASURED)
    if measured is None:
        raise GeoBindError(
            f"gallery {gallery.uri} has no index: leave out recall, or run geobind gallery {gallery.uri} --index"
        )
    probes = measured["probes"].to_pylist()
    enough = [p for p, found in zip(probes, measured["recall"].to_pylist(), strict=True) if found >= recall]
    conditions = [part for part in (keep.box_sql(), keep.sql()) if part]
    # Neighbours that pass a filter lie in more partitions than the nearest ones do.
    wanted = (enough[0] if enough else probes[-1]) * (4 if conditions else 1)
    rows = _ask(gallery, vector, max(2 * k, 20), wanted, " AND ".join(conditions) or None)
    return rows, len(gallery)


def _ask(
    gallery: Gallery, vector: NDArray[np.float32], count: int, probes: int, condition: str | None
) -> NDArray[np.uint64]:
    query = gallery.table.search(vector, vector_column_name="embedding").distance_type("dot")
    if condition is not None:
        query = query.where(condition, prefilter=True)
    found = (
        query.select(["unique_id", "_distance"])
        .with_row_id(True)
        .nprobes(probes)
        .refine_factor(REFINE)
        .limit(count)
        .to_arrow()
    )
    return found["_rowid"].to_numpy().astype(np.uint64)


def _measure(gallery: Gallery, partitions: int, seed: int) -> dict[int, float]:
    """Recall@10 by the number of partitions looked into."""
    matrix = matrix_of(gallery)
    drawn = np.random.default_rng(seed).choice(len(matrix), _QUERIES, replace=False)
    truth = _neighbours(matrix, drawn)
    measured: dict[int, float] = {}
    for probes in (p for p in _PROBES if p <= partitions):
        found = [_ask(gallery, matrix.vectors[row].astype(np.float32), 10, probes, None) for row in drawn]
        measured[probes] = float(np.mean([np.isin(a, b).mean() for a, b in zip(truth, found, strict=True)]))
        if measured[probes] >= 0.999:
            break
    return measured


def _neighbours(matrix: Matrix, drawn: NDArray[np.int64]) -> list[NDArray[np.uint64]]:
    import torch

    cosines = torch.from_numpy(matrix.vectors) @ torch.from_numpy(matrix.vectors[drawn]).T
    top = torch.topk(cosines, 10, dim=0).indices.T.numpy()
    return [matrix.rows[row] for row in top]
