"""Who should be found for each query, and where it is found: ranks and average precision, ties included."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geobind.errors import GeoBindError, shorten

# Scores held at once: 8 MB of float32, enough for a matrix product at nearly full speed.
_BLOCK = 2**21

# The k of precision@10.
_CUT = 10


@dataclass(frozen=True)
class Partners:
    """The right answers to each query among the gallery items, as compressed sparse rows.

    `indices[indptr[q]:indptr[q + 1]]` are the gallery positions of query q's partners, each once;
    `shape` is (queries, gallery items).

    >>> partners = Partners.from_labels(["forest", "beach"], ["beach", "forest", "beach"])
    >>> partners.indptr.tolist(), partners.indices.tolist(), partners.counts.tolist()
    ([0, 1, 3], [1, 0, 2], [1, 2])
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    shape: tuple[int, int]

    @classmethod
    def from_labels(cls, query_labels: ArrayLike, gallery_labels: ArrayLike) -> Partners:
        """Partners where the labels (text or integers, one an item) are equal: the group protocol.

        A missing label ("", None or -1) raises GeoBindError: leave such items out first, because
        "without a label" is no group whose members resemble each other.
        """
        queries, gallery = _labels(query_labels, "query"), _labels(gallery_labels, "gallery")
        if len({type(label) for label in (*queries, *gallery)}) > 1:
            raise GeoBindError(
                "labels are partly text and partly integers, which are never equal; give all of them as one"
            )
        codes = {label: code for code, label in enumerate(dict.fromkeys(gallery))}
        rows, columns = _equal(
            np.array([codes.get(label, -1) for label in queries], dtype=np.int64),
            np.array([codes[label] for label in gallery], dtype=np.int64),
        )
        return _from_pairs(rows, columns, (len(queries), len(gallery)))

    @classmethod
    def from_places(cls, query_places: Sequence[ArrayLike], gallery_places: Sequence[ArrayLike]) -> Partners:
        """Partners where two items share at least one place: the partner protocol.

        Each argument lists, by item, the integer ids of the places where it occurs: a caption that
        describes several places has several, and each of them is a right answer.
        """
        queries, query_items = _places(query_places, "query")
        gallery, gallery_items = _places(gallery_places, "gallery")
        first, second = _equal(queries, gallery)
        # Two items that share several places are found once for each of them.
        width = max(len(gallery_places), 1)
        pairs = np.unique(query_items[first] * width + gallery_items[second])
        return _from_pairs(pairs // width, pairs % width, (len(query_places), len(gallery_places)))

    @property
    def counts(self) -> NDArray[np.int64]:
        """The number of partners of each query, (queries,)."""
        return np.diff(self.indptr)

    def transpose(self) -> Partners:
        """The same pairs in the other direction: gallery items become the queries."""
        rows = np.repeat(np.arange(self.shape[0]), self.counts)
        order = np.argsort(self.indices, kind="stable")
        return _from_pairs(self.indices[order], rows[order], (self.shape[1], self.shape[0]))


def partner_ranks(
    queries: ArrayLike, gallery: ArrayLike, partners: Partners, *, chunk: int | None = None
) -> NDArray[np.float64]:
    """The rank at which each query finds its first partner, ties at the expected rank; (queries,) float64.

    rank = 1 + gallery items that score strictly above the best-scoring partner + half of those that tie
    with it, where the query's other partners are not counted: they are right answers, no competitors.
    An encoder that maps everything to one vector is so ranked as chance would, not first.

    >>> partner_ranks([[1, 0]], [[1, 0], [1, 0], [0, 1]], Partners.from_labels(["a"], ["a", "b", "c"]))
    array([1.5])

    `queries` (Q, dim) and `gallery` (N, dim) are unit vectors, compared as float32 by dot product; `chunk`
    is the number of queries scored at once (8 MB of scores by default) and changes no result beyond
    float32 rounding. Raises GeoBindError for vectors that are not finite, sizes that differ, and a query
    without a partner.
    """
    ranks = np.empty(partners.shape[0])
    for block in _blocks(queries, gallery, partners, chunk):
        ranks[block.span] = _ranks(block)
    return ranks


def score_ranks(scores: ArrayLike, partners: Partners) -> NDArray[np.float64]:
    """`partner_ranks` from a matrix of scores (queries, gallery items) that comes from no vectors.

    >>> score_ranks([[0.2, 0.7, 0.7]], Partners.from_labels(["a"], ["b", "a", "c"]))
    array([1.5])
    """
    matrix = np.asarray(scores, dtype=np.float32)
    rows = np.repeat(np.arange(partners.shape[0]), partners.counts)
    return _ranks(_Block(slice(None), matrix, rows, partners.indices, partners.indptr[:-1]))


def _ranks(block: _Block) -> NDArray[np.float64]:
    partner_scores = block.scores[block.rows, block.columns]
    best = np.maximum.reduceat(partner_scores, block.starts)
    above = np.count_nonzero(block.scores > best[:, None], axis=1)
    level = np.count_nonzero(block.scores == best[:, None], axis=1)
    level -= np.add.reduceat(partner_scores == best[block.rows], block.starts, dtype=np.intp)
    return 1 + above + level / 2


def average_precision(
    queries: ArrayLike, gallery: ArrayLike, partners: Partners, *, chunk: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Average precision and precision@10 of each query over its full ranking; two (queries,) float64.

    Items that tie have no order, so both are the exact expectation over all orders of the tied items
    (McSherry and Najork 2008, "Computing information retrieval performance measures efficiently in the
    presence of tied scores"). In a gallery below 10 items, precision@10 divides by the gallery's size.

    >>> partners = Partners.from_labels(["a"], ["a", "b", "a"])
    >>> ap, p10 = average_precision([[1, 0]], [[1, 0], [0.6, 0.8], [0, 1]], partners)
    >>> ap.round(3).tolist(), p10.round(3).tolist()
    ([0.833], [0.667])

    Arguments and errors are those of `partner_ranks`.
    """
    precision, top = np.empty((2, partners.shape[0]))
    size = partners.shape[1]
    for block in _blocks(queries, gallery, partners, chunk):
        # One sort of integers that hold the score, descending, and in the lowest bit whether the item is
        # no partner: twice as fast as sorting positions and gathering relevance through them.
        keys = _descending(block.scores).astype(np.int64) << 1
        keys |= 1
        keys[block.rows, block.columns] ^= 1
        keys.sort(axis=1)
        hits = (keys & 1) == 0
        keys >>= 1
        fresh = np.ones(keys.shape, dtype=bool)
        np.not_equal(keys[:, 1:], keys[:, :-1], out=fresh[:, 1:])

        # Runs of tied items, over the flattened block (each row opens one). Partners come first in their
        # run, so that only runs whose first item is a partner matter.
        starts = np.flatnonzero(fresh)
        lengths = np.diff(starts, append=fresh.size)
        matters = hits.ravel()[starts]
        starts, lengths = starts[matters], lengths[matters]
        opens = np.flatnonzero(fresh[hits])
        found = np.diff(opens, append=len(block.rows))
        row, before = np.divmod(starts, size)
        first = np.searchsorted(row, np.arange(len(block.starts)))
        seen = opens - block.starts[row]

        counts = np.diff(block.starts, append=len(block.rows))
        precision[block.span] = np.add.reduceat(precision_sum(before, seen, lengths, found), first) / counts
        in_top = np.clip(_CUT - before, 0, lengths) * found / lengths
        top[block.span] = np.add.reduceat(in_top, first) / min(_CUT, size)
    return precision, top


def precision_sum(
    before: ArrayLike, seen: ArrayLike, length: ArrayLike, found: ArrayLike
) -> NDArray[np.float64]:
    """The expected sum of the precisions at the partners of one run of tied items, for each of many runs.

    The run starts after `before` items, `seen` of them partners, and holds `length` items, `found` of them
    partners. Its item i (1 to length) is a partner with probability found / length, and if so it has
    1 + seen + (i - 1) b partners down to itself in expectation, b = (found - 1) / (length - 1); divided by
    its position before + i and summed, that is a difference of two harmonic numbers H and a constant:

        found / length * [(1 + seen - b (1 + before)) (H(before + length) - H(before)) + b length]
    """
    before, seen, length, found = map(np.asarray, (before, seen, length, found))
    harmonic = np.append(0, np.cumsum(1 / np.arange(1, np.max(before + length) + 1)))
    slope = (found - 1) / np.maximum(length - 1, 1)
    reach = harmonic[before + length] - harmonic[before]
    return found / length * ((1 + seen - slope * (1 + before)) * reach + slope * length)


@dataclass(frozen=True)
class _Block:
    """The scores of consecutive queries against the whole gallery, and where their partners are in it."""

    span: slice
    scores: NDArray[np.float32]  # (queries of the block, gallery items)
    rows: NDArray[np.int64]  # of each partner, ascending
    columns: NDArray[np.int32]
    starts: NDArray[np.int64]  # of each query's partners in rows and columns


def _blocks(
    queries: ArrayLike, gallery: ArrayLike, partners: Partners, chunk: int | None
) -> Iterator[_Block]:
    queries, gallery = _vectors(queries, "query"), _vectors(gallery, "gallery")
    if queries.shape[1] != gallery.shape[1]:
        raise GeoBindError(
            f"query vectors have {queries.shape[1]} dimensions and gallery vectors {gallery.shape[1]}; "
            "embed both in one space"
        )
    if partners.shape != (len(queries), len(gallery)):
        raise GeoBindError(
            f"the partners are of {partners.shape[0]} queries and {partners.shape[1]} gallery items, the "
            f"vectors of {len(queries)} and {len(gallery)}; give one vector for each"
        )
    counts = partners.counts
    if len(counts) and counts.min() == 0:
        raise GeoBindError(
            f"{np.count_nonzero(counts == 0)} of {len(counts)} queries have no partner in the gallery (the "
            f"first is query {np.argmin(counts)}), so they have no rank; leave them out"
        )

    # A matrix product may round equal columns differently, by their position. Each distinct vector is
    # therefore scored once and its score copied, so that equal vectors tie exactly.
    distinct, position = _distinct(gallery)
    chunk = chunk or max(1, _BLOCK // max(len(gallery), 1))
    for start in range(0, len(queries), chunk):
        stop = min(start + chunk, len(queries))
        scores = queries[start:stop] @ distinct.T
        if len(distinct) < len(gallery):
            scores = scores[:, position]
        first, last = partners.indptr[start], partners.indptr[stop]
        yield _Block(
            span=slice(start, stop),
            scores=scores,
            rows=np.repeat(np.arange(stop - start), counts[start:stop]),
            columns=partners.indices[first:last],
            starts=partners.indptr[start:stop] - first,
        )


def _vectors(values: ArrayLike, role: str) -> NDArray[np.float32]:
    vectors = np.asarray(values, dtype=np.float32)
    if vectors.ndim != 2 or vectors.shape[1] == 0:
        raise GeoBindError(f"{role} vectors have shape {vectors.shape}; expected (items, dimensions)")
    # A finite length in float32 also bounds every score (Cauchy-Schwarz): no score overflows or is NaN.
    with np.errstate(over="ignore", invalid="ignore"):
        finite = np.isfinite(np.einsum("nd,nd->n", vectors, vectors))
    if not finite.all():
        raise GeoBindError(
            f"{role} vector {np.argmin(finite)} is NaN or infinite; expected unit vectors, so check or leave "
            "out that item"
        )
    return vectors


def _distinct(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """The distinct rows, and for each row its position among them; all rows in order if none repeats."""
    vectors = np.ascontiguousarray(vectors + np.float32(0))  # -0.0 to 0.0, which has other bytes
    raw = vectors.view(np.dtype((np.void, vectors.itemsize * vectors.shape[1]))).ravel()
    _, first, position = np.unique(raw, return_index=True, return_inverse=True)
    if len(first) == len(vectors):
        return vectors, np.arange(len(vectors))
    return vectors[first], position


def _descending(scores: NDArray[np.float32]) -> NDArray[np.int32]:
    """Integers that are equal where the scores are, and smaller where they are larger."""
    bits = (0 - scores).view(np.int32)  # 0 - x is never -0.0
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)  # negative floats count down from their sign bit


def _equal(left: NDArray[Any], right: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Every pair of positions (in left, in right) that hold equal values, left ascending."""
    order = np.argsort(right, kind="stable")
    right = right[order]
    first = np.searchsorted(right, left, side="left")
    counts = np.searchsorted(right, left, side="right") - first
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(np.arange(len(left)), counts), order[np.repeat(first, counts) + within]


def _from_pairs(rows: NDArray[Any], columns: NDArray[Any], shape: tuple[int, int]) -> Partners:
    """Pairs, sorted by row, as compressed rows."""
    indptr = np.zeros(shape[0] + 1, dtype=np.int64)
    np.cumsum(np.bincount(rows, minlength=shape[0]), out=indptr[1:])
    return Partners(indptr, columns.astype(np.int32), shape)


def _labels(labels: ArrayLike, role: str) -> list[str | int]:
    values = np.asarray(labels, dtype=object).tolist()
    for i, value in enumerate(values):
        if value is None or value == "" or value == -1:
            raise GeoBindError(f"{role} item {i} has no label ({value!r}); leave out the items without one")
        if not isinstance(value, str | int | np.integer):
            raise GeoBindError(f"{role} item {i} has the label {shorten(value)}; expected text or an integer")
    return [str(value) if isinstance(value, str) else int(value) for value in values]


def _places(places: Sequence[ArrayLike], role: str) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """All place ids in one array, and the item that each belongs to."""
    arrays = [np.asarray(ids) for ids in places]
    for i, ids in enumerate(arrays):
        if ids.ndim != 1 or (len(ids) and ids.dtype.kind not in "iu"):
            raise GeoBindError(
                f"the places of {role} item {i} are {shorten(places[i])}; expected a list of integer place ids"
            )
    flat = np.concatenate([np.empty(0, np.int64), *arrays]).astype(np.int64)
    return flat, np.repeat(np.arange(len(arrays)), [len(ids) for ids in arrays])
