"""Simulated views: decided by attributes and seed alone, the same in any batch, and each attribute shows.

* The same seed gives the same bytes; another seed another view; a batch equals its views one by one, for
  scenes of every value of every attribute.
* A nearest-centroid classifier on mean colours and unevenness tells covers, climates, settlements, relief and coast apart
  far better than chance, on seeds that it was not made from.
* What a value means is there: snow is white, the sea is blue, mountains stand in the sky, towers too.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from geobind.data.earth import attributes as a
from geobind.data.earth.attributes import NAMES, Attributes
from geobind.data.earth.views import render_views
from geobind.errors import GeoBindError

USUAL_TONE = {a.WATER: a.DARK_BLUE, a.ICE: a.WHITE, a.DESERT: a.SAND, a.RAINFOREST: a.DARK_GREEN}


def scenes(n: int, **fields: int) -> Attributes:
    """n places of one scene: temperate flat grassland but for these fields."""
    values = {
        "cover": a.GRASSLAND,
        "relief": 0,
        "coast": 0,
        "climate": a.TEMPERATE,
        "settlement": 0,
        "tone": USUAL_TONE.get(fields.get("cover", a.GRASSLAND), a.OLIVE),
        **fields,
    }
    return Attributes.of(**{name: np.full(n, value) for name, value in values.items()})


def views(n: int, start: int = 0, **fields: int) -> NDArray[np.float64]:
    return render_views(scenes(n, **fields), range(start, start + n)) / 255.0


def mixed(n: int) -> Attributes:
    rng = np.random.default_rng(3)
    return Attributes.of(**{name: rng.integers(0, len(values), n) for name, values in NAMES.items()})


def features(pictures: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean colours of 12 rows, and how uneven six bands of height are."""
    rows = pictures.reshape(len(pictures), 12, 4, 48, 3).mean((2, 3))
    uneven = np.abs(np.diff(pictures, axis=2)).reshape(len(pictures), 6, 8, 47, 3).mean((2, 3, 4))
    return np.concatenate([rows.reshape(len(pictures), -1), 3 * uneven], 1)


def accuracy(options: list[dict[str, int]]) -> float:
    """Of the nearest centroid: 20 views of each option to learn from, 20 to test."""
    centroids = np.stack([features(views(20, **option)).mean(0) for option in options])
    right = 0
    for k, option in enumerate(options):
        found = features(views(20, start=1000, **option))
        right += int((((found[:, None] - centroids) ** 2).sum(2).argmin(1) == k).sum())
    return right / (20 * len(options))


def test_the_same_seed_gives_the_same_bytes_and_another_one_another_view() -> None:
    attributes = mixed(40)
    first = render_views(attributes, range(40))
    assert first.shape == (40, 48, 48, 3)
    assert first.dtype == np.uint8
    assert first.tobytes() == render_views(attributes, list(range(40))).tobytes()
    other = render_views(attributes, range(40, 80))
    assert (np.abs(first.astype(int) - other).mean((1, 2, 3)) > 2).all()


def test_a_batch_equals_its_views_one_by_one() -> None:
    rng = np.random.default_rng(0)
    # Every value of every attribute, some scenes many times so that they are painted together.
    attributes = mixed(120)[np.sort(rng.integers(0, 120, 240))]
    seeds = rng.integers(0, 2**63, 240)
    for name, values in NAMES.items():
        assert len(set(attributes.names(name))) == len(values)
    batch = render_views(attributes, seeds)
    order = rng.permutation(240)
    assert np.array_equal(batch[order], render_views(attributes[order], seeds[order]))
    for row in range(0, 240, 3):
        alone = render_views(attributes[row : row + 1], seeds[row : row + 1])
        assert np.array_equal(alone[0], batch[row]), attributes.scene(row).named()


def test_scenes_can_be_painted_at_any_size() -> None:
    every = np.indices([len(values) for values in NAMES.values()]).reshape(len(NAMES), -1)[:, ::77]
    attributes = Attributes.of(**dict(zip(NAMES, every, strict=True)))
    pictures = render_views(attributes, range(len(attributes)), size=16)
    assert pictures.shape == (len(attributes), 16, 16, 3)
    assert (pictures.reshape(len(attributes), -1).std(1) > 3).all()
    assert render_views(attributes[:3], range(3), size=70).shape == (3, 70, 70, 3)


def test_no_places_no_views() -> None:
    assert render_views(mixed(0), []).shape == (0, 48, 48, 3)


def test_one_seed_for_each_place() -> None:
    with pytest.raises(GeoBindError, match="3 places need as many seeds, not 2"):
        render_views(mixed(3), [1, 2])
    with pytest.raises(GeoBindError, match="at least 16 pixels"):
        render_views(mixed(1), [1], size=8)


def test_each_attribute_shows() -> None:
    usual = {a.ICE: a.POLAR, a.TUNDRA: a.POLAR, a.DESERT: a.DRY, a.SHRUBLAND: a.DRY, a.RAINFOREST: a.TROPICAL}
    covers = [
        {"cover": k, "climate": usual.get(k, a.TEMPERATE), "settlement": a.CITY * (k == a.URBAN)}
        for k in range(len(NAMES["cover"]))
    ]
    assert accuracy(covers) > 0.7  # chance: 0.08
    assert accuracy([{"cover": k} for k in range(len(NAMES["cover"]))]) > 0.6
    for field, least in (
        ("relief", 0.75),
        ("coast", 0.9),
        ("climate", 0.6),
        ("settlement", 0.6),
        ("tone", 0.5),
    ):
        values = range(a.DARK_BLUE if field == "tone" else len(NAMES[field]))
        assert accuracy([{field: k} for k in values]) > least, field


def test_what_is_named_is_seen() -> None:
    def below(**fields: int) -> NDArray[np.float64]:
        return views(30, **fields)[:, 34:].mean((0, 1, 2))

    ice, sea, sand = (
        below(cover=a.ICE, climate=a.POLAR),
        below(cover=a.WATER),
        below(cover=a.DESERT, climate=a.DRY),
    )
    assert ice.min() > 0.75
    assert sea[2] > sea[0] + 0.2
    assert sand[0] > sand[2] + 0.15
    assert below(cover=a.RAINFOREST, climate=a.TROPICAL).argmax() == 1
    # What stands against the sky makes it uneven from left to right.
    flat, mountains, city = (
        np.abs(np.diff(views(30, **fields)[:, 10:18], axis=2)).mean()
        for fields in ({}, {"relief": a.MOUNTAINOUS}, {"settlement": a.CITY})
    )
    assert mountains > 1.5 * flat
    assert city > 2 * flat


def test_snow_falls_where_it_is_cold_and_only_there() -> None:
    def snowy(climate: int) -> float:
        ground = views(60, cover=a.CROPLAND, climate=climate)[:, 30:].min(3)
        return float(((ground > 0.6).mean((1, 2)) > 0.2).mean())

    assert snowy(a.POLAR) > 0.7
    assert 0.2 < snowy(a.COLD) < 0.8
    assert max(snowy(a.TEMPERATE), snowy(a.DRY), snowy(a.TROPICAL)) == 0
