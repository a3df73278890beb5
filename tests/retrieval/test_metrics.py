"""Metrics follow from ranks, and chance is what random rankings give.

* each metric equals its formula on given ranks; recall above one half implies median rank at most k;
* chance equals the enumeration of every ranking of a small gallery, and a simulation of a larger one;
* a gallery smaller than k has recall 1, and so has chance;
* a space that ranks at random scores within sampling error of chance through the real functions.
"""

from __future__ import annotations

import doctest
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geobind.errors import GeoBindError
from geobind.retrieval import metrics as module
from geobind.retrieval.metrics import (
    GROUP_METRICS,
    PARTNER_METRICS,
    group_chance,
    group_metrics,
    partner_chance,
    partner_metrics,
)
from geobind.retrieval.ranks import Partners, average_precision, partner_ranks

RANKS = st.lists(st.integers(2, 400).map(lambda twice: twice / 2), min_size=1, max_size=50)


def test_metrics_equal_their_formulas() -> None:
    found = partner_metrics([1, 2.5, 10, 10.5, 60, 300])
    assert tuple(found) == PARTNER_METRICS
    expected = {
        "recall@1": 1 / 6,
        "recall@5": 2 / 6,
        "recall@10": 3 / 6,
        "recall@50": 4 / 6,
        "recall@100": 5 / 6,
        "median_rank": 10.25,
        "mrr": (1 + 1 / 2.5 + 1 / 10 + 1 / 10.5 + 1 / 60 + 1 / 300) / 6,
        "ndcg@10": (1 + 1 / np.log2(3.5) + 1 / np.log2(11)) / 6,
    }
    assert found == pytest.approx(expected, rel=1e-12)
    assert group_metrics([0.5, 1.0], [0.1, 0.3]) == pytest.approx({"map": 0.75, "precision@10": 0.2})
    assert tuple(group_metrics([1.0], [1.0])) == GROUP_METRICS


@given(RANKS)
def test_recall_above_half_bounds_the_median_rank(ranks: list[float]) -> None:
    found = partner_metrics(ranks)
    for k in (1, 5, 10, 50, 100):
        if found[f"recall@{k}"] > 0.5:
            assert found["median_rank"] <= k


@pytest.mark.parametrize(("n_gallery", "counts"), [(1, [1]), (5, [1]), (6, [2, 2, 5]), (7, [1, 3, 3, 6, 7])])
def test_chance_equals_every_ranking_of_a_small_gallery(n_gallery: int, counts: list[int]) -> None:
    ranks, ap, p10 = [], [], []
    for order in itertools.permutations(range(n_gallery)):
        for count in counts:
            hits = np.array(order) < count
            places = np.flatnonzero(hits) + 1
            ranks.append(places[0])
            ap.append(np.mean(np.arange(1, count + 1) / places))
            p10.append(hits[:10].sum() / min(10, n_gallery))
    chance = partner_chance(counts, n_gallery)
    assert tuple(chance) == PARTNER_METRICS
    assert chance == pytest.approx(partner_metrics(ranks), rel=1e-9)
    assert group_chance(counts, n_gallery) == pytest.approx(group_metrics(ap, p10), rel=1e-9)
    assert chance["recall@10"] == 1  # every one of these galleries is smaller than 10


def test_chance_equals_random_spaces_through_the_real_functions() -> None:
    rng = np.random.default_rng(0)
    gallery_labels = rng.integers(0, 30, 400) ** 2 // 60  # groups of very different sizes
    query_labels = rng.choice(gallery_labels, 4000)
    queries, gallery = rng.standard_normal((4000, 400)), rng.permutation(np.eye(400))
    partners = Partners.from_labels(query_labels, gallery_labels)

    def close(found: dict[str, float], chance: dict[str, float]) -> None:
        for name, value in found.items():
            tolerance = 1.0 if name == "median_rank" else 0.025
            assert value == pytest.approx(chance[name], abs=tolerance), name

    close(partner_metrics(partner_ranks(queries, gallery, partners)), partner_chance(partners.counts, 400))
    close(group_metrics(*average_precision(queries, gallery, partners)), group_chance(partners.counts, 400))


def test_chance_with_one_partner_is_the_uniform_rank() -> None:
    for n_gallery in (10_000, 99_999):
        chance = partner_chance(np.ones(7), n_gallery)
        assert chance["median_rank"] == (n_gallery + 1) / 2
        assert chance["recall@100"] == pytest.approx(100 / n_gallery, rel=1e-9)
        assert chance["mrr"] == pytest.approx(np.mean(1 / np.arange(1, n_gallery + 1)), rel=1e-9)


def test_one_vector_for_everything_is_worth_chance() -> None:
    vectors = np.ones((40, 3), dtype=np.float32)
    partners = Partners.from_labels(np.arange(40) % 8, np.arange(40) % 8)
    found = group_metrics(*average_precision(vectors, vectors, partners))
    assert found == pytest.approx(group_chance(partners.counts, 40), rel=1e-12)
    single = Partners.from_labels(np.arange(40), np.arange(40))
    chance = partner_chance(single.counts, 40)
    assert partner_metrics(partner_ranks(vectors, vectors, single))["median_rank"] == chance["median_rank"]


@pytest.mark.parametrize("chance", [partner_chance, group_chance])
@pytest.mark.parametrize("counts", [[], [0, 1], [6]])
def test_impossible_counts_are_refused(chance: Callable[..., Any], counts: list[int]) -> None:
    with pytest.raises(GeoBindError, match="1 to 5 partners"):
        chance(counts, 5)


def test_no_query_is_refused() -> None:
    with pytest.raises(GeoBindError, match="no query"):
        partner_metrics([])
    with pytest.raises(GeoBindError, match="no query"):
        group_metrics([], [])


def test_examples_run() -> None:
    assert doctest.testmod(module).failed == 0
