"""Attributes of places.

* Known points have the right ones, and what cannot be is nowhere: houses at sea, a rainforest in the cold.
* `code` tells combinations apart exactly, and every value has a name.
* The climate groups are those of the published table.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from geobind.data.earth import attributes as a
from geobind.data.earth.attributes import FIELDS, NAMES, Attributes, Scene, group_cover, koppen, visible
from geobind.errors import GeoBindError

KNOWN = {
    "Sahara": (23.5, 12.0, {"cover": "desert", "coast": "inland", "climate": "dry", "settlement": "none"}),
    "Amazon": (
        -4.0,
        -65.0,
        {"cover": "rainforest", "relief": "flat", "climate": "tropical", "coast": "inland"},
    ),
    "Congo": (0.5, 22.0, {"cover": "rainforest", "climate": "tropical", "tone": "dark green"}),
    "Greenland": (
        72.0,
        -40.0,
        {"cover": "ice", "relief": "flat", "climate": "polar", "settlement": "none", "tone": "white"},
    ),
    "South Pole": (-90.0, 0.0, {"cover": "ice", "climate": "polar", "coast": "inland"}),
    "Paris": (
        48.86,
        2.35,
        {"cover": "urban", "climate": "temperate", "coast": "inland", "settlement": "city"},
    ),
    "Honolulu": (21.32, -157.83, {"coast": "coast", "settlement": "city"}),
    "Pacific": (0.0, -150.0, {"cover": "water", "coast": "inland", "relief": "flat", "settlement": "none"}),
    "Iowa": (42.0, -94.0, {"cover": "cropland", "relief": "flat", "climate": "cold"}),
    "Siberia": (60.0, 100.0, {"cover": "conifer forest", "climate": "cold", "settlement": "none"}),
    "Arctic Canada": (70.0, -105.0, {"cover": "tundra", "settlement": "none"}),
    "Himalaya": (28.2, 84.0, {"relief": "mountainous"}),
    "Alps": (46.5, 8.5, {"relief": "mountainous"}),
    "Fiji, over the date line": (-16.8, 180.0, {"coast": "coast", "climate": "tropical"}),
}


@pytest.mark.parametrize("place", KNOWN)
def test_known_points(world, place):
    latitude, longitude, expected = KNOWN[place]
    assert Attributes.at(world, [latitude], [longitude]).scene(0).named().items() >= expected.items()


def test_what_cannot_be_is_nowhere(world):
    rng = np.random.default_rng(0)
    latitude, longitude = np.degrees(np.arcsin(rng.uniform(-1, 1, 20_000))), rng.uniform(-180, 180, 20_000)
    found = Attributes.at(world, latitude, longitude)
    assert len(found) == 20_000
    assert not found.settlement[(found.cover == a.WATER) | (found.cover == a.ICE)].any()
    assert not found.relief[found.cover == a.WATER].any()
    assert (found.climate[found.cover == a.WATER] != a.DRY).all()
    assert (found.climate[found.cover == a.RAINFOREST] == a.TROPICAL).all()
    assert np.isin(found.climate[found.cover == a.TUNDRA], (a.POLAR, a.COLD, a.DRY)).all()
    assert (found.settlement[found.cover == a.URBAN] == a.CITY).all()
    assert ((found.tone >= a.DARK_BLUE) == (found.cover == a.WATER)).all()
    distance = np.abs(world.coast_distance(latitude, longitude))
    assert (found.coast == (distance < a.COAST_KM)).all()
    for field in FIELDS:  # every value but the rarest two is on 20,000 points of the Earth
        missing = set(range(len(NAMES[field]))) - set(getattr(found, field).tolist())
        assert missing <= ({a.WETLAND, a.URBAN} if field == "cover" else set())


def test_codes_tell_combinations_apart():
    every = list(itertools.product(*(range(len(NAMES[field])) for field in FIELDS)))
    columns = dict(zip(FIELDS, np.array(every).T, strict=True))
    attributes = Attributes.of(**columns)
    assert len(np.unique(attributes.code())) == len(every)
    heard = visible("audio")
    of_sound = {tuple(columns[field][row] for field in heard) for row in range(len(every))}
    assert len(np.unique(attributes.code(heard))) == len(of_sound)
    assert [attributes.scene(row) for row in range(len(every))] == [Scene(*values) for values in every]


def test_selections_and_names():
    attributes = Attributes.of(
        cover=[a.DESERT, a.URBAN, a.ICE],
        relief=[0, 1, 2],
        coast=[0, 1, 0],
        climate=[3, 2, 0],
        settlement=[0, 3, 0],
        tone=[a.SAND, a.DRAB, a.WHITE],
    )
    assert attributes.names("cover") == ["desert", "urban", "ice"]
    assert attributes[[2, 0]].names("relief") == ["mountainous", "flat"]
    assert len(attributes[attributes.coast == 1]) == 1
    assert attributes[1:].scene(0).named() == {
        "cover": "urban", "relief": "hilly", "coast": "coast", "climate": "temperate", "settlement": "city",
        "tone": "drab",
    }  # fmt: skip


def test_what_has_no_name_is_refused():
    values = {field: [0] for field in FIELDS}
    with pytest.raises(GeoBindError, match="climate has values 0 to 4, not 5"):
        Attributes.of(**values | {"climate": [5]})
    with pytest.raises(GeoBindError, match="relief has values 0 to 2, not -1"):
        Attributes.of(**values | {"relief": [-1]})
    with pytest.raises(GeoBindError, match="no modality 'smell'"):
        visible("smell")


@pytest.mark.parametrize(
    ("temperature", "coldest", "warmest", "rain", "summer_rain", "expected"),
    [
        (-20, -35, -2, 200, 0.5, a.POLAR),  # an ice cap
        (-12, -32, 9, 250, 0.6, a.POLAR),  # tundra
        (-4, -25, 17, 400, 0.7, a.COLD),
        (12, 4, 20, 750, 0.5, a.TEMPERATE),
        (27, 26, 28, 2500, 0.5, a.TROPICAL),
        (22, 10, 31, 10, 0.3, a.DRY),
        (5, -14, 22, 100, 0.8, a.DRY),  # a cold desert
        (20, 15, 25, 399, 0.2, a.DRY),  # winter rain: dry below 20 t mm
        (20, 15, 25, 401, 0.2, a.TEMPERATE),
        (20, 15, 25, 679, 0.8, a.DRY),  # summer rain, which evaporates: dry below 20 (t + 14) mm
        (20, 15, 25, 681, 0.8, a.TEMPERATE),
    ],
)
def test_climate_groups(temperature, coldest, warmest, rain, summer_rain, expected):
    numbers = {
        "temperature": temperature, "coldest": coldest, "warmest": warmest, "rain": rain, "summer_rain": summer_rain,
    }  # fmt: skip
    assert koppen(**{name: np.array([float(value)]) for name, value in numbers.items()}) == [expected]


def test_every_land_cover_class_has_a_group_in_every_climate():
    igbp, climate = (grid.ravel() for grid in np.meshgrid(np.arange(17), np.arange(5)))
    for temperature in (-10.0, 25.0):
        grouped = group_cover(igbp, climate, np.full(len(igbp), temperature))
        assert ((grouped == a.WATER) == (igbp == 0)).all()
        assert ((grouped == a.ICE) == (igbp == 15)).all()
        assert ((grouped == a.URBAN) == (igbp == 13)).all()
        assert ((grouped == a.RAINFOREST) == ((igbp == 2) & (climate == a.TROPICAL))).all()
    assert group_cover(np.array([8]), np.array([a.COLD]), np.array([-3.0])) == [a.CONIFER_FOREST]
    assert group_cover(np.array([8]), np.array([a.TROPICAL]), np.array([25.0])) == [a.SAVANNA]


@pytest.mark.parametrize("modality", ["satellite", "image", "text", "audio", "location", "environment"])
def test_visible_names_fields(modality):
    assert set(visible(modality)) <= set(FIELDS)
    assert list(visible(modality)) == sorted(visible(modality), key=FIELDS.index)
