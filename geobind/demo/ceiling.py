"""The best retrieval that the miniature Earth allows: an observer who reads a place's attributes without error.

Captions, views and sounds are drawn from a few discrete attributes, so places with equal attributes cannot
be told apart by them, and no model can be expected to find more than this observer does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geobind.data.earth.attributes import FIELDS, NAMES, Attributes, visible
from geobind.retrieval.ranks import Partners, score_ranks

RENDERED = ("satellite", "image", "text", "audio")  # positions and climate hold more than the attributes


@dataclass(frozen=True)
class Seen:
    """What the observer knows of one modality's items.

    `attributes` of n items; `shows` (n, fields) bool: which of them an item reveals (a caption mentions
    only some); `places` of each item, as in `Partners.from_places`.
    """

    attributes: Attributes
    shows: NDArray[np.bool_]
    places: list[NDArray[np.int64]]


def ceiling(query: Seen, gallery: Seen, k: int = 10) -> tuple[float, float]:
    """Recall@k of the ideal observer: with ties at the expected rank, and with ties in random order.

    The observer ranks gallery items by the probability that they belong to the query: nothing where an
    attribute that both reveal differs, else one over the number of queries that the item would fit. At
    the expected rank n tied places count as found where (n + 1) / 2 <= k, the convention of all our
    ranks; in random order each is found with probability k / n, which bounds a model on average.
    """
    scores = _posterior(query, gallery)
    partners = Partners.from_places(query.places, gallery.places)
    at_expected = score_ranks(scores, partners) <= k
    rows = np.repeat(np.arange(len(query.places)), partners.counts)
    best = np.zeros(len(query.places))
    np.maximum.at(best, rows, scores[rows, partners.indices])
    above = (scores > best[:, None]).sum(1)
    right = np.bincount(rows[scores[rows, partners.indices] == best[rows]], minlength=len(best))
    wrong = (scores == best[:, None]).sum(1) - right
    return float(at_expected.mean()), float(_chance_within(k - above, right, wrong).mean())


def seen_of(earth: Path, modality: str, split: str = "test") -> Seen:
    """The distinct items of a modality in a split of an Earth's `places.parquet`."""
    table = pq.read_table(earth / "places.parquet", filters=[("split", "=", split)])
    values = np.array(table[modality].to_pylist(), object)
    there = np.flatnonzero(values != None)  # noqa: E711  elementwise
    _, first, item = np.unique(values[there], return_index=True, return_inverse=True)
    rows = there[first]
    attributes = Attributes.of(
        **{name: [NAMES[name].index(value) for value in table[name].to_pylist()] for name in FIELDS}
    )[rows]
    if modality == "text":
        told = [set(mentions.split()) for mentions in np.array(table["mentions"].to_pylist(), object)[rows]]
        shows = np.array([[name in mentioned for name in FIELDS] for mentioned in told])
    else:
        shows = np.tile([name in visible(modality) for name in FIELDS], (len(rows), 1))
    return Seen(attributes, shows, [there[item == i] for i in range(len(rows))])


def _posterior(query: Seen, gallery: Seen) -> NDArray[np.float64]:
    fits = np.ones((len(query.places), len(gallery.places)), bool)
    for column, field in enumerate(FIELDS):
        both = query.shows[:, column, None] & gallery.shows[None, :, column]
        one, other = getattr(query.attributes, field), getattr(gallery.attributes, field)
        fits &= ~both | (one[:, None] == other[None, :])
    return fits / np.maximum(fits.sum(0), 1)


def _chance_within(
    free: NDArray[np.integer], right: NDArray[np.integer], wrong: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Probability that one of `right` items is among the first `free` of right + wrong in random order."""
    missed = np.ones(len(right))
    for drawn in range(int(max(free.max(), 0))):
        left = np.maximum(wrong - drawn, 0) / np.maximum(right + wrong - drawn, 1)
        missed = np.where(drawn < free, missed * left, missed)
    return np.where(free > 0, 1 - missed, 0.0)
