"""Bootstrap intervals cover the truth as often as they say, and repeat exactly.

* a known recall, mean and median are covered at about the nominal rate;
* intervals equal those of resampling written as a loop over draws, with the same draws;
* one seed, one answer; a metric's interval does not depend on which others are asked for.
"""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from numpy.typing import ArrayLike

from geobind.retrieval import bootstrap as module
from geobind.retrieval.bootstrap import bootstrap
from geobind.retrieval.metrics import (
    GROUP_METRICS,
    PARTNER_METRICS,
    group_metrics,
    group_values,
    partner_metrics,
    partner_values,
)


def partner_intervals(ranks: ArrayLike, seed: int = 0) -> dict[str, tuple[float, float]]:
    return bootstrap(partner_values(ranks), medians=("median_rank",), seed=seed)


def test_intervals_cover_the_truth_at_about_the_nominal_rate() -> None:
    # Ranks uniform on 1 to 30: recall@10 is 1/3, the mean reciprocal rank a harmonic number over 30.
    rng = np.random.default_rng(0)
    truth = {"recall@10": 1 / 3, "mrr": float(np.mean(1 / np.arange(1, 31))), "median_rank": 15.5}
    covered = dict.fromkeys(truth, 0)
    for seed in range(300):
        intervals = partner_intervals(rng.integers(1, 31, 200), seed=seed)
        for name, value in truth.items():
            low, high = intervals[name]
            covered[name] += low <= value <= high
    for name, times in covered.items():
        assert 0.90 <= times / 300 <= 0.99, name


def test_confidence_is_the_share_that_is_covered() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(300):
        values = {"ap": rng.standard_normal(100)}
        low, high = bootstrap(values, draws=400, seed=seed, confidence=0.5)["ap"]
        covered += low <= 0 <= high
    assert 0.42 <= covered / 300 <= 0.58


@pytest.mark.parametrize("block", [2**20, 2**9])
def test_intervals_equal_a_loop_over_draws(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    ranks = np.random.default_rng(2).integers(1, 300, 101)
    drawn = np.random.default_rng(5).integers(101, size=(200, 101))
    tables = [partner_metrics(ranks[rows]) for rows in drawn]
    found = bootstrap(partner_values(ranks), medians=("median_rank",), draws=200, seed=5)
    assert tuple(found) == PARTNER_METRICS
    for name, interval in found.items():
        assert interval == pytest.approx(np.quantile([t[name] for t in tables], [0.025, 0.975]), rel=1e-9)


def test_the_same_seed_gives_the_same_intervals() -> None:
    rng = np.random.default_rng(3)
    ranks, ap = rng.integers(1, 500, 400), rng.random(400)
    assert partner_intervals(ranks, seed=1) == partner_intervals(ranks, seed=1)
    assert partner_intervals(ranks, seed=1) != partner_intervals(ranks, seed=2)
    both = bootstrap(group_values(ap, ap**2))
    assert tuple(both) == GROUP_METRICS
    assert both["map"] == pytest.approx(bootstrap({"map": ap})["map"], rel=1e-12)


def test_intervals_hold_the_metric_and_tighten_with_more_queries() -> None:
    rng = np.random.default_rng(4)
    widths = []
    for size in (100, 10_000):
        ap, p10 = rng.random((2, size))
        intervals, metrics = bootstrap(group_values(ap, p10)), group_metrics(ap, p10)
        for name, (low, high) in intervals.items():
            assert low < metrics[name] < high
        widths.append(intervals["map"][1] - intervals["map"][0])
    assert widths[1] == pytest.approx(widths[0] / 10, rel=0.25)


def test_one_query_has_no_spread() -> None:
    for name, (low, high) in partner_intervals([3.0]).items():
        assert low == high == partner_metrics([3.0])[name]


def test_examples_run() -> None:
    assert doctest.testmod(module).failed == 0
