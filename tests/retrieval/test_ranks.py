"""Ranks and average precision equal their definitions, written out.

* rank = 1 + non-partners strictly above the best partner + half of those level with it (double loop);
* equal vectors tie exactly, whatever their position and the size of the block;
* average precision and precision@10 are the mean over every order of the tied items;
* partners are the pairs of equal labels, or of a shared place, in both directions;
* memory does not grow with queries x gallery.
"""

from __future__ import annotations

import doctest
import itertools
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from geobind.errors import GeoBindError
from geobind.retrieval import ranks as module
from geobind.retrieval.ranks import Partners, average_precision, partner_ranks, score_ranks


def sets(partners: Partners) -> list[set[int]]:
    """Partners of each query; each of them once."""
    parts = np.split(partners.indices, partners.indptr[1:-1])
    assert all(len(part) == len(set(part.tolist())) for part in parts)
    return [set(part.tolist()) for part in parts]


def brute_rank(scores: np.ndarray, partners: set[int]) -> float:
    best = max(scores[j] for j in partners)
    rank = 1.0
    for j, score in enumerate(scores):
        if j not in partners:
            rank += 1.0 if score > best else 0.5 if score == best else 0.0
    return rank


def brute_precision(scores: np.ndarray, partners: set[int]) -> tuple[float, float]:
    """Means over all orders of the gallery that are sorted by score."""
    orders = [
        order
        for order in itertools.permutations(range(len(scores)))
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]
    ap, top = [], []
    for order in orders:
        hits = [j in partners for j in order]
        ap.append(np.mean([sum(hits[: i + 1]) / (i + 1) for i, hit in enumerate(hits) if hit]))
        top.append(sum(hits[:10]) / min(10, len(hits)))
    return float(np.mean(ap)), float(np.mean(top))


@st.composite
def problems(draw: st.DrawFn, most: int) -> tuple[np.ndarray, np.ndarray, Partners, int]:
    """Small integer vectors, so that scores are exact and often equal; every query has a partner."""
    n_queries, n_gallery = draw(st.integers(1, 6)), draw(st.integers(1, most))
    dim = draw(st.integers(1, 3))
    values = st.integers(-2, 2)
    queries = draw(arrays(np.float32, (n_queries, dim), elements=values))
    gallery = draw(arrays(np.float32, (n_gallery, dim), elements=values))
    labels = draw(st.lists(st.integers(0, 3), min_size=n_gallery, max_size=n_gallery))
    wanted = draw(st.lists(st.sampled_from(labels), min_size=n_queries, max_size=n_queries))
    return queries, gallery, Partners.from_labels(wanted, labels), draw(st.integers(1, 7))


@given(problems(most=12))
@settings(max_examples=300, deadline=None)
def test_ranks_equal_the_double_loop(problem: tuple[np.ndarray, np.ndarray, Partners, int]) -> None:
    queries, gallery, partners, chunk = problem
    expected = [brute_rank(row, own) for row, own in zip(queries @ gallery.T, sets(partners), strict=True)]
    np.testing.assert_array_equal(partner_ranks(queries, gallery, partners, chunk=chunk), expected)
    np.testing.assert_array_equal(partner_ranks(queries, gallery, partners), expected)


