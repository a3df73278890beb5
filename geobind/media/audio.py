"""Audio: any sound to mono samples, samples to windows of one length, windows to log-mel spectrograms."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache, reduce
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from geobind.errors import GeoBindError, MediaError, shorten
from geobind.media.files import describe, opened, unreadable
from geobind.media.stored import Stored

AudioValue = str | Path | bytes | Stored | tuple[np.ndarray, int]

_FRAMES_AT_ONCE = 1024  # ten seconds of CLAP's are 1001
_MEL_FLOOR = 1e-10  # power that counts as silence: -100 dB, as in transformers and librosa


def load_audio(value: AudioValue, sample_rate: int) -> np.ndarray:
    """Read a sound as (samples,) float32, mono, at `sample_rate` Hz.

    Channels are averaged; another rate is resampled with soxr (HQ, linear phase).

    >>> load_audio("waves.ogg", 48_000).shape    # five seconds
    (240000,)

    value: a path or the bytes of a file (WAV, FLAC, Ogg Vorbis and Opus, MP3: what libsndfile reads),
    or `(array, sample_rate)` with an array of shape (samples,) or (samples, channels): floats in
    -1..1, or integers, of which the full range is scaled to -1..1.
    Raises MediaError for a value that cannot be read, ends before its header says, holds no samples,
    or holds NaN or infinite ones. A stream cut short that never says its length (Ogg) is read to its end.
    """
    if isinstance(value, tuple):
        name, (samples, rate) = "array", _from_array(value)
    elif isinstance(value, str | Path | bytes | Stored):
        name, (samples, rate) = describe(value), _from_file(value)
    else:
        raise MediaError(f"audio {shorten(value)}: give a path, the bytes of a file or (array, sample_rate)")
    # Adding columns is eight times faster than mean(axis=1).
    mono = reduce(np.add, samples.T) / np.float32(samples.shape[1])
    if not np.isfinite(mono).all():
        raise MediaError(f"audio {name} has NaN or infinite samples: mend it, or remove its row")
    if rate != sample_rate:
        mono = soxr.resample(mono, rate, sample_rate, quality="HQ")
    if len(mono) == 0:
        raise MediaError(f"audio {name} has {len(samples)} samples, too few for a sound: remove its row")
    return mono


def windows(samples: np.ndarray, length: int, *, pad: Literal["repeat", "zero"] = "repeat") -> np.ndarray:
    """Cut a sound of any length into (n, length) windows that cover every sample.

    A sound no longer than `length` is one window: repeated as often as it fits whole, then zeros (CLAP's
    "repeatpad"); with pad "zero", zeros only. A longer one gives the fewest windows that cover it, evenly
    spaced, the first at its start and the last at its end; they overlap where it is no multiple.

    >>> windows(np.arange(1.0, 4.0), 8)
    array([[1., 2., 3., 1., 2., 3., 0., 0.]])
    >>> windows(np.arange(5.0), 4)
    array([[0., 1., 2., 3.],
           [1., 2., 3., 4.]])

    samples: (samples,), at least one.
    """
    if samples.ndim != 1 or len(samples) == 0:
        raise MediaError(f"audio array of shape {samples.shape}: give mono samples, at least one")
    if len(samples) <= length:
        row = np.tile(samples, length // len(samples) if pad == "repeat" else 1)
        return np.pad(row, (0, length - len(row)))[None]
    number = -(-len(samples) // length)
    starts = np.linspace(0, len(samples) - length, number).round().astype(np.int64)
    return samples[starts[:, None] + np.arange(length)]


@dataclass(frozen=True)
class LogMel:
    """Windows of samples to log-mel spectrograms in decibels.

    Equal to `transformers.ClapFeatureExtractor`, and about twice as fast: the defaults to its fused
    variant (`truncation="fusion"`), `mel_scale="slaney", norm="slaney"` to the unfused one. Other
    values serve other towers.

    >>> log_mel = LogMel(sample_rate=16_000, n_fft=512, hop=160, n_mels=64, fmax=8_000)
    >>> log_mel(torch.zeros(2, 16_000)).shape     # one second: 1 + 16000 // 160 frames
    torch.Size([2, 1, 101, 64])

    sample_rate, fmin, fmax: Hz. n_fft, hop: samples. mel_scale: O'Shaughnessy's formula ("htk") or the
    Auditory Toolbox's, linear below 1 kHz ("slaney"). norm "slaney" divides each filter by its width.
    """

    sample_rate: int = 48_000
    n_fft: int = 1024
    hop: int = 480
    n_mels: int = 64
    fmin: float = 50.0
    fmax: float = 14_000.0
    mel_scale: Literal["htk", "slaney"] = "htk"
    norm: Literal["slaney"] | None = None

    def __post_init__(self) -> None:
        for name, options in (("mel_scale", ("htk", "slaney")), ("norm", (None, "slaney"))):
            if getattr(self, name) not in options:
                raise GeoBindError(f"log-mel, {name} = {getattr(self, name)!r}: give one of {options}")
        if min(self.n_fft, self.hop, self.n_mels) < 1:
            raise GeoBindError(f"log-mel, {self}: n_fft, hop and n_mels are at least 1")
        if not 0 <= self.fmin < self.fmax <= self.sample_rate / 2:
            raise GeoBindError(
                f"log-mel, fmin = {self.fmin}, fmax = {self.fmax} at {self.sample_rate} Hz: "
                f"give 0 <= fmin < fmax <= {self.sample_rate / 2}"
            )

    def __call__(self, windows: Tensor) -> Tensor:
        """(n, samples) float32 to (n, 1, 1 + samples // hop, n_mels) float32 in dB, -100 at least."""
        if windows.ndim != 2 or windows.shape[1] <= self.n_fft // 2:
            raise GeoBindError(
                f"log-mel, windows of shape {tuple(windows.shape)}: give (n, samples) "
                f"with more than n_fft // 2 = {self.n_fft // 2} samples"
            )
        if windows.device.type == "mps":  # has no float64
            return self(windows.cpu()).to(windows.device)
        # One at a time: a spectrum of ten seconds fits the cache, sixteen take three times as long each.
        return torch.stack([self._decibels(one) for one in windows]).unsqueeze(1)

    def _decibels(self, samples: Tensor) -> Tensor:
        """(samples,) to (frames, n_mels); a long recording in pieces, so that its length costs no memory."""
        edge, frames = self.n_fft // 2, 1 + len(samples) // self.hop
        mirrored = pad(samples[None], (edge, edge), mode="reflect")[0]
        parts = []
        for first in range(0, frames, _FRAMES_AT_ONCE):
            last = min(first + _FRAMES_AT_ONCE, frames) - 1
            piece = mirrored[first * self.hop : last * self.hop + self.n_fft]
            # float64: next to a loud band, rounding in float32 is louder than the silence of an empty one
            # (what lies above 11 kHz in a recording made at 22,050 Hz), and decibels would show it.
            spectrum = torch.stft(
                piece.double(),
                self.n_fft,
                self.hop,
                window=_window(self.n_fft).to(piece.device),
                center=False,
                return_complex=True,
            )
            power = (
                spectrum.real.float().square() + spectrum.imag.float().square()
            )  # (n_fft // 2 + 1, frames)
            parts.append(power.T @ _mel_filters(self).to(power.device))
        return 10 * torch.cat(parts).clamp_min_(_MEL_FLOOR).log10()

    def settings(self) -> dict[str, Any]:
        """All fields as JSON values: `LogMel(**settings)` is equal to this one."""
        return asdict(self)


def fusion_views(mel: Tensor, frames: int, rng: np.random.Generator | None = None) -> Tensor:
    """A long sound as CLAP's fused variant takes it: whole but shrunk, front, middle, back.

    The three are the first, the central and the last `frames` frames, so that a sound is always heard
    alike; with a generator each is drawn from its third of the sound, as the published training does
    (Wu et al. 2023, "Large-scale contrastive language-audio pretraining", section 3.3).

    mel: (more than `frames`, n_mels) in dB. Gives (4, frames, n_mels).
    """
    last = len(mel) - frames
    starts = [0, last // 2, last]
    if rng is not None:
        thirds = np.array_split(np.arange(last + 1), 3)
        starts = [int(rng.choice(third)) if len(third) else 0 for third in thirds]
    shrunk = interpolate(mel[None, None], size=(frames, mel.shape[1]), mode="bilinear")[0, 0]
    return torch.stack([shrunk, *(mel[start : start + frames] for start in starts)])


@lru_cache
def _window(n_fft: int) -> Tensor:
    return torch.hann_window(n_fft, dtype=torch.float64)


@lru_cache
def _mel_filters(spec: LogMel) -> Tensor:
    """(n_fft // 2 + 1, n_mels) triangles, evenly spaced in mel and straight in Hz."""
    low, high = _hertz_to_mel(np.array([spec.fmin, spec.fmax]), spec.mel_scale)
    corners = _mel_to_hertz(np.linspace(low, high, spec.n_mels + 2), spec.mel_scale)
    bins = np.linspace(0, spec.sample_rate / 2, spec.n_fft // 2 + 1)[:, None]
    rising = (bins - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - bins) / (corners[2:] - corners[1:-1])
    filters = np.minimum(rising, falling).clip(min=0)
    if spec.norm == "slaney":
        filters *= 2 / (corners[2:] - corners[:-2])
    return torch.from_numpy(filters).float()


# Slaney's scale (Auditory Toolbox, 1998): 3 mel per 200 Hz up to 1 kHz, then 27 mel per factor of 6.4.
def _hertz_to_mel(hertz: np.ndarray, scale: str) -> np.ndarray:
    if scale == "htk":
        return 2595 * np.log10(1 + hertz / 700)
    return np.where(
        hertz < 1000, 3 * hertz / 200, 15 + 27 * np.log(np.maximum(hertz, 1000) / 1000) / np.log(6.4)
    )


def _mel_to_hertz(mel: np.ndarray, scale: str) -> np.ndarray:
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    return np.where(mel < 15, 200 * mel / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))


# --- files and arrays --------------------------------------------------------------------------------------


def _from_file(value: str | Path | bytes | Stored) -> tuple[np.ndarray, int]:
    """(samples, channels) float32 and their rate."""
    with opened(value, "audio") as file:
        try:
            with soundfile.SoundFile(file) as sound:
                samples = sound.read(dtype="float32", always_2d=True)
                expected, rate = sound.frames, sound.samplerate
        except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError) as error:
            # libsndfile's message begins with the file object, which says nothing
            raise unreadable("audio", value, getattr(error, "error_string", error)) from None
    if len(samples) < expected:
        raise unreadable("audio", value, f"{len(samples)} of {expected} samples")
    return samples, rate


def _from_array(value: tuple[np.ndarray, int]) -> tuple[np.ndarray, int]:
    """(samples, channels) float32 and their rate."""
    array, rate = (np.asarray(value[0]), value[1]) if len(value) == 2 else (np.empty(()), 0)
    samples = array[:, None] if array.ndim == 1 else array
    # (channels, samples) would be averaged over time: no recorder has more than 64 channels.
    shaped = samples.ndim == 2 and samples.shape[1] > 0 and not samples.shape[1] > 64 > samples.shape[0]
    if not shaped or array.dtype.kind not in "uif" or not isinstance(rate, int | np.integer) or rate < 1:
        raise MediaError(
            f"audio {shorten(value)}: give (array, sample_rate), the array of shape (samples,) or (samples, channels)"
        )
    if array.dtype.kind in "ui":
        half = 2.0 ** (8 * array.dtype.itemsize - 1)
        samples = (samples - (half if array.dtype.kind == "u" else 0)) / half
    return samples.astype(np.float32), int(rate)
