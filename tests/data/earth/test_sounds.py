"""Simulated soundscapes: decided by attributes and seed alone, finite, in range, and each attribute is heard.

* The same seed gives the same samples, another one others; the relief changes nothing.
* Every layer that the tables name can be played, alone and at other lengths and rates.
* Layers lie where they should in the spectrum: surf below insects, cicadas near 6 kHz, ice nearly silent.
* A nearest-centroid classifier on log band energies tells covers apart far better than chance.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from geobind.data.earth import attributes as a
from geobind.data.earth import sounds
from geobind.data.earth.attributes import NAMES, Scene
from geobind.data.earth.sounds import layers, render_sound
from geobind.errors import GeoBindError

RATE = 16000


def scene(**fields: int) -> Scene:
    """Temperate flat grassland but for these fields."""
    values = {
        "cover": a.GRASSLAND,
        "relief": 0,
        "coast": 0,
        "climate": a.TEMPERATE,
        "settlement": 0,
        "tone": a.OLIVE,
        **fields,
    }
    return Scene(**values)


def layer(
    name: str, seed: int = 0, level: float = 0.2, rate: int = RATE, seconds: float = 3.0
) -> NDArray[np.float32]:
    """One layer alone."""
    mix = sounds._Mix(np.random.default_rng(seed), round(seconds * rate), rate)
    if name in sounds._VOICES:
        mix.voice(sounds._VOICES[name], level)
    else:
        sounds._PLAYERS[name](mix, level)
    return mix.samples


def power(samples: NDArray[np.float32], low: float, high: float) -> float:
    """The share of the energy between two frequencies."""
    spectrum = np.abs(np.fft.rfft(samples)) ** 2
    hertz = np.fft.rfftfreq(len(samples), 1 / RATE)
    return float(spectrum[(hertz >= low) & (hertz < high)].sum() / spectrum.sum())


def named() -> set[str]:
    tables = (sounds._COVER, sounds._CLIMATE, sounds._COAST, sounds._SETTLEMENT)
    return {name for table in tables for found in table.values() for name in found}


def test_the_same_seed_gives_the_same_samples_and_another_one_others() -> None:
    place = scene(cover=a.BROADLEAF_FOREST)
    first = render_sound(place, 5)
    assert first.shape == (48000,)
    assert first.dtype == np.float32
    assert first.tobytes() == render_sound(place, np.int64(5)).tobytes()
    assert not np.array_equal(first, render_sound(place, 6))


def test_relief_and_tone_are_not_heard() -> None:
    assert {"relief", "tone"}.isdisjoint(a.visible("audio"))
    for cover in (a.WATER, a.CONIFER_FOREST, a.TUNDRA):
        flat, high = scene(cover=cover), scene(cover=cover, relief=a.MOUNTAINOUS, tone=a.SAND)
        assert layers(flat) == layers(high)
        assert np.array_equal(render_sound(flat, 3), render_sound(high, 3))


def test_sounds_are_finite_and_in_range() -> None:
    every = itertools.product(*(range(len(values)) for values in NAMES.values()))
    for seed, fields in enumerate(itertools.islice(every, 0, None, 121)):
        samples = render_sound(Scene(*fields), seed, seconds=1.0)
        assert np.isfinite(samples).all()
        assert 0 < np.abs(samples).max() <= 0.95 + 1e-6


def test_every_layer_of_the_tables_can_be_played_at_any_length_and_rate() -> None:
    assert named() == set(sounds._VOICES) | set(sounds._PLAYERS)
    for name, seconds, rate in itertools.product(named(), (0.5, 1.37), (8000, 22050)):
        samples = layer(name, seconds=seconds, rate=rate)
        assert samples.shape == (round(seconds * rate),)
        assert np.isfinite(samples).all()


def test_every_layer_sounds() -> None:
    for name in named():
        loudness = [float(np.sqrt(np.mean(layer(name, seed) ** 2))) for seed in range(6)]
        assert min(loudness) > 0.002, name
        assert max(loudness) < 0.4, name


def test_layers_lie_where_they_should_in_the_spectrum() -> None:
    for seed in range(5):
        surf, crickets, cicadas = (layer(name, seed) for name in ("surf", "crickets", "cicadas"))
        assert power(surf, 0, 1000) > 0.5 > 10 * power(crickets, 0, 1000)
        assert power(crickets, 3500, 5600) > 0.9
        assert power(cicadas, 4400, 7200) > 0.9
        assert power(layer("traffic", seed), 0, 500) > 0.6
        assert power(layer("rain", seed), 1000, 8000) > 0.9
        assert power(layer("songbirds", seed), 1500, 8000) > 0.95


def test_noise_has_the_loudness_asked_for() -> None:
    mix = sounds._Mix(np.random.default_rng(0), 48000, RATE)
    for low, high in ((50, 400), (400, 2000), (2000, 7000)):
        assert float(np.sqrt(np.mean(mix.noise(low, high, 0.1) ** 2))) == pytest.approx(0.1, rel=0.1)


def test_levels_wander_between_their_bounds() -> None:
    mix = sounds._Mix(np.random.default_rng(0), 48000, RATE)
    for hertz in (0.5, 3.0):
        level = mix.slow(hertz, 0.2, 0.9)
        assert level.shape == (48000,)
        assert 0.2 <= level.min() < level.max() <= 0.9
        assert np.abs(np.diff(level)).max() < 1e-3


def test_coasts_have_surf_and_the_cold_has_no_insects() -> None:
    for fields in itertools.product(*(range(len(values)) for values in NAMES.values())):
        place = Scene(*fields)
        found = layers(place)
        assert all(0 < chance <= 1 and 0 < loudness < 1 for chance, loudness in found.values())
        assert ("surf" in found) == bool(place.coast)
        if place.climate == a.POLAR:
            assert not {"crickets", "cicadas"} & set(found)
        if place.settlement == a.CITY:
            assert found["traffic"][0] == 1


def test_ice_is_the_quietest_place() -> None:
    def loudness(place: Scene) -> float:
        return float(np.median([np.sqrt(np.mean(render_sound(place, seed) ** 2)) for seed in range(15)]))

    ice = loudness(scene(cover=a.ICE, climate=a.POLAR))
    for cover in (a.WATER, a.TUNDRA, a.GRASSLAND, a.RAINFOREST, a.BROADLEAF_FOREST):
        assert loudness(scene(cover=cover)) > 1.5 * ice


def features(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """The mean and the spread over time of log energies in 24 bands, and of their changes."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, 512)[::256] * np.hanning(512)
    spectrum = np.abs(np.fft.rfft(frames)) ** 2
    edges = np.unique(np.geomspace(2, 257, 25).astype(int))
    bands = np.log(np.add.reduceat(spectrum[:, :256], edges[:-1], axis=1) + 1e-4)
    return np.concatenate([bands.mean(0), 2 * bands.std(0), np.abs(np.diff(bands, axis=0)).mean(0)])


