"""The order of training: a function of (seed, epoch), cut into steps and sliced by rank.

Nothing is carried from step to step, so a run that resumes at step k, or with another number of
processes, sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geobind.errors import GeoBindError

# Last word of each seed: keeps the streams apart where (seed, epoch, row) are equal.
_SHUFFLE, _WITHIN_PLACE, _AUGMENT, _REPLACE, _OTHERS = range(5)


def epoch_batches(
    places: NDArray[np.int64],
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    rows_per_place: int | None = None,
    rank: int = 0,
    processes: int = 1,
) -> NDArray[np.int64]:
    """Row indices of an epoch's batches as this rank sees them: (steps, batch_size / processes).

    All rows are shuffled and cut into batches. The rest that does not fill one is left out (other rows
    each epoch), as a contrastive loss depends on the batch's size; fewer rows than one batch make one
    smaller batch. The columns of ranks 0, 1, ... side by side are the batches of a single process.

    With `rows_per_place` an epoch visits each place once, with at most so many of its rows, side by side.
    A place of more rows shows the next of them each epoch. With 1, no batch holds a place twice.

    >>> epoch_batches(np.array([0, 0, 1, 2]), batch_size=2, seed=0, epoch=0).shape   # (2, 2)

    Raises GeoBindError where a batch would hold no negatives or cannot be shared among the processes.
    """
    places = np.asarray(places, dtype=np.int64)
    if batch_size < 2:
        raise GeoBindError(f"batch_size {batch_size}: contrastive batches need at least 2 rows")
    if batch_size % processes:
        raise GeoBindError(
            f"batch_size {batch_size} is not a multiple of {processes} processes: it counts the rows of all of them"
        )
    if len(places) < 2 or (places == places[0]).all():
        raise GeoBindError(
            f"{len(places)} row(s) of one place hold no negatives: training needs at least two places"
        )
    if rows_per_place is not None and rows_per_place >= batch_size:
        raise GeoBindError(
            f"rows_per_place {rows_per_place} leaves batches of {batch_size} rows without negatives: make them larger"
        )
    shown = (
        _next_rows(places, seed, epoch, rows_per_place) if rows_per_place else np.arange(len(places))[:, None]
    )
    shown = shown[np.random.default_rng([seed, epoch, _SHUFFLE]).permutation(len(shown))]
    rows = shown[shown >= 0]
    size = min(batch_size, len(rows) // processes * processes)
    if size < 2:
        raise GeoBindError(f"{len(rows)} rows to train on cannot be shared among {processes} processes")
    steps = len(rows) // size
    share = size // processes
    return rows[: steps * size].reshape(steps, size)[:, rank * share : (rank + 1) * share]


def _next_rows(places: NDArray[np.int64], seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """(places, count) rows of each place, in a random order of their own: the epoch's turn; -1 where it has fewer."""
    shuffle = np.random.default_rng([seed, _WITHIN_PLACE]).permutation(len(places))
    by_place = shuffle[np.argsort(places[shuffle], kind="stable")]
    _, first, size = np.unique(places[by_place], return_index=True, return_counts=True)
    turn = np.arange(count) + epoch * np.minimum(count, size)[:, None]
    return np.where(np.arange(count) < size[:, None], by_place[first[:, None] + turn % size[:, None]], -1)


def row_generator(seed: int, epoch: int, row: int) -> np.random.Generator:
    """The randomness of one row in one epoch (augmentation, windows): the same in any worker."""
    return np.random.default_rng([seed, epoch, row, _AUGMENT])


def replacement(seed: int, epoch: int, row: int, n: int, attempt: int = 0) -> int:
    """Another of `n` rows to stand in for an unreadable one: the same on every rank.

    Raises GeoBindError where there is no other row.
    """
    if n < 2:
        raise GeoBindError("the only row cannot be read: nothing can stand in for it")
    other = int(np.random.default_rng([seed, epoch, row, attempt, _REPLACE]).integers(n - 1))
    return other + (other >= row)


def other_rows(n: int, count: int, *, seed: int, step: int, batch: NDArray[np.int64]) -> NDArray[np.int64]:
    """`count` of `n` rows at random (all there are, if fewer), none twice and none of the batch's."""
    drawn = np.random.default_rng([seed, step, _OTHERS]).choice(n, min(n, count + len(batch)), replace=False)
    return drawn[~np.isin(drawn, batch)][:count]
