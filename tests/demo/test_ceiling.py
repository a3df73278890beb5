"""The ideal observer's recall equals a simulation, and is 1 where all places differ."""

from __future__ import annotations

import numpy as np
import pytest

from geobind.data.earth.attributes import FIELDS, NAMES, Attributes
from geobind.demo.ceiling import Seen, ceiling


def seen(codes: np.ndarray, shows: np.ndarray | None = None) -> Seen:
    """Items at one place each, whose attributes are the digits of a code."""
    fields = {}
    for name in FIELDS:
        fields[name], codes = codes % len(NAMES[name]), codes // len(NAMES[name])
    attributes = Attributes.of(**fields)
    n = len(attributes)
    return Seen(
        attributes,
        np.ones((n, len(FIELDS)), bool) if shows is None else shows,
        [np.array([i]) for i in range(n)],
    )


def test_places_that_all_differ_are_all_found():
    everything = seen(np.arange(100))
    assert ceiling(everything, everything) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("alike", "expected", "random"), [(10, 1.0, 1.0), (19, 1.0, 10 / 19), (20, 0.0, 0.5), (40, 0.0, 0.25)]
)
def test_places_alike_share_their_rank(alike, expected, random):
    same = seen(np.zeros(alike, int))
    assert ceiling(same, same) == pytest.approx((expected, random))


def test_what_one_side_hides_cannot_be_used():
    codes = np.arange(100) % 13  # the first attribute alone tells them apart
    blind = np.ones((100, len(FIELDS)), bool)
    blind[:, 0] = False
    assert ceiling(seen(codes), seen(codes, blind))[1] == pytest.approx(0.1)


def test_random_ties_equal_a_simulation():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 13, 60)
    item = seen(codes)
    found = []
    for _ in range(400):
        order = rng.permutation(60)
        first = [np.flatnonzero(codes[order] == codes[i])[:3] for i in range(60)]
        found.append(np.mean([i in order[f] for i, f in enumerate(first)]))
    assert ceiling(item, item, k=3)[1] == pytest.approx(np.mean(found), abs=0.01)
