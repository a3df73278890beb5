"""The protocol of the papers on SoundingEarth and Sat2Cap, to lay numbers beside theirs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geobind.errors import GeoBindError

_RECALL_AT = (5, 10, 50, 100)

PUBLISHED_METRICS = (*(f"recall@{k}" for k in _RECALL_AT), "recall@10%", "median_rank")


def published_values(ranks: ArrayLike, n_gallery: int) -> dict[str, NDArray[np.float64]]:
    """Each metric of `PUBLISHED_METRICS` by query, (queries,): the metric is their mean, or median by name.

    Ranks start at 1 and "R@k" counts those below k, so that "R@100" is what others call R@99. R@10% is
    that at a tenth of the gallery, rounded down (PSM, Sat2Sound). Median rank and recall come from the same
    ranks, hence from one direction; docs/published.md lists the papers where they do not.
    """
    ranks = np.asarray(ranks, dtype=np.float64)
    if not len(ranks):
        raise GeoBindError("there is no query to evaluate; check the split and the pairs")
    cuts = _cuts(n_gallery)
    return {name: (ranks < k).astype(np.float64) for name, k in cuts.items()} | {"median_rank": ranks}


def published_metrics(ranks: ArrayLike, n_gallery: int) -> dict[str, float]:
    """Recall and median rank as the papers count them.

    >>> metrics = published_metrics([1, 10, 40], n_gallery=10_000)
    >>> round(metrics["recall@10"], 3), metrics["median_rank"]
    (0.333, 10.0)
    """
    return {
        name: float(np.median(values) if name == "median_rank" else np.mean(values))
        for name, values in published_values(ranks, n_gallery).items()
    }


def published_chance(n_gallery: int) -> dict[str, float]:
    """What `published_metrics` is in expectation if every gallery, with one right answer, is in random order."""
    chance = {name: min(max(k - 1, 0) / n_gallery, 1.0) for name, k in _cuts(n_gallery).items()}
    return chance | {"median_rank": (n_gallery + 1) / 2}


def drawn_rows(rows: NDArray[Any], sample: int | None, where: str) -> NDArray[Any]:
    """`sample` of the rows, always the same ones, in their order; all of them if it is None.

    Raises GeoBindError where there are fewer: a smaller gallery is an easier one.
    """
    if sample is None:
        return rows
    if sample > len(rows):
        raise GeoBindError(
            f"{where}: a sample of {sample:,} rows, but only {len(rows):,} have both; ask for fewer, or leave it out"
        )
    return rows[np.sort(np.random.default_rng(0).permutation(len(rows))[:sample])]


def _cuts(n_gallery: int) -> dict[str, int]:
    return {f"recall@{k}": k for k in _RECALL_AT} | {"recall@10%": n_gallery // 10}
