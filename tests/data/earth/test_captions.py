"""Captions.

* Every phrase in a caption is true of the place, and `mentions` lists exactly the fields that it tells.
* No phrase can be read as another value's, no caption holds a name of a place.
* Sentences are deterministic for a generator, many, and never on two sides of a split.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import numpy as np
import pytest

from geobind.data.earth import attributes as a
from geobind.data.earth import captions as c
from geobind.data.earth.attributes import FIELDS, NAMES, Attributes
from geobind.errors import GeoBindError


def phrases() -> Iterator[tuple[str, frozenset[tuple[str, int]]]]:
    """Every phrase with what it says: (field, value) pairs."""
    tables = {"cover": [c.COVER], "relief": [c.RELIEF], "coast": [c.COAST, c.OFFSHORE],
              "climate": [c.CLIMATE], "settlement": [c.SETTLEMENT], "tone": [c.TONE]}  # fmt: skip
    for field, of_field in tables.items():
        for table in of_field:
            assert set(table) == set(range(len(NAMES[field])))
            for value, words in table.items():
                yield from ((phrase, frozenset({(field, value)})) for phrase in words)
    for relief, words in c.SHORE.items():
        yield from ((phrase, frozenset({("relief", relief), ("coast", 1)})) for phrase in words)


PHRASES = dict(phrases())


def said(text: str) -> set[tuple[str, int]]:
    """All that a reader finds in a caption."""
    found: set[tuple[str, int]] = set()
    for phrase, facts in PHRASES.items():
        if re.search(rf"\b{re.escape(phrase)}\b", text):
            found |= facts
    return found


@pytest.fixture(scope="module")
def scenes() -> Attributes:
    """Of every combination of values that can be one in seven, so that each value meets each other one."""
    every = np.array(list(itertools.product(*(range(len(NAMES[field])) for field in FIELDS))))
    attributes = Attributes.of(**dict(zip(FIELDS, every.T, strict=True)))
    empty = np.isin(attributes.cover, (a.WATER, a.ICE)) & (attributes.settlement > 0)
    blue = (attributes.tone >= a.DARK_BLUE) == (attributes.cover == a.WATER)
    return attributes[~empty & blue][::7]


def test_captions_tell_the_truth_and_what_they_tell(scenes):
    for row, caption in enumerate(c.captions(scenes, np.random.default_rng(0))):
        truth = set(zip(FIELDS, scenes.scene(row), strict=True))
        found = said(caption.text)
        assert found <= truth, caption.text
        assert {field for field, _ in found} == set(caption.mentions), caption.text


def test_no_phrase_is_part_of_another_values_phrase():
    for phrase, facts in PHRASES.items():
        assert said(phrase) == facts, phrase


def test_captions_never_name_a_place(world, scenes):
    sentences = [caption.text for caption in c.captions(scenes, np.random.default_rng(1))]
    words = {word for text in [*sentences, *PHRASES] for word in re.findall(r"[a-z]+", text)}
    names = {name.lower() for name, _, _ in world.cities}
    assert words.isdisjoint(names)
    joined = " | ".join({*sentences, *PHRASES})
    assert joined == joined.lower()
    assert not [name for name in names if " " in name and f" {name} " in joined]


def test_captions_are_deterministic_and_many():
    attributes = Attributes.of(
        cover=[a.GRASSLAND] * 2000,
        relief=[1] * 2000,
        coast=[0] * 2000,
        climate=[2] * 2000,
        settlement=[1] * 2000,
        tone=[a.OLIVE] * 2000,
    )
    first, again, other = (c.captions(attributes, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first == again != other
    assert len({caption.text for caption in first}) > 1200
    mentioned = {field: np.mean([field in caption.mentions for caption in first]) for field in FIELDS}
    assert mentioned["cover"] == 1
    assert (
        0.1 < mentioned["coast"] < 0.3 < mentioned["climate"] < mentioned["relief"] < mentioned["settlement"]
    )


def test_no_sentence_is_in_two_splits(scenes):
    rows = scenes[::7]
    found = {
        split: {
            caption.text
            for caption in c.captions_by_split(rows, [split] * len(rows), np.random.default_rng(2))
        }
        for split in ("train", "val", "test")
    }
    for one, other in itertools.combinations(found.values(), 2):
        assert one.isdisjoint(other)
    with pytest.raises(GeoBindError, match="no caption of split 'dev'"):
        c.captions_by_split(rows[:1], ["dev"], np.random.default_rng(0))


@pytest.mark.parametrize(
    "words",
    ["a tropical rainforest", "sand dunes", "an icy waste", "farmland", "with villages", "on a rocky coast"],
)
def test_the_words_of_the_demos_queries_occur(words):
    assert words in PHRASES
