"""Audio: invariants.

* A sound is the same samples whatever it comes in: path, bytes, array, integers, channels.
* Resampling keeps the frequency, the loudness and the duration of a tone.
* Windows cover every sample, in order, evenly; a short sound is padded as CLAP's extractor pads it.
* Log-mels equal transformers' ClapFeatureExtractor to 1e-3 dB, fused and unfused, on noise, on tones,
  on silence and on real recordings that leave part of the band empty.
* Whatever cannot be read in full is one MediaError with its name.
"""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from geobind.errors import GeoBindError, MediaError
from geobind.media.audio import LogMel, fusion_views, load_audio, windows

FUSED = LogMel()
UNFUSED = LogMel(mel_scale="slaney", norm="slaney")
SMALL = LogMel(sample_rate=16_000, n_fft=512, hop=160, n_mels=40, fmin=0, fmax=8_000)


def tone(rate: int, *, hertz: float = 440.0, seconds: float = 1.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def encoded(samples: np.ndarray, rate: int, kind: str = "WAV", subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


# --- loading -----------------------------------------------------------------------------------------------


def test_path_bytes_and_array_are_the_same_sound(tmp_path: Path) -> None:
    samples = tone(16_000)
    data = encoded(samples, 16_000, subtype="FLOAT")
    path = tmp_path / "tone.wav"
    path.write_bytes(data)
    for value in (path, str(path), data, (samples, 16_000), (samples.astype(np.float64), np.int64(16_000))):
        got = load_audio(value, 16_000)
        assert got.dtype == np.float32
        assert np.array_equal(got, samples)


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [("WAV", "PCM_16"), ("FLAC", None), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None)],
)
def test_formats(kind: str, subtype: str | None) -> None:
    samples = tone(48_000)
    got = load_audio(encoded(samples, 48_000, kind, subtype), 48_000)
    assert abs(len(got) - 48_000) < 2_400
    assert loudest(got, 48_000) == pytest.approx(440, abs=2)


def test_integers_are_scaled_to_one() -> None:
    for dtype, low, high in (
        ("int16", -(2**15), 2**15 - 1),
        ("int32", -(2**31), 2**31 - 1),
        ("uint8", 0, 255),
    ):
        got = load_audio((np.array([low, high], dtype), 8_000), 8_000)
        assert got[0] == -1
        assert 0.99 < got[1] <= 1


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_channels_are_averaged(channels: int) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, (1000, channels)).astype(np.float32)
    for value in ((samples, 8_000), encoded(samples, 8_000, subtype="FLOAT")):
        assert np.allclose(load_audio(value, 8_000), samples.mean(1), atol=1e-7)


