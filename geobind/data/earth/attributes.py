"""Discrete attributes of places: all that captions, rendered views and rendered sounds know of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geobind.errors import GeoBindError, did_you_mean

if TYPE_CHECKING:
    from geobind.data.earth.world import World

# The table: what each value of each attribute is called. A value is the index of its name.
NAMES: dict[str, tuple[str, ...]] = {
    "cover": (
        "water", "ice", "desert", "tundra", "shrubland", "grassland", "savanna", "cropland",
        "rainforest", "conifer forest", "broadleaf forest", "wetland", "urban",
    ),
    "relief": ("flat", "hilly", "mountainous"),
    "coast": ("inland", "coast"),
    "climate": ("polar", "cold", "temperate", "dry", "tropical"),
    "settlement": ("none", "village", "town", "city"),
    "tone": (
        "dark green", "olive", "drab", "brown", "ochre", "tan", "sand", "grey", "white", "dark blue", "bright blue",
    ),
}  # fmt: skip
FIELDS = tuple(NAMES)
(
    WATER, ICE, DESERT, TUNDRA, SHRUBLAND, GRASSLAND, SAVANNA, CROPLAND,
    RAINFOREST, CONIFER_FOREST, BROADLEAF_FOREST, WETLAND, URBAN,
) = range(13)  # fmt: skip
FLAT, HILLY, MOUNTAINOUS = range(3)
POLAR, COLD, TEMPERATE, DRY, TROPICAL = range(5)
NO_SETTLEMENT, VILLAGE, TOWN, CITY = range(4)
DARK_GREEN, OLIVE, DRAB, BROWN, OCHRE, TAN, SAND, GREY, WHITE, DARK_BLUE, BRIGHT_BLUE = range(11)

_VISIBLE = {
    "satellite": FIELDS,
    "location": FIELDS,
    "image": FIELDS,
    "text": FIELDS,
    "audio": ("cover", "coast", "climate", "settlement"),
    "environment": ("relief", "climate"),
}

PERMAFROST_C = -8.0  # annual mean: under it the ground is frozen throughout, and low plants are tundra
COAST_KM = 20.0  # a coast is nearer than this, from either side
HILLY_M, MOUNTAINOUS_M = 60.0, 250.0  # local standard deviation of the elevation
POPULATION = (500, 10_000, 100_000)  # least inhabitants of a village, a town, a city
# The colour of each tone in the Blue Marble (0 to 255): about the centres of ten clusters of its land, and
# two shades of sea.
TONES = (
    (24, 36, 10), (42, 50, 21), (67, 66, 38), (95, 81, 52), (125, 103, 69), (150, 130, 102), (184, 158, 124),
    (170, 172, 170), (246, 249, 251), (4, 8, 28), (16, 42, 88),
)  # fmt: skip


def visible(modality: str) -> tuple[str, ...]:
    """The attributes that an ideal observer reads off a modality without error.

    It is what the ceiling of the demo assumes: a rendered view shows all of them, a rendered sound all but
    the relief, the environment has the numbers that climate and relief were cut from. A caption mentions
    only some of the text's; `captions` says which.

    >>> visible("audio")
    ('cover', 'coast', 'climate', 'settlement')

    Raises GeoBindError for a modality that the miniature Earth lacks.
    """
    if modality not in _VISIBLE:
        raise GeoBindError(f"the Earth has no modality {modality!r}{did_you_mean(modality, _VISIBLE)}")
    return _VISIBLE[modality]


class Scene(NamedTuple):
    """The attributes of one place, as plain ints: values of `NAMES`."""

    cover: int
    relief: int
    coast: int
    climate: int
    settlement: int
    tone: int

    def named(self) -> dict[str, str]:
        """Field to the name of its value: {'cover': 'desert', 'relief': 'flat', ...}."""
        return {field: NAMES[field][value] for field, value in zip(FIELDS, self, strict=True)}


@dataclass(frozen=True, eq=False)
class Attributes:
    """Attributes of n places: one int8 array (n,) for each field, of values whose names are in `NAMES`.

    * `cover`: land cover; IGBP classes, told apart by climate where one word would mislead (a woody savanna
      of Siberia is a conifer forest, shrubs of the far north are tundra).
    * `relief`: flat, hilly, mountainous; always flat on water.
    * `coast`: 1 within 20 km of a seashore, from either side.
    * `climate`: main groups of Köppen and Geiger; `dry` includes cold deserts.
    * `settlement`: the largest one of the quarter-degree cell; none on water and ice, a city where urban.
    * `tone`: the real colour of the ground, seen from space: the nearest of `TONES`; blues at sea only.

    >>> attributes = Attributes.at(World.load(), [23.5, 48.86], [12.0, 2.35])
    >>> attributes.names("cover")
    ['desert', 'urban']
    >>> attributes.scene(0)
    Scene(cover=2, relief=0, coast=0, climate=3, settlement=0, tone=6)
    """

    cover: NDArray[np.int8]
    relief: NDArray[np.int8]
    coast: NDArray[np.int8]
    climate: NDArray[np.int8]
    settlement: NDArray[np.int8]
    tone: NDArray[np.int8]

    @classmethod
    def at(cls, world: World, latitude: ArrayLike, longitude: ArrayLike) -> Attributes:
        """The attributes of these points (degrees WGS84), read off the real rasters."""
        igbp = world.land_cover(latitude, longitude)
        weather = world.climate(latitude, longitude)
        climate = koppen(**weather)
        water = igbp == 0
        # Rain over the sea says nothing of drought: there the temperature alone decides.
        warm = np.where(weather["coldest"] >= 18, TROPICAL, TEMPERATE)
        climate = np.where(water & (climate == DRY), warm, climate)
        cover = group_cover(igbp, climate, weather["temperature"])
        relief = np.digitize(world.relief(latitude, longitude), (HILLY_M, MOUNTAINOUS_M))
        settlement = np.digitize(world.population(latitude, longitude), POPULATION)
        settlement = np.where(cover == URBAN, CITY, settlement)
        return cls.of(
            cover=cover,
            relief=np.where(water, FLAT, relief),
            coast=np.abs(world.coast_distance(latitude, longitude)) < COAST_KM,
            climate=climate,
            settlement=np.where(water | (cover == ICE), NO_SETTLEMENT, settlement),
            tone=nearest_tone(world.ground_colour(latitude, longitude), water),
        )

    @classmethod
    def of(cls, **fields: ArrayLike) -> Attributes:
        """From values by field, (n,) each. Raises GeoBindError for a value that has no name."""
        arrays = {name: np.asarray(fields[name]).reshape(-1).astype(np.int8) for name in FIELDS}
        for name, values in arrays.items():
            if values.size and not (values.min() >= 0 and values.max() < len(NAMES[name])):
                raise GeoBindError(f"{name} has values 0 to {len(NAMES[name]) - 1}, not {values.max()}")
        return cls(**arrays)

    def __len__(self) -> int:
        return len(self.cover)

    def __getitem__(self, rows: Any) -> Attributes:
        """The places of a slice, a mask or an array of indices."""
        return Attributes(**{name: getattr(self, name)[rows] for name in FIELDS})

    def scene(self, row: int) -> Scene:
        """One place."""
        return Scene(*(int(getattr(self, name)[row]) for name in FIELDS))

    def names(self, field: str) -> list[str]:
        """The names of a field's values, (n,)."""
        return [NAMES[field][value] for value in getattr(self, field)]

    def code(self, fields: Sequence[str] = FIELDS) -> NDArray[np.int64]:
        """(n,) one number for each combination of these fields: equal where all of them are equal.

        >>> attributes.code(visible("audio"))        # places that sound alike share a number
        """
        code = np.zeros(len(self), np.int64)
        for name in fields:
            code = code * len(NAMES[name]) + getattr(self, name)
        return code