@given(problems(most=6))
@settings(max_examples=60, deadline=None)
def test_average_precision_is_the_mean_over_tied_orders(
    problem: tuple[np.ndarray, np.ndarray, Partners, int],
) -> None:
    queries, gallery, partners, chunk = problem
    expected = [
        brute_precision(row, own) for row, own in zip(queries @ gallery.T, sets(partners), strict=True)
    ]
    found = np.stack(average_precision(queries, gallery, partners, chunk=chunk), axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_sort_keys_order_as_the_scores_do() -> None:
    scores = np.array([-np.pi, -1, -1e-40, -0.0, 0.0, 1e-40, 0.5, 0.5, 3e38], dtype=np.float32)
    keys = module._descending(scores)
    np.testing.assert_array_equal(np.sign(np.diff(keys)), -np.sign(np.diff(scores)))


def test_average_precision_of_a_long_ranking_equals_the_loop() -> None:
    rng = np.random.default_rng(0)
    queries, gallery = rng.standard_normal((20, 8)), rng.standard_normal((300, 8))
    partners = Partners.from_labels(np.arange(20) % 7, np.arange(300) % 7)
    ap, p10 = average_precision(queries, gallery, partners, chunk=3)
    scores = queries.astype(np.float32) @ gallery.astype(np.float32).T
    for q, own in enumerate(sets(partners)):
        hits = np.isin(np.argsort(-scores[q]), list(own))
        places = np.flatnonzero(hits) + 1
        assert ap[q] == pytest.approx(np.mean(np.arange(1, len(places) + 1) / places), rel=1e-12)
        assert p10[q] == hits[:10].sum() / 10


@pytest.mark.parametrize("n_gallery", [37, 256, 1001])
def test_equal_vectors_tie_exactly_at_any_position(n_gallery: int) -> None:
    # Real-valued, so that one pair's score can differ in the last bit between places of a product.
    rng = np.random.default_rng(n_gallery)
    gallery = rng.standard_normal((n_gallery, 300)).astype(np.float32)
    gallery[:, 7] = 0
    queries = gallery[:5] + rng.standard_normal((5, 300)).astype(np.float32) / 4
    copies = np.concatenate([gallery, gallery[:5], gallery[:5]])
    copies[-5:, 7] = -0.0  # equal to 0.0, in other bytes
    assert len(module._distinct(copies)[0]) == n_gallery
    labels = np.arange(len(copies)) + 1
    partners = Partners.from_labels(labels[:5], labels)
    for chunk in (1, 2, 5):
        np.testing.assert_array_equal(partner_ranks(queries, copies, partners, chunk=chunk), np.full(5, 2.0))


def test_one_vector_for_everything_gives_the_expected_rank() -> None:
    vectors = np.tile(np.array([0.6, 0.8], dtype=np.float32), (50, 1))
    partners = Partners.from_labels(np.arange(50) // 5, np.arange(50) // 5)
    np.testing.assert_array_equal(partner_ranks(vectors, vectors, partners), np.full(50, 45 / 2 + 1))
    ap, p10 = average_precision(vectors, vectors, partners)
    assert p10 == pytest.approx(np.full(50, 0.1))
    assert np.ptp(ap) == 0


@given(
    st.lists(st.lists(st.integers(0, 5), max_size=4), max_size=6),
    st.lists(st.lists(st.integers(0, 5), max_size=4), max_size=6),
)
@settings(deadline=None)
def test_partners_share_a_place(query_places: list[list[int]], gallery_places: list[list[int]]) -> None:
    partners = Partners.from_places(query_places, gallery_places)
    expected = [{j for j, b in enumerate(gallery_places) if set(a) & set(b)} for a in query_places]
    assert partners.shape == (len(query_places), len(gallery_places))
    if query_places:
        assert sets(partners) == expected
        assert partners.counts.tolist() == [len(own) for own in expected]
    turned, reverse = partners.transpose(), Partners.from_places(gallery_places, query_places)
    assert turned.shape == reverse.shape
    np.testing.assert_array_equal(turned.indptr, reverse.indptr)
    np.testing.assert_array_equal(turned.indices, reverse.indices)


@pytest.mark.parametrize("kind", [str, int])
def test_partners_have_equal_labels(kind: type) -> None:
    rng = np.random.default_rng(0)
    queries, gallery = ([kind(v) for v in rng.integers(0, 6, n)] for n in (30, 40))
    expected = [{j for j, b in enumerate(gallery) if a == b} for a in queries]
    assert sets(Partners.from_labels(queries, gallery)) == expected
    assert sets(Partners.from_labels(np.array(queries), np.array(gallery))) == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Partners.from_labels(["a", ""], ["a"]), "query item 1 has no label"),
        (lambda: Partners.from_labels(["a"], np.array(["a", None])), "gallery item 1 has no label"),
        (lambda: Partners.from_labels([3, -1], [3]), "query item 1 has no label"),
        (lambda: Partners.from_labels(["a"], [1]), "partly text and partly integers"),
        (lambda: Partners.from_labels([1.5], [1]), "query item 0 has the label 1.5"),
        (lambda: Partners.from_places([["a"]], [[1]]), "places of query item 0"),
        (lambda: partner_ranks([[1.0]], [[1.0]], Partners.from_labels([1], [2])), "1 of 1 queries"),
        (lambda: partner_ranks([[np.nan]], [[1.0]], Partners.from_labels([1], [1])), "query vector 0"),
        (lambda: partner_ranks([[1.0]], [[np.inf]], Partners.from_labels([1], [1])), "gallery vector 0"),
        (lambda: partner_ranks([[1e30]], [[1e30]], Partners.from_labels([1], [1])), "query vector 0"),
        (lambda: partner_ranks([[1.0]], [[1.0, 0.0]], Partners.from_labels([1], [1])), "1 dimensions"),
        (lambda: partner_ranks([[1.0]], [[1.0]] * 2, Partners.from_labels([1], [1])), "1 gallery items"),
        (lambda: average_precision([1.0], [[1.0]], Partners.from_labels([1], [1])), "have shape (1,)"),
    ],
)
def test_mistakes_are_named_in_one_line(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(GeoBindError) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rank", [partner_ranks, average_precision])
def test_memory_is_a_fraction_of_all_scores(rank: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    queries, gallery = rng.standard_normal((2, 3000, 64)).astype(np.float32)
    partners = Partners.from_labels(np.arange(3000), np.arange(3000))
    whole = 3000 * 3000 * 4  # bytes of all scores
    tracemalloc.start()
    rank(queries, gallery, partners, chunk=64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < whole / 3
    rank(queries, gallery, partners)  # in blocks of the default size


def test_examples_run() -> None:
    assert doctest.testmod(module).failed == 0


def test_ranks_of_a_score_matrix_are_those_of_its_vectors():
    rng = np.random.default_rng(3)
    queries, gallery = rng.integers(-1, 2, (20, 3)), rng.integers(-1, 2, (30, 3))
    partners = Partners.from_labels(rng.integers(0, 4, 20), np.arange(30) % 4)
    assert np.array_equal(
        score_ranks(queries @ gallery.T, partners), partner_ranks(queries, gallery, partners)
    )