def loudest(samples: np.ndarray, rate: int) -> float:
    """Hz of the strongest frequency."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * rate / len(samples))


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 96_000])
@pytest.mark.parametrize("wanted", [16_000, 48_000])
def test_resampling_keeps_the_tone(rate: int, wanted: int) -> None:
    got = load_audio((tone(rate, hertz=1_000, seconds=2), rate), wanted)
    assert abs(len(got) - 2 * wanted) <= 1
    assert loudest(got, wanted) == pytest.approx(1_000, abs=1)
    middle = got[wanted // 2 : -wanted // 2]
    assert middle.std() == pytest.approx(0.5 / np.sqrt(2), rel=1e-3)


def test_sample(sample: Path) -> None:
    for path in sorted((sample / "audio").rglob("*.ogg"))[::60]:
        info = soundfile.info(path)
        got = load_audio(path, 16_000)
        assert len(got) == pytest.approx(info.frames * 16_000 / info.samplerate, abs=2)
        assert np.isfinite(got).all()


# --- windows -----------------------------------------------------------------------------------------------


@given(count=st.integers(1, 500), length=st.integers(1, 120), pad=st.sampled_from(["repeat", "zero"]))
def test_windows_cover_every_sample_in_order(count: int, length: int, pad: Any) -> None:
    samples = np.arange(1, count + 1, dtype=np.float32)
    got = windows(samples, length, pad=pad)
    assert got.shape == (max(1, -(-count // length)), length)
    assert got.dtype == np.float32
    assert set(got.ravel().tolist()) - {0.0} == set(samples.tolist())
    assert got[0, 0] == 1
    if count >= length:
        assert got[-1, -1] == count
        assert (np.diff(got, axis=1) == 1).all()
        starts = got[:, 0]
        if len(starts) > 1:
            steps = np.diff(starts)
            assert 0 < steps.min() <= steps.max() <= length
            assert steps.max() - steps.min() <= 1
    else:
        whole = length // count if pad == "repeat" else 1
        assert np.array_equal(got[0, : whole * count], np.tile(samples, whole))
        assert (got[0, whole * count :] == 0).all()


def test_windows_of_nothing_or_of_two_channels() -> None:
    for samples in (np.zeros(0, np.float32), np.zeros((10, 2), np.float32)):
        with pytest.raises(MediaError, match="give mono samples"):
            windows(samples, 4)


# --- log-mel -----------------------------------------------------------------------------------------------


def extractor(log_mel: LogMel) -> Any:
    from transformers import ClapFeatureExtractor

    return ClapFeatureExtractor(
        feature_size=log_mel.n_mels,
        sampling_rate=log_mel.sample_rate,
        hop_length=log_mel.hop,
        fft_window_size=log_mel.n_fft,
        frequency_min=log_mel.fmin,
        frequency_max=log_mel.fmax,
        max_length_s=2,
    )


def same_as_clap(clips: list[np.ndarray], log_mel: LogMel) -> None:
    length = 2 * log_mel.sample_rate
    truncation = "fusion" if log_mel.norm is None else "rand_trunc"
    clips = [clip[:length] for clip in clips]
    theirs = extractor(log_mel)(
        clips, sampling_rate=log_mel.sample_rate, truncation=truncation, return_tensors="pt"
    )
    want = theirs["input_features"][:, :1]  # the fused variant repeats a short clip's spectrogram four times
    got = log_mel(torch.from_numpy(np.concatenate([windows(clip, length) for clip in clips])))
    assert got.shape == want.shape == (len(clips), 1, 1 + length // log_mel.hop, log_mel.n_mels)
    assert got.dtype == torch.float32
    assert (got - want).abs().max() < 1e-3


@pytest.mark.parametrize("log_mel", [FUSED, UNFUSED, SMALL], ids=["fused", "unfused", "small"])
def test_log_mel_equals_clap(log_mel: LogMel) -> None:
    rng, rate = np.random.default_rng(0), log_mel.sample_rate
    noise = rng.standard_normal(2 * rate).astype(np.float32)
    short = rng.standard_normal(rate // 3).astype(np.float32)  # repeat-padded six times
    odd = rng.standard_normal(rate * 3 // 4 + 1).astype(np.float32)  # twice, then zeros
    narrow = load_audio((noise[: rate // 2], rate // 4), rate)  # nothing above an eighth of the rate
    same_as_clap([noise, short, odd, narrow, tone(rate), np.zeros(100, np.float32)], log_mel)


@pytest.mark.parametrize("log_mel", [FUSED, UNFUSED], ids=["fused", "unfused"])
def test_log_mel_equals_clap_on_real_sounds(log_mel: LogMel, sample: Path) -> None:
    paths = sorted((sample / "audio").rglob("*.ogg"))[::40]
    same_as_clap([load_audio(path, 48_000) for path in paths], log_mel)


def test_log_mel_of_a_batch_is_that_of_each() -> None:
    many = torch.from_numpy(np.random.default_rng(0).standard_normal((40, 4_000)).astype(np.float32))
    got = SMALL(many)
    assert got.shape == (40, 1, 26, 40)
    assert torch.allclose(got, torch.cat([SMALL(one[None]) for one in many]), atol=1e-4)


def test_a_long_sound_in_pieces_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    long = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 50_001)).astype(np.float32))
    whole = SMALL(long)
    for frames in (1, 7, 100):
        monkeypatch.setattr("geobind.media.audio._FRAMES_AT_ONCE", frames)
        assert torch.allclose(SMALL(long), whole, atol=1e-4)


def test_fusion_views_are_the_whole_and_three_pieces_in_order() -> None:
    mel = torch.arange(40.0)[:, None].expand(40, 3)
    whole, front, middle, back = fusion_views(mel, 10)
    assert (front[0, 0], middle[0, 0], back[-1, 0]) == (0, 15, 39)
    assert whole.shape == (10, 3)
    assert (whole[:, 0].diff() == 4).all()
    for seed in range(20):
        views = fusion_views(mel, 10, np.random.default_rng(seed))
        starts = [int(view[0, 0]) for view in views[1:]]
        assert starts[0] < 11 <= starts[1] < 21 <= starts[2] <= 30
        assert torch.equal(views[0], whole)
    assert fusion_views(mel[:11], 10, np.random.default_rng(0)).shape == (4, 10, 3)


def test_tone_is_in_its_band() -> None:
    got = SMALL(torch.from_numpy(windows(tone(16_000, hertz=1_000), 16_000)))
    loud = [
        SMALL(torch.from_numpy(tone(16_000, hertz=hertz)[None])).mean(2).argmax().item()
        for hertz in (200, 1_000, 5_000)
    ]
    assert loud == sorted(set(loud))
    assert got.max() - got.median() > 40


def test_settings_build_an_equal_one_and_it_pickles_small() -> None:
    assert LogMel(**json.loads(json.dumps(UNFUSED.settings()))) == UNFUSED
    FUSED(torch.zeros(1, 1_000))
    assert len(pickle.dumps(FUSED)) < 500
    assert pickle.loads(pickle.dumps(FUSED)) == FUSED


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"mel_scale": "kaldi"}, "kaldi"),
        ({"norm": "area"}, "area"),
        ({"hop": 0}, "hop"),
        ({"fmax": 30_000.0}, "24000"),
        ({"fmin": 14_000.0}, "fmin"),
    ],
)
def test_wrong_options_are_named(change: dict[str, Any], names: str) -> None:
    with pytest.raises(GeoBindError, match=names):
        LogMel(**change)


def test_windows_too_short_for_a_spectrum() -> None:
    with pytest.raises(GeoBindError, match="more than n_fft // 2 = 512"):
        FUSED(torch.zeros(1, 512))
    assert FUSED(torch.zeros(1, 513)).shape == (1, 1, 2, 64)


# --- bad input ---------------------------------------------------------------------------------------------


def test_bad_values_are_one_line(tmp_path: Path) -> None:
    ogg = encoded(np.random.default_rng(0).uniform(-1, 1, 160_000), 16_000, "OGG", "VORBIS")
    middle = len(ogg) // 2
    corrupt = tmp_path / "corrupt.ogg"
    corrupt.write_bytes(ogg[:middle] + bytes(6_000) + ogg[middle + 6_000 :])
    header = tmp_path / "header.ogg"
    header.write_bytes(ogg[:4] + bytes(200) + ogg[204:])
    cases: list[tuple[Any, str]] = [
        (tmp_path / "no.ogg", r"no\.ogg does not exist: check the path"),
        (tmp_path, "cannot be opened"),
        (b"", "is empty"),
        (b"nonsense" * 100, "of 800 bytes cannot be decoded"),
        (corrupt, r"corrupt\.ogg cannot be decoded \(\d+ of \d+ samples\)"),
        (header, r"header\.ogg cannot be decoded"),
        (ogg[:100], "cannot be decoded"),
        (encoded(tone(16_000), 16_000, "FLAC")[:9_000], "cannot be decoded"),
        (encoded(np.zeros(0), 16_000), "has 0 samples"),
        ((np.zeros(0), 16_000), "has 0 samples"),
        ((np.zeros((0, 2)), 16_000), "has 0 samples"),
        ((np.zeros(1, np.float32), 96_000), "has 1 samples, too few"),
        ((np.array([0.0, np.nan]), 16_000), "NaN or infinite"),
        (encoded(np.array([0.0, np.inf, 0.0]), 16_000, subtype="FLOAT"), "NaN or infinite"),
        ((np.zeros((2, 1_000)), 16_000), r"\(samples, channels\)"),
        ((np.zeros((10, 0)), 16_000), r"\(samples, channels\)"),
        ((np.zeros(10), 0), "sample_rate"),
        ((np.zeros(10), "16000"), "sample_rate"),
        ((np.zeros(10),), "sample_rate"),
        (("a", "b"), "sample_rate"),
        (None, "None: give a path"),
        (np.zeros(100), "give a path"),
    ]
    for value, message in cases:
        with pytest.raises(MediaError, match=message) as caught:
            load_audio(value, 8_000)
        assert "\n" not in str(caught.value)
