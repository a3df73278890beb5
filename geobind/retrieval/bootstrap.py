"""Intervals of retrieval metrics: how much they would vary with other queries of the same kind."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

# Resampled queries held at once: 8 MB of positions.
_BLOCK = 2**20


def bootstrap(
    values: Mapping[str, NDArray[np.float64]],
    *,
    medians: Collection[str] = (),
    draws: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of metrics that are means (or `medians`, by name) of values by query.

    Queries are drawn with replacement `draws` times, the same draws for all metrics, and the interval
    spans the middle `confidence` of what the metric becomes (Efron and Tibshirani 1993, chapter 13).

    >>> low, high = bootstrap({"recall@1": np.repeat([0.0, 1.0], 50)})["recall@1"]
    >>> 0.39 <= low <= 0.42, 0.58 <= high <= 0.61
    (True, True)

    `values` holds one (queries,) array a metric, all of one length. The same seed gives the same intervals.
    """
    names = list(values)
    table = np.stack([np.asarray(values[name], dtype=np.float64) for name in names], axis=1)
    results = []
    for drawn, times in resamples(len(table), draws=draws, seed=seed):
        found = times @ table / len(table)  # every mean, as one matrix product
        for column, name in enumerate(names):
            if name in medians:
                found[:, column] = np.median(table[drawn, column], axis=1)
        results.append(found)
    low, high = middle(np.concatenate(results), confidence)
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(names)}


def resamples(
    size: int, *, draws: int = 1000, seed: int = 0
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Draws of `size` items with replacement, in blocks that fit in memory.

    >>> drawn, times = next(resamples(3, draws=1))       # [[2, 1, 1]], [[0, 2, 1]]

    Yields the positions drawn (block, size), and how often each item was (block, size).
    """
    rng = np.random.default_rng(seed)
    step = max(1, _BLOCK // size)
    for start in range(0, draws, step):
        block = min(step, draws - start)
        drawn = rng.integers(size, size=(block, size))
        rows = np.arange(block)[:, None] * size
        yield drawn, np.bincount((drawn + rows).ravel(), minlength=rows.size * size).reshape(drawn.shape)


def middle(results: NDArray[np.float64], confidence: float = 0.95) -> NDArray[np.float64]:
    """(2, ...): the lower and the upper end of the middle `confidence` of results (draws, ...)."""
    tail = (1 - confidence) / 2
    return np.quantile(results, [tail, 1 - tail], axis=0)
