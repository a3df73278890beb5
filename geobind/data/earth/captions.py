"""Captions of places, composed from what is really there in many phrasings, never with a name."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from geobind.data.earth import attributes as a
from geobind.data.earth.attributes import Attributes, Scene
from geobind.errors import GeoBindError

# What a place is, by land cover. No phrase is part of one for another value, here and below, so that a
# caption says which values it was made from.
COVER: dict[int, tuple[str, ...]] = {
    a.WATER: (
        "open water", "salt water", "waves", "blue water", "the sea", "a wide stretch of sea",
        "nothing but water", "waves and foam", "sea water",
    ),
    a.ICE: (
        "an icy waste", "a sheet of ice", "snow and ice", "a glacier", "an ice cap", "ice everywhere",
        "endless white ice", "frozen white land", "a field of ice",
    ),
    a.DESERT: (
        "sand dunes", "a sandy desert", "bare desert", "a stony desert", "barren land", "sand and rock",
        "a desert without plants", "bare sand", "an empty desert",
    ),
    a.TUNDRA: (
        "tundra", "treeless tundra", "mosses and lichens", "bare tundra", "low tundra plants",
        "windswept tundra", "moss between stones", "lichens on bare rock",
    ),
    a.SHRUBLAND: (
        "shrubland", "bushes", "scattered shrubs", "scrub", "low bushes", "low shrubs", "open scrub",
        "bushes and scrub", "a bushy land",
    ),
    a.GRASSLAND: (
        "grassland", "open grassland", "prairie", "steppe", "a wide prairie", "meadows and pasture",
        "open steppe", "pasture", "grass without trees",
    ),
    a.SAVANNA: (
        "savanna", "a savanna", "grass with scattered trees", "tall grass and single trees",
        "an open savanna", "savanna woodland", "scattered trees in yellow grass", "a wide savanna",
    ),
    a.CROPLAND: (
        "farmland", "fields", "cropland", "ploughed fields", "farms and fields", "rows of crops",
        "cultivated land", "fields of grain", "a patchwork of fields",
    ),
    a.RAINFOREST: (
        "a tropical rainforest", "rainforest", "dense jungle", "jungle", "a wet green rainforest",
        "thick jungle", "evergreen rainforest", "a lush rainforest", "a jungle of tall trees",
    ),
    a.CONIFER_FOREST: (
        "a conifer forest", "conifers", "a forest of conifers", "needle trees", "a needleleaf forest",
        "a forest of needle trees", "conifer woods", "tall conifers", "dark conifers",
    ),
    a.BROADLEAF_FOREST: (
        "a broadleaf forest", "a forest of leafy trees", "leafy woods", "broadleaf trees", "leafy trees",
        "a broadleaf wood", "a green leafy forest", "tall leafy trees", "broadleaf woods",
    ),
    a.WETLAND: (
        "a wetland", "marsh", "a swamp", "reeds and marsh", "wet boggy ground", "a bog", "swamp and reeds",
        "marshes",
    ),
    a.URBAN: (
        "streets and buildings", "streets of concrete", "houses and streets", "tall buildings",
        "a built-up area", "an urban area", "high-rise buildings", "crowded streets",
    ),
}  # fmt: skip
RELIEF: dict[int, tuple[str, ...]] = {
    a.FLAT: ("on flat ground", "on a plain", "on level ground", "in flat country", "on a wide plain"),
    a.HILLY: ("among hills", "in rolling hills", "in hilly country", "between low hills", "on hillsides"),
    a.MOUNTAINOUS: (
        "in the mountains", "on steep slopes", "below high peaks", "in a mountain range", "between mountains",
    ),
}  # fmt: skip
COAST: dict[int, tuple[str, ...]] = {
    0: ("inland", "away from any sea", "far from the coast", "without a shore near by"),
    1: ("by the shore", "on the coast", "at the seaside", "along the coastline", "with surf near by"),
}
OFFSHORE: dict[int, tuple[str, ...]] = {
    0: ("out of sight of land", "far from land", "with no land near by", "far offshore"),
    1: ("by the shore", "just off the coast", "close to land", "with the coastline in sight"),
}
# A coast and its relief in one phrase.
SHORE: dict[int, tuple[str, ...]] = {
    a.FLAT: ("on a sandy beach", "on a low sandy coast", "on a flat beach"),
    a.HILLY: ("on a rocky coast", "by a rocky shore", "above a rocky beach"),
    a.MOUNTAINOUS: ("on a steep coast of cliffs", "where cliffs drop to the surf", "above high sea cliffs"),
}
CLIMATE: dict[int, tuple[str, ...]] = {
    a.POLAR: ("in a polar climate", "in freezing air", "in a land without summer", "in polar cold"),
    a.COLD: (
        "with long snowy winters", "in a cold climate", "where winters are hard", "with cold winters",
    ),
    a.TEMPERATE: ("in a mild climate", "in a temperate climate", "with mild winters", "where it is mild"),
    a.DRY: ("in a dry climate", "in dry air", "where rain is rare", "in an arid land"),
    a.TROPICAL: ("in the tropics", "in tropical heat", "in a tropical climate", "where it is always hot"),
}  # fmt: skip
SETTLEMENT: dict[int, tuple[str, ...]] = {
    a.NO_SETTLEMENT: (
        "with no settlement",
        "in lonely country",
        "in empty country",
        "without a settlement near by",
    ),
    a.VILLAGE: ("with a village", "with villages", "near a small village", "around a quiet village"),
    a.TOWN: ("with a town", "with small towns", "near a town", "around a market town"),
    a.CITY: ("with a city", "near a large city", "at the edge of a city", "around a busy city"),
}
# The real colour of the ground, or of the water.
TONE: dict[int, tuple[str, ...]] = {
    a.DARK_GREEN: ("dark green all over", "in deep green", "of the darkest green"),
    a.OLIVE: ("in olive green", "olive in colour", "of an olive tone"),
    a.DRAB: ("green and brown in turn", "in drab colours", "of a drab green"),
    a.BROWN: ("on brown earth", "brown all over", "with brown soil"),
    a.OCHRE: ("on ochre soil", "ochre in colour", "with ochre earth"),
    a.TAN: ("on tan ground", "tan in colour", "with light brown ground"),
    a.SAND: ("on pale ground", "pale yellow all over", "bright with pale soil"),
    a.GREY: ("on grey ground", "grey all over", "of a grey tone"),
    a.WHITE: ("on white ground", "white all over", "of a pure white"),
    a.DARK_BLUE: ("in dark blue", "almost black", "of the deepest blue"),
    a.BRIGHT_BLUE: ("in bright blue", "in light blue", "of a clear blue"),
}
_OPENINGS = ("", "", "", "", "a view of ", "a photo of ", "here is ", "you see ", "a place with ")

# How often a caption mentions a field; seldom what goes without saying.
_OFTEN = {"relief": 0.6, "climate": 0.5, "settlement": 0.75, "tone": 0.6}
_SELDOM = 0.2


class Caption(NamedTuple):
    """A sentence and the fields of `Attributes` whose values it tells."""

    text: str
    mentions: tuple[str, ...]


def captions(attributes: Attributes, rng: np.random.Generator) -> list[Caption]:
    """One caption for each place: its land cover and some of its other attributes, in a random wording.

    Only what is true of the place is mentioned, and no name: the same words fit every place with these
    attributes. About 10^5 sentences fit a typical place.

    >>> captions(attributes, np.random.default_rng(0))[0]
    Caption(text='sand dunes in hilly country, where rain is rare', mentions=('cover', 'relief', 'climate'))
    """
    return [_caption(attributes.scene(row), rng) for row in range(len(attributes))]


def captions_by_split(
    attributes: Attributes, splits: Sequence[str], rng: np.random.Generator
) -> list[Caption]:
    """Like `captions`, with wordings that no other split has: a test sentence never occurs in training.

    One sentence in ten belongs to `val`, one in ten to `test`, the others to `train`, by their checksum.
    """
    found = []
    for row, split in enumerate(splits):
        scene = attributes.scene(row)
        for _ in range(10_000):
            caption = _caption(scene, rng)
            if split_of(caption.text) == split:
                found.append(caption)
                break
        else:
            raise GeoBindError(f"no caption of split {split!r} for {scene.named()}: use train, val or test")
    return found


def split_of(text: str) -> str:
    """The split that a sentence belongs to."""
    return {0: "test", 1: "val"}.get(zlib.crc32(text.encode()) % 10, "train")


def _caption(scene: Scene, rng: np.random.Generator) -> Caption:
    draw = rng.random(8).tolist()

    def pick(phrases: Sequence[str]) -> str:
        return phrases[int(rng.random() * len(phrases))]

    water = scene.cover == a.WATER
    mentions = {"cover"}
    parts: list[str] = []
    shore = scene.coast and scene.cover not in (a.WATER, a.ICE) and draw[0] < 0.4
    if shore:
        parts.append(pick(SHORE[scene.relief]))
        mentions |= {"coast", "relief"}
    elif draw[1] < (0.8 if scene.coast or water else _SELDOM):
        parts.append(pick((OFFSHORE if water else COAST)[scene.coast]))
        mentions.add("coast")
    if not shore and not water and draw[2] < _OFTEN["relief"]:
        parts.append(pick(RELIEF[scene.relief]))
        mentions.add("relief")
    if draw[3] < _OFTEN["climate"]:
        parts.append(pick(CLIMATE[scene.climate]))
        mentions.add("climate")
    if not water and draw[4] < (_OFTEN["settlement"] if scene.settlement else _SELDOM):
        parts.append(pick(SETTLEMENT[scene.settlement]))
        mentions.add("settlement")
    if draw[6] < _OFTEN["tone"]:
        parts.append(pick(TONE[scene.tone]))
        mentions.add("tone")
    cover = pick(COVER[scene.cover])
    order = rng.permutation(len(parts)).tolist()
    tail = [parts[place] for place in order]
    if tail and draw[5] < 0.25:  # "on the coast, in dry air: sand dunes"
        text = f"{', '.join(tail)}: {cover}"
    elif tail:
        text = f"{pick(_OPENINGS)}{cover} {tail[0]}" + "".join(f", {part}" for part in tail[1:])
    else:
        text = pick(_OPENINGS) + cover
    return Caption(text, tuple(field for field in a.FIELDS if field in mentions))