def accuracy(options: list[Scene]) -> float:
    """Of the nearest centroid, in units of the spread within a scene: 20 sounds of each to learn, 20 to test."""
    known = np.stack([[features(render_sound(place, seed)) for seed in range(20)] for place in options])
    centroids, spread = known.mean(1), known.std(1).mean(0) + 1e-3
    right = [
        (((features(render_sound(place, seed)) - centroids) / spread) ** 2).sum(1).argmin() == k
        for k, place in enumerate(options)
        for seed in range(1000, 1020)
    ]
    return float(np.mean(right))


def test_each_attribute_is_heard() -> None:
    covers = [scene(cover=k, settlement=a.CITY * (k == a.URBAN)) for k in range(len(NAMES["cover"]))]
    assert accuracy(covers) > 0.5  # chance: 0.08
    assert accuracy([scene(coast=k) for k in range(2)]) > 0.8
    assert accuracy([scene(settlement=k) for k in (a.NO_SETTLEMENT, a.CITY)]) > 0.7


def test_too_short_or_too_few_samples_a_second() -> None:
    with pytest.raises(GeoBindError, match=r"not 0\.1 s at 16000 Hz"):
        render_sound(scene(), 0, seconds=0.1)
    with pytest.raises(GeoBindError, match=r"not 3\.0 s at 4000 Hz"):
        render_sound(scene(), 0, rate=4000)
