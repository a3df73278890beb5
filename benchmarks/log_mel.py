"""Log-mel spectrograms beside the extractor of transformers, in one run: clips a second and differences in dB.

    OMP_NUM_THREADS=1 python benchmarks/log_mel.py

Both take the same ten seconds of noise and tones at 48 kHz and give what CLAP reads, for the fused model
(HTK mels) and the unfused one (Slaney's); rounds alternate, and the median of each is printed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from rich.console import Console
from transformers import ClapFeatureExtractor

from geobind.console import add_row, table
from geobind.media.audio import LogMel, fusion_views, windows

RATE, SECONDS, CLIPS, ROUNDS = 48_000, 10, 8, 7


def clips(seconds: float, number: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    samples = round(seconds * RATE)
    time_ = np.arange(samples) / RATE
    return [
        (
            0.1 * rng.standard_normal(samples) + 0.3 * np.sin(2 * np.pi * rng.uniform(100, 8000) * time_)
        ).astype(np.float32)
        for _ in range(number)
    ]


def views(sounds: list[np.ndarray], log_mel: LogMel) -> torch.Tensor:
    """What geobind gives the model: (clips, 1, frames, mels), or four views of each long sound."""
    length = SECONDS * RATE
    if all(len(sound) <= length for sound in sounds):
        return torch.cat([log_mel(torch.from_numpy(windows(sound, length))) for sound in sounds])
    mels = [log_mel(torch.from_numpy(sound)[None])[0, 0] for sound in sounds]
    return torch.stack([fusion_views(mel, 1 + length // log_mel.hop) for mel in mels])


def extracted(sounds: list[np.ndarray], extractor: ClapFeatureExtractor) -> torch.Tensor:
    return extractor(sounds, sampling_rate=RATE, return_tensors="pt")["input_features"]


def rates(number: int, *runs: Callable[[], torch.Tensor]) -> list[float]:
    """Clips a second of each, medians of alternating rounds."""
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(ROUNDS):
        for run, kept in zip(runs, seconds, strict=True):
            began = time.perf_counter()
            run()
            kept.append(time.perf_counter() - began)
    return [number / statistics.median(kept) for kept in seconds]


def main() -> None:
    figures = ("geobind clips/s", "transformers clips/s", "ratio", "largest difference, dB")
    shown = table(f"Log-mel of CLAP, {torch.get_num_threads()} thread(s)", "input", *figures, right=figures)
    for name, seconds, number, truncation in (
        ("fused, 10 s", SECONDS, CLIPS, "fusion"),
        ("unfused, 10 s", SECONDS, CLIPS, "rand_trunc"),
        ("fused, 60 s", 60, 2, "fusion"),
    ):
        log_mel = LogMel() if truncation == "fusion" else LogMel(mel_scale="slaney", norm="slaney")
        sounds = clips(seconds, number)
        ours = partial(views, sounds, log_mel)
        theirs = partial(
            extracted,
            sounds,
            ClapFeatureExtractor(frequency_min=50, frequency_max=14_000, truncation=truncation),
        )
        # Of a long sound only the shrunk whole can be compared: the library draws the pieces at random.
        difference = (ours()[:, 0] - theirs()[:, 0]).abs().max().item()
        mine, other = rates(number, ours, theirs)
        add_row(shown, name, f"{mine:.1f}", f"{other:.1f}", f"{mine / other:.2f}", f"{difference:.1e}")
    Console(width=100).print(shown)


main()
