"""Compact towers that train from scratch on two cores in minutes: for teaching, tests and small data.

No batch normalisation: an embedding depends on its own value only, in training too.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geobind.errors import GeoBindError
from geobind.media.audio import LogMel
from geobind.media.images import ImageTransform
from geobind.towers.base import Batch, Row, Tower, register
from geobind.towers.clap import AudioProcessor
from geobind.towers.pixels import PixelProcessor, as_augment
from geobind.towers.small_text import SmallText

__all__ = ["ConvNet", "SmallAudio", "SmallImage", "SmallText"]

_SILENCE = -50.0  # dB: below the noise of any recording
_WINDOWS_AT_ONCE = 128  # bounds the memory of an hour-long recording


class Residual(nn.Module):
    """Two 3x3 convolutions beside the identity, normalised first (He et al. 2016); at the start, the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        last = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(last.weight)
        self.branch = nn.Sequential(
            nn.GroupNorm(channels // 8, channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(channels // 8, channels),
            nn.GELU(),
            last,
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class ConvNet(nn.Sequential):
    """(batch, channels, height, width) to (batch, features): residual stages and their mean over space.

    The stem sees every fourth pixel; each later stage halves both sides and doubles the channels, up
    to `features`, a multiple of 64.
    """

    def __init__(self, channels: int, features: int) -> None:
        if features < 64 or features % 64:
            raise GeoBindError(f"tower 'small', option 'width' = {features}: give a multiple of 64")
        sizes = [features // 8, features // 4, features // 2, features]
        layers: list[nn.Module] = [
            nn.Conv2d(channels, 16, 3, stride=2, padding=1),
            nn.GroupNorm(2, 16),
            nn.GELU(),
            nn.Conv2d(16, sizes[0], 3, stride=2, padding=1),
            Residual(sizes[0]),
        ]
        for before, after in pairwise(sizes):
            layers += [
                nn.GroupNorm(before // 8, before),
                nn.Conv2d(before, after, 2, stride=2),
                Residual(after),
            ]
        layers += [nn.GroupNorm(features // 8, features), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        super().__init__(*layers)


@register("small")
class SmallImage(Tower):
    """A residual network of 1.8 million parameters for images: `satellite`, `image` and any other name.

    Example (recipe): `satellite: {tower: small, size: 64}`

    Parameters: `size` pixels of the square it sees, at least 32; `width` numbers it gives, a multiple
    of 64; `augment` as for `clip`, crops of 0.5 or more of the area unless told.
    """

    def __init__(
        self, modality: str, *, size: int = 64, width: int = 256, augment: bool | dict[str, Any] = True
    ) -> None:
        if size < 32:
            raise GeoBindError(f"tower 'small', option 'size' = {size}: give 32 pixels or more")
        crops = {"scale": (0.5, 1.0), **(augment if isinstance(augment, Mapping) else {})}
        transform = ImageTransform(
            size,
            mean=(0.4, 0.4, 0.4),
            std=(0.2, 0.2, 0.2),
            augment=as_augment(modality, augment is not False and crops),
        )
        super().__init__(modality, width=width, processor=PixelProcessor(modality, transform))
        self.net = ConvNet(3, width)

    def encode(self, pixels: Tensor) -> Tensor:  # type: ignore[override]
        return self.net(pixels).float()


class SmallAudioProcessor(AudioProcessor):
    """Windows of log-mel as for `clap`; for training also shifted, louder or softer, and partly masked.

    The masks are two bands of frequency and two of time, silent (SpecAugment, Park et al. 2019).
    """

    def light(self, row: Row, *, rng: np.random.Generator | None = None) -> Batch:
        item = self.finish(super().light(row, rng=rng))
        if self.augment and rng is not None:
            mel = item["mel"].roll(int(rng.integers(item["mel"].shape[2])), 2) + rng.uniform(-6, 6)
            for axis in (2, 3, 2, 3):
                size = mel.shape[axis]
                wide = int(rng.integers(size // 8 + 1))
                mel.narrow(axis, int(rng.integers(size - wide + 1)), wide).fill_(_SILENCE)
            item["mel"] = mel
        return item


@register("small", modalities=("audio",))
class SmallAudio(Tower):
    """A residual network over log-mel windows of 16 kHz sound, and their mean.

    Example (recipe): `audio: {tower: small, seconds: 5}`

    Parameters: `seconds` of a window, 1 to 30; `width` numbers it gives, a multiple of 64; `augment`
    learn from one random window, shifted and masked at random.
    """

    def __init__(
        self, modality: str = "audio", *, seconds: float = 5.0, width: int = 256, augment: bool = True
    ) -> None:
        if not 1 <= seconds <= 30:
            raise GeoBindError(f"tower 'small', option 'seconds' = {seconds:g}: give 1 to 30")
        log_mel = LogMel(sample_rate=16_000, n_fft=1024, hop=320, n_mels=64, fmax=8_000)
        processor = SmallAudioProcessor(modality, log_mel, seconds, "repeat", augment)
        super().__init__(modality, width=width, processor=processor)
        self.net = ConvNet(1, width)

    def encode(self, mel: Tensor, windows: Tensor) -> Tensor:  # type: ignore[override]
        features = torch.cat([self.embed_windows(part) for part in mel.split(_WINDOWS_AT_ONCE)])
        return torch.stack([own.mean(0) for own in features.split(windows.tolist())])

    def embed_windows(self, mel: Tensor) -> Tensor:
        """(windows, width), whose means over a sound are its features, of (windows, 1, frames, mels)."""
        normal = (mel.clamp_min(_SILENCE) + 10) / 25  # mean and deviation of everyday recordings
        return self.net(normal).float()