def nearest_tone(colour: NDArray[np.floating], water: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Values of `tone` for colours (n, 3) of 0 to 255: the nearest of the blues at sea, of the others on land."""
    distance = ((colour[:, None, :] - np.array(TONES)) ** 2).sum(-1)
    blue = np.arange(len(TONES)) >= DARK_BLUE
    return np.where(blue == water[:, None], distance, np.inf).argmin(1)


def koppen(
    *,
    temperature: NDArray[np.floating],
    coldest: NDArray[np.floating],
    warmest: NDArray[np.floating],
    rain: NDArray[np.floating],
    summer_rain: NDArray[np.floating],
) -> NDArray[np.int64]:
    """The main climate group of Köppen and Geiger, as a value of `climate`.

    temperature: annual mean in °C; coldest, warmest: of the monthly means; rain: mm a year; summer_rain:
    the share of it that falls in the six warmer months. Source: Peel, Finlayson and McMahon (2007),
    https://doi.org/10.5194/hess-11-1633-2007, table 1 (cold from 0 °C, dry before tropical, polar first).
    """
    threshold = 2 * temperature + np.select([summer_rain >= 0.7, summer_rain <= 0.3], [28, 0], 14)
    return np.select(
        [warmest < 10, rain < 10 * threshold, coldest >= 18, coldest > 0],
        [POLAR, DRY, TROPICAL, TEMPERATE],
        COLD,
    )


def group_cover(
    igbp: NDArray[np.integer], climate: NDArray[np.integer], temperature: NDArray[np.floating]
) -> NDArray[np.int64]:
    """IGBP classes (0 water to 16 barren, as in MCD12C1) as values of `cover`, given climate and annual mean
    temperature in °C."""
    grouped = np.array([
        WATER, CONIFER_FOREST, BROADLEAF_FOREST, CONIFER_FOREST, BROADLEAF_FOREST, BROADLEAF_FOREST,
        SHRUBLAND, SHRUBLAND, SAVANNA, SAVANNA, GRASSLAND, WETLAND, CROPLAND, URBAN, CROPLAND, ICE, DESERT,
    ])[igbp]  # fmt: skip
    # "Woody savanna" is any open woodland and "savanna" any grass with some trees, in Siberia too.
    cool = (temperature < 15) & (climate != TROPICAL)
    northern = (climate == COLD) | (climate == POLAR)
    grouped = np.where((igbp == 2) & (climate == TROPICAL), RAINFOREST, grouped)
    grouped = np.where((igbp == 8) & cool, np.where(northern, CONIFER_FOREST, BROADLEAF_FOREST), grouped)
    grouped = np.where((igbp == 9) & cool, GRASSLAND, grouped)
    low = np.isin(grouped, (DESERT, SHRUBLAND, GRASSLAND))
    frozen = (climate == POLAR) | (temperature < PERMAFROST_C)
    return np.where(low & frozen, TUNDRA, grouped)
