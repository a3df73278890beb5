"""SIMULATED soundscapes: what a microphone might hear at a place with these attributes. Not recordings.

The tables say which layers a place may have and how loud they are; the seed says which of them sound, when,
how loud and at what pitch. Nothing else is known of the place; the relief is not heard.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geobind.data.earth import attributes as a
from geobind.data.earth.attributes import Scene
from geobind.errors import GeoBindError

Floats = NDArray[np.floating[Any]]  # single precision
Layers = dict[str, tuple[float, float]]

_STREAM = 2  # keeps the random numbers of sounds apart from those of views with the same seed

# Land cover: layers it may have, each with its chance and its loudness
_COVER: dict[int, Layers] = {
    a.WATER: {"swell": (1.0, 0.30)},
    a.ICE: {"wind": (0.35, 0.10), "cracks": (0.55, 0.20)},
    a.DESERT: {"sand": (0.75, 0.12), "wind": (0.5, 0.15)},
    a.TUNDRA: {"wind": (0.9, 0.22), "plover": (0.7, 0.16)},
    a.SHRUBLAND: {"wind": (0.4, 0.10), "warbler": (0.9, 0.18), "crickets": (0.4, 0.08)},
    a.GRASSLAND: {"wind": (0.5, 0.12), "lark": (0.9, 0.18), "crickets": (0.7, 0.14)},
    a.SAVANNA: {"dove": (0.9, 0.22), "crickets": (0.8, 0.16), "weaver": (0.5, 0.12)},
    a.CROPLAND: {"lark": (0.6, 0.14), "tractor": (0.65, 0.16), "crow": (0.4, 0.14), "crickets": (0.3, 0.08)},
    a.RAINFOREST: {"cicadas": (1.0, 0.20), "whoop": (0.8, 0.22), "parrot": (0.7, 0.20), "frogs": (0.4, 0.12)},
    a.CONIFER_FOREST: {"sough": (1.0, 0.18), "goldcrest": (0.9, 0.14), "woodpecker": (0.5, 0.25)},
    a.BROADLEAF_FOREST: {"rustle": (0.9, 0.10), "songbirds": (1.0, 0.22), "dove": (0.3, 0.12)},
    a.WETLAND: {"frogs": (1.0, 0.24), "ducks": (0.8, 0.20), "crickets": (0.3, 0.08)},
    a.URBAN: {"traffic": (1.0, 0.25), "horns": (0.6, 0.20)},
}

_CLIMATE: dict[int, Layers] = {
    a.POLAR: {"wind": (0.30, 0.10)},
    a.COLD: {"wind": (0.4, 0.12), "crow": (0.5, 0.14)},
    a.TEMPERATE: {"rain": (0.20, 0.09), "songbirds": (0.5, 0.12)},
    a.DRY: {"wind": (0.3, 0.10), "crickets": (0.6, 0.12)},
    a.TROPICAL: {"rain": (0.35, 0.11), "cicadas": (0.6, 0.14)},
}

_COAST: dict[int, Layers] = {0: {}, 1: {"surf": (1.0, 0.40), "gulls": (0.6, 0.20)}}

_SETTLEMENT: dict[int, Layers] = {
    a.NO_SETTLEMENT: {},
    a.VILLAGE: {"dog": (0.6, 0.20), "cock": (0.4, 0.18), "bells": (0.3, 0.14)},
    a.TOWN: {"bells": (0.7, 0.24), "traffic": (0.7, 0.10), "dog": (0.3, 0.14)},
    a.CITY: {"traffic": (1.0, 0.28), "horns": (0.7, 0.22), "bells": (0.15, 0.10)},
}

# Climate: factors on the chances of animals and of insects (water and ice have none of their own)
_LIVELY: dict[int, tuple[float, float]] = {
    a.POLAR: (0.7, 0.0), a.COLD: (0.8, 0.3), a.TEMPERATE: (1.0, 0.7), a.DRY: (0.9, 1.0), a.TROPICAL: (1.0, 1.3),
}  # fmt: skip
_INSECTS = ("crickets", "cicadas")


class Voice(NamedTuple):
    """How an animal calls: phrases of equal syllables, each a tone that sweeps.

    pitch: lowest and highest, Hz. sweep: the change of pitch over a syllable, as a share of it.
    length, gap: of a syllable, seconds. syllables, phrases: fewest and most.
    overtones: harmonics beside the first. rough: Hz of a deep tremolo, 0 for a pure tone.
    """

    pitch: tuple[float, float]
    sweep: float
    length: float
    gap: float
    syllables: tuple[int, int]
    phrases: tuple[int, int]
    overtones: int = 0
    rough: float = 0.0


_VOICES: dict[str, Voice] = {
    "songbirds": Voice((2400, 5800), 0.5, 0.08, 0.04, (3, 8), (4, 7)),
    "lark": Voice((3200, 6200), -0.3, 0.035, 0.015, (14, 30), (2, 3)),
    "plover": Voice((1700, 2600), 0.3, 0.35, 0.20, (1, 2), (1, 3)),
    "goldcrest": Voice((6200, 7300), -0.08, 0.05, 0.05, (5, 9), (2, 3)),
    "warbler": Voice((2800, 4800), -0.5, 0.12, 0.14, (2, 3), (1, 3)),
    "weaver": Voice((2500, 4000), 0.1, 0.05, 0.03, (4, 9), (2, 3), rough=180),
    "dove": Voice((420, 620), -0.12, 0.22, 0.10, (3, 4), (1, 2), overtones=1),
    "parrot": Voice((1400, 2600), -0.2, 0.18, 0.10, (2, 3), (2, 3), overtones=3, rough=90),
    "whoop": Voice((500, 1000), 0.9, 0.32, 0.12, (1, 3), (1, 3), overtones=1),
    "gulls": Voice((1200, 1900), -0.35, 0.22, 0.10, (2, 5), (1, 2), overtones=3),
    "crow": Voice((800, 1200), -0.15, 0.20, 0.15, (2, 4), (1, 1), overtones=4, rough=70),
    "ducks": Voice((650, 950), -0.2, 0.10, 0.09, (3, 6), (1, 2), overtones=5, rough=110),
    "frogs": Voice((500, 1700), 0.1, 0.16, 0.10, (4, 10), (3, 5), overtones=1, rough=45),
    "dog": Voice((450, 800), -0.4, 0.12, 0.20, (2, 4), (1, 2), overtones=4),
    "cock": Voice((750, 1000), 0.15, 0.28, 0.05, (3, 3), (1, 1), overtones=5),
    "horns": Voice((330, 520), 0.0, 0.45, 0.15, (1, 2), (1, 2), overtones=6),
}


def render_sound(scene: Scene, seed: int, seconds: float = 3.0, rate: int = 16000) -> NDArray[np.float32]:
    """Play a SIMULATED soundscape: surf, wind, rain, animals, traffic, bells, or next to nothing.

    It stands for a geotagged recording, which nobody can ship. Cover, coast, climate and settlement decide
    which layers it may have (`layers`), the seed decides the rest. The same scene and seed give the same
    samples, bit for bit. Quiet places stay quiet: nothing is brought to a common loudness.

    >>> render_sound(attributes.scene(0), seed=7).shape          # float32 in [-1, 1], mono
    (48000,)

    seed: not negative. Raises GeoBindError for less than half a second or fewer than 8000 samples a second.
    """
    if seconds < 0.5 or rate < 8000:
        raise GeoBindError(f"a sound lasts 0.5 s or more at 8000 Hz or more, not {seconds} s at {rate} Hz")
    mix = _Mix(np.random.default_rng([_STREAM, int(seed)]), round(seconds * rate), rate)
    for name, (chance, loudness) in layers(scene).items():
        if mix.rng.random() < chance:
            level = loudness * mix.between(0.25, 0.65)
            if name in _VOICES:
                mix.voice(_VOICES[name], level)
            else:
                _PLAYERS[name](mix, level)
    peak = float(np.abs(mix.samples).max())
    return mix.samples if peak <= 0.95 else mix.samples * np.float32(0.95 / peak)


def layers(scene: Scene) -> Layers:
    """What may be heard in a SIMULATED soundscape: layer to (chance, loudness), from the tables alone.

    A layer that two attributes bring is likelier than from either and as loud as the louder one. Animals
    are rarer where it is cold, insects are missing there.

    >>> layers(Scene(cover=WATER, relief=FLAT, coast=0, climate=TEMPERATE, settlement=NO_SETTLEMENT, tone=DARK_BLUE))
    {'swell': (1.0, 0.3), 'rain': (0.2, 0.09)}
    """
    found: Layers = {}
    animals, insects = _LIVELY[scene.climate]
    bare = scene.cover in (a.WATER, a.ICE, a.DESERT)
    climate, settlement = _CLIMATE[scene.climate], _SETTLEMENT[scene.settlement]
    for source in (_COVER[scene.cover], climate, _COAST[scene.coast], settlement):
        for name, (chance, loudness) in source.items():
            if source is climate and bare and (name in _INSECTS or name in _VOICES):
                continue
            if name in _INSECTS:
                chance = min(1.0, chance * insects)
            elif name in _VOICES and name != "horns":
                chance *= animals
            before, louder = found.get(name, (0.0, 0.0))
            found[name] = (before + chance - before * chance, max(louder, loudness))
    return {name: found[name] for name in found if found[name][0] > 0}


class _Mix:
    """A soundscape in the making: `samples` (n,) that layers are added to, and its random numbers."""

    def __init__(self, rng: np.random.Generator, count: int, rate: int) -> None:
        self.rng, self.count, self.rate = rng, count, rate
        hiss = self.between(0.0004, 0.0012)  # of the microphone
        self.samples = (rng.random(count, np.float32) - np.float32(0.5)) * np.float32(hiss)

    def between(self, low: float, high: float) -> float:
        """One uniform random number."""
        return low + (high - low) * self.rng.random()

    def noise(self, low: float, high: float, level: float) -> Floats:
        """(n,) noise of root mean square `level` between two frequencies, 24 dB an octave beyond them."""
        jitter = self.between(0.85, 1.18)
        low, high = low * jitter, high * jitter
        # Beyond four times the upper edge, 49 dB down, there is nothing worth a random number.
        square = _square_frequencies(self.count, self.rate)[: int(4 * high * self.count / self.rate) + 2]
        shape = square / (square + np.float32(low * low))
        shape /= 1 + square / np.float32(high * high)
        shape *= shape
        spectrum = (self.rng.random(2 * len(square), np.float32) - np.float32(0.5)).view(np.complex64)
        # Real and imaginary parts have a variance of 1/12 each.
        shape *= np.float32(level * self.count / np.sqrt(float(np.square(shape, dtype=np.float64).sum()) / 3))
        spectrum *= shape
        return np.fft.irfft(spectrum, self.count)

    def slow(self, hertz: float, low: float, high: float) -> Floats:
        """(n,) a level that wanders between two values, about `hertz` times a second."""
        knots = max(3, int(self.count / self.rate * hertz) + 2)
        return self.stretch(np.float32(low) + np.float32(high - low) * self.rng.random(knots, np.float32))

    def wave(self, period: float, crest: float, delay: float) -> Floats:
        """(n,) swelling and breaking waves, 0 to 1: a slow rise and a slower fall."""
        seconds = self.count / self.rate
        phase = np.linspace(0, seconds / period, int(seconds * 50), dtype=np.float32) + np.float32(
            crest - delay
        )
        phase -= np.floor(phase)
        return self.stretch(np.minimum(phase / np.float32(0.3), (1 - phase) / np.float32(0.7)) ** 2)

    def stretch(self, knots: Floats) -> Floats:
        """(n,) equally spaced values, joined smoothly."""
        step = -(-self.count // (len(knots) - 1))
        part = np.arange(step, dtype=np.float32) / np.float32(step)
        level = (knots[1:] - knots[:-1])[:, None] * (part * part * (3 - 2 * part))
        level += knots[:-1, None]
        return level.ravel()[: self.count]

    def add(self, sound: Floats, *levels: Floats | float) -> None:
        """Add a sound of full length, made louder and softer by levels; it is used up."""
        for level in levels:
            sound *= level
        self.samples += sound

    def insert(self, sound: Floats, start: int) -> None:
        """Add a short sound; what would lie after the end is lost."""
        end = min(self.count, start + len(sound))
        self.samples[start:end] += sound[: end - start]

    def repeat(self, sound: Floats) -> Floats:
        """(n,) a short sound over and over."""
        return np.resize(sound, self.count)

    def voice(self, voice: Voice, level: float) -> None:
        """The phrases of an animal (or a horn) at random times and pitches."""
        for _ in range(self.rng.integers(voice.phrases[0], voice.phrases[1] + 1)):
            length = int(voice.length * self.between(0.75, 1.3) * self.rate)
            step = length + int(voice.gap * self.between(0.7, 1.4) * self.rate)
            part = np.arange(length) / length
            hertz = self.between(*voice.pitch)
            sweep = voice.sweep * self.between(0.6, 1.2)
            cycles = hertz * length / self.rate * (part + sweep * (part - 1) * part / 2)
            syllable = _sine(cycles)
            for k in range(2, voice.overtones + 2):
                if hertz * k < 0.45 * self.rate:
                    syllable = syllable + _sine(cycles * k) / np.float32(k)
            syllable = syllable * _sine(part / 2)
            if voice.rough:
                beats = voice.rough * self.between(0.8, 1.25) * length / self.rate
                syllable = syllable * (np.float32(0.5) + np.float32(0.5) * _sine(part * beats))
            times = int(self.rng.integers(voice.syllables[0], voice.syllables[1] + 1))
            phrase = np.zeros((times, step), np.float32)
            phrase[:, :length] = syllable * np.float32(level * self.between(0.5, 1.0))
            start = int(self.between(0, max(0.3 * self.count, self.count - times * step)))
            self.insert(phrase.ravel(), start)


def _surf(mix: _Mix, level: float) -> None:
    """Waves that break: a rumble, then a brighter hiss as the water runs out."""
    period, crest = mix.between(3.0, 6.0), mix.between(0, 1)
    mix.add(mix.noise(50, 450, level * 0.7), mix.wave(period, crest, 0) + np.float32(0.35))
    mix.add(mix.noise(400, 2400, level * 0.5), mix.wave(period, crest, 0.15) + np.float32(0.2))


def _swell(mix: _Mix, level: float) -> None:
    """The open sea: deep, uneven, with slaps of water."""
    mix.add(mix.noise(25, 180, level * 0.8), mix.slow(0.8, 0.3, 1.2))
    mix.add(mix.noise(300, 900, level * 0.3), np.square(mix.slow(2.5, 0.0, 1.0)))


def _wind(mix: _Mix, level: float) -> None:
    """Gusts: two bands that rise and fall apart, so that the wind seems to change its pitch."""
    gust = mix.slow(0.7, 0.3, 1.2)
    mix.add(mix.noise(90, 260, level * 0.6), gust)
    pitch = mix.between(450, 900)
    mix.add(mix.noise(pitch * 0.9, pitch * 1.1, level * 0.8), gust, mix.slow(1.2, 0.0, 1.0))


def _sand(mix: _Mix, level: float) -> None:
    """Sand that the wind drives along: a thin hiss."""
    mix.add(mix.noise(3500, 7500, level * 0.5), mix.slow(1.2, 0.1, 1.0))


def _sough(mix: _Mix, level: float) -> None:
    """Wind in needles."""
    mix.add(mix.noise(500, 1500, level), mix.slow(0.6, 0.3, 1.0))


def _rustle(mix: _Mix, level: float) -> None:
    """Wind in leaves."""
    mix.add(mix.noise(2200, 6000, level), mix.slow(2.0, 0.1, 1.0))


def _rain(mix: _Mix, level: float) -> None:
    """A steady hiss and single drops."""
    mix.add(mix.noise(1500, 7000, level * 0.6))
    drops = int(mix.between(20, 120) * mix.count / mix.rate)
    at = mix.rng.integers(0, mix.count - 8, drops)
    drop = np.asarray((1, -0.8, 0.6, -0.4, 0.3, -0.2, 0.1, -0.05), np.float32)
    force = mix.rng.random(drops, np.float32) * np.float32(level * 2)
    np.add.at(mix.samples, at[:, None] + np.arange(8), force[:, None] * drop)


def _cracks(mix: _Mix, level: float) -> None:
    """Ice that cracks: a few damped knocks."""
    part = np.arange(int(0.15 * mix.rate)) / mix.rate
    for _ in range(mix.rng.integers(1, 4)):
        knock = _sine(mix.between(180, 900) * part) * np.exp(-part * mix.between(25, 60)).astype(np.float32)
        mix.insert(knock * np.float32(level * mix.between(0.4, 1.2)), int(mix.between(0, 0.9) * mix.count))


def _woodpecker(mix: _Mix, level: float) -> None:
    """A drum roll on a trunk."""
    step = int(mix.rate / mix.between(15, 22))
    part = np.arange(step) / mix.rate
    knock = _sine(mix.between(900, 1600) * part) * np.exp(-part * 160).astype(np.float32)
    roll = knock * np.linspace(1, 0.4, int(mix.rng.integers(9, 18)), dtype=np.float32)[:, None]
    mix.insert(roll.ravel() * np.float32(level), int(mix.between(0, 0.7) * mix.count))


def _crickets(mix: _Mix, level: float) -> None:
    """Two or three crickets: pure high tones in groups of short pulses."""
    for _ in range(mix.rng.integers(2, 4)):
        period = int(mix.rate * mix.between(0.25, 0.6))
        time = np.arange(period) / mix.rate
        pulse = mix.between(26, 40)
        pulses = np.maximum(_sine(time * pulse), 0) * (time < mix.rng.integers(2, 5) / pulse)
        chirp = _sine(time * min(mix.between(3900, 5200), 0.45 * mix.rate)) * pulses
        mix.samples += np.roll(mix.repeat(chirp), int(mix.between(0, period))) * np.float32(
            level * mix.between(0.3, 1)
        )


def _cicadas(mix: _Mix, level: float) -> None:
    """Two or three cicadas: shrill tones with a fast rattle that swell and fade."""
    for _ in range(mix.rng.integers(2, 4)):
        rattles = mix.between(70, 140)
        time = np.arange(int(12 / rattles * mix.rate)) / mix.rate
        call = _sine(time * min(mix.between(4800, 6800), 0.45 * mix.rate))
        call *= np.square(_sine(time * (rattles / 2)))
        mix.add(mix.repeat(call), mix.slow(0.8, 0.3, 1.2), level * mix.between(0.4, 1.2))


def _hum(mix: _Mix, hertz: float, overtones: int) -> Floats:
    """(n,) the tone of an engine."""
    periods = 8  # of one length, repeated
    length = round(periods * mix.rate / hertz)
    part = np.arange(length) / length * periods
    tone = np.zeros(length, np.float32)
    for k in range(1, overtones + 2):
        tone += _sine(part * k) / np.float32(k)
    return mix.repeat(tone)


def _tractor(mix: _Mix, level: float) -> None:
    """A diesel engine that idles in a field."""
    mix.add(_hum(mix, mix.between(22, 32), 14), mix.slow(0.5, 0.5, 1.0), level * 0.7)


def _traffic(mix: _Mix, level: float) -> None:
    """A rumble, and a vehicle that passes."""
    mix.add(mix.noise(45, 320, level * 0.8), mix.slow(0.5, 0.6, 1.1))
    away = np.linspace(-1.5, 1.5, 50, dtype=np.float32) - np.float32(mix.between(-1.2, 1.2))
    passing = mix.stretch(1 / (1 + away * away * np.float32(mix.between(6, 20))))
    mix.add(_hum(mix, mix.between(75, 150), 7), passing, 0.6 * level)
    mix.add(mix.noise(700, 1800, level * 0.8), passing + np.float32(0.15))


def _bells(mix: _Mix, level: float) -> None:
    """A church bell struck one to three times; its partials are those of a minor-third bell."""
    part = np.arange(int(1.2 * mix.rate)) / mix.rate
    hertz = mix.between(420, 800)
    ring = np.zeros(len(part), np.float32)
    for ratio, weight, decay in (
        (0.5, 0.5, 1.6),
        (1.0, 0.8, 2.2),
        (1.2, 0.6, 3.0),
        (2.0, 1.0, 3.4),
        (2.67, 0.4, 6.0),
    ):
        ring += (
            _sine(part * (hertz * ratio))
            * np.exp(part.astype(np.float32) * np.float32(-decay))
            * np.float32(weight)
        )
    start = mix.between(0, 0.4) * mix.count
    for _ in range(mix.rng.integers(1, 4)):
        mix.insert(ring * np.float32(level * 0.5), int(start))
        start = min(start + mix.between(0.6, 1.0) * mix.rate, mix.count - 1)


_PLAYERS: dict[str, Callable[[_Mix, float], None]] = {
    "surf": _surf, "swell": _swell, "wind": _wind, "sand": _sand, "sough": _sough, "rustle": _rustle, "rain": _rain,
    "cracks": _cracks, "woodpecker": _woodpecker, "crickets": _crickets, "cicadas": _cicadas, "tractor": _tractor,
    "traffic": _traffic, "bells": _bells,
}  # fmt: skip


def _sine(cycles: NDArray[np.float64]) -> Floats:
    """The sine of a number of full turns, single precision: the whole turns are taken off in double first."""
    part = (cycles - np.floor(cycles)).astype(np.float32)
    return np.sin(part * np.float32(2 * np.pi))


@lru_cache(maxsize=8)
def _square_frequencies(count: int, rate: int) -> Floats:
    """(count // 2 + 1,) squares of the frequencies of a spectrum, Hz²."""
    return np.square(np.fft.rfftfreq(count, 1 / rate)).astype(np.float32)
