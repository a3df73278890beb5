"""Retrieval metrics of one direction, and what a random ranking would give on the same gallery."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geobind.errors import GeoBindError
from geobind.retrieval.ranks import precision_sum

_RECALL_AT = (1, 5, 10, 50, 100)

PARTNER_METRICS = (*(f"recall@{k}" for k in _RECALL_AT), "median_rank", "mrr", "ndcg@10")
GROUP_METRICS = ("map", "precision@10")


def partner_values(ranks: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """Each metric of `PARTNER_METRICS` by query, (queries,): the metric is their mean, or median by name.

    With one relevant item, nDCG@10 is 1 / log2(1 + rank) down to rank 10 (the ideal is 1), then 0.
    """
    ranks = _of_queries(ranks)
    values = {f"recall@{k}": (ranks <= k).astype(np.float64) for k in _RECALL_AT}
    return values | {"median_rank": ranks, "mrr": 1 / ranks, "ndcg@10": _discount(ranks)}


def group_values(ap: ArrayLike, p10: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """Each metric of `GROUP_METRICS` by query, (queries,), from what `average_precision` returns."""
    return {"map": _of_queries(ap), "precision@10": _of_queries(p10)}


def partner_metrics(ranks: ArrayLike) -> dict[str, float]:
    """Recall at 1 to 100, median rank, mean reciprocal rank and nDCG@10, from `partner_ranks`.

    >>> metrics = partner_metrics([1, 2.5, 40])
    >>> round(metrics["recall@10"], 3), metrics["median_rank"], round(metrics["mrr"], 3)
    (0.667, 2.5, 0.475)
    """
    return {
        name: float(np.median(values) if name == "median_rank" else np.mean(values))
        for name, values in partner_values(ranks).items()
    }


def group_metrics(ap: ArrayLike, p10: ArrayLike) -> dict[str, float]:
    """Mean average precision and mean precision@10, from `average_precision`."""
    return {name: float(np.mean(values)) for name, values in group_values(ap, p10).items()}


def partner_chance(counts: ArrayLike, n_gallery: int) -> dict[str, float]:
    """What `partner_metrics` is in expectation if every gallery is ranked at random; exact.

    The rank counts the non-partners above the best partner, so it is the position of the first partner in
    a random order. With m partners among N items, P(rank > r) = C(N - m, r) / C(N, r), the product of
    (N - m - i) / (N - i) over i < r. Queries of different m mix; the median rank is the median of that
    mixture, halfway where two ranks share it.

    >>> chance = partner_chance([1, 1], n_gallery=100)
    >>> round(chance["recall@10"], 6), chance["median_rank"], round(chance["mrr"], 6)
    (0.1, 50.5, 0.051874)

    `counts` (queries,) is `Partners.counts`. Raises GeoBindError for a count below 1 or above the gallery.
    """
    sizes, times = _sizes(counts, n_gallery)
    beyond = np.zeros(n_gallery + 1)  # P(rank > r), r = 0 to N
    drawn = np.arange(n_gallery)
    for size, share in zip(sizes, times / times.sum(), strict=True):
        missed = np.maximum(n_gallery - size - drawn, 0) / (n_gallery - drawn)
        beyond += share * np.append(1, np.cumprod(missed))

    ranks = np.arange(1, n_gallery + 1)
    probability = beyond[:-1] - beyond[1:]
    rounding = 1e-9  # of the products; far below what one rank takes of a half
    low, high = np.argmax(beyond <= 0.5 + rounding), np.argmax(beyond < 0.5 - rounding)
    return {f"recall@{k}": float(1 - beyond[min(k, n_gallery)]) for k in _RECALL_AT} | {
        "median_rank": float(low + high) / 2,
        "mrr": float(probability @ (1 / ranks)),
        "ndcg@10": float(probability @ _discount(ranks)),
    }


def group_chance(counts: ArrayLike, n_gallery: int) -> dict[str, float]:
    """What `group_metrics` is in expectation if every gallery is ranked at random; exact.

    A random order is one run of tied items, so the average precision is that of `precision_sum`; a share
    R / N of any ten items is relevant. Arguments and errors are those of `partner_chance`.
    """
    sizes, times = _sizes(counts, n_gallery)
    ap = precision_sum(0, 0, n_gallery, sizes) / sizes
    return {
        "map": float(np.average(ap, weights=times)),
        "precision@10": float(np.average(sizes / n_gallery, weights=times)),
    }


def _of_queries(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if not len(array):
        raise GeoBindError("there is no query to evaluate; check the split, the pairs and the groups")
    return array


def _discount(ranks: NDArray[Any]) -> NDArray[np.float64]:
    return np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0.0)


def _sizes(counts: ArrayLike, n_gallery: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The distinct numbers of partners, and how many queries have each."""
    sizes, times = np.unique(np.asarray(counts, dtype=np.int64), return_counts=True)
    if not len(sizes) or sizes[0] < 1 or sizes[-1] > n_gallery:
        found = f"{sizes[0]} to {sizes[-1]}" if len(sizes) else "no query"
        raise GeoBindError(
            f"chance needs 1 to {n_gallery} partners for every query (the gallery's size), but has {found}; "
            "leave out the queries without a partner"
        )
    return sizes, times
