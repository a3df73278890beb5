"""CLAP: sounds of any length, and text, in one space."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geobind.errors import GeoBindError
from geobind.media.audio import LogMel, load_audio, windows
from geobind.towers.base import Batch, Processor, Row, register
from geobind.towers.checkpoints import preprocessor
from geobind.towers.pretrained import ConfigValue, PretrainedTower
from geobind.towers.tokens import TextProcessor, load_tokenizer, save_tokenizer

_LOWEST, _HIGHEST = 50, 14_000  # Hz: of all published checkpoints; the library's default begins at 0
_WINDOWS_AT_ONCE = 32  # bounds the memory of a long recording in evaluation


class AudioProcessor(Processor):
    """A sound to windows of one length, each a log-mel spectrogram.

    {"mel": (windows, 1, frames, mels) float32 in dB, "windows": how many of them are whose, int64}

    The fixed transform covers the whole sound, short ones repeated; for training (`rng`) it is one
    window of the sound at a random place.
    """

    def __init__(self, modality: str, log_mel: LogMel, seconds: float, pad: str, augment: bool) -> None:
        self.columns = (modality,)
        self.log_mel, self.seconds, self.pad, self.augment = log_mel, seconds, pad, augment

    def __call__(self, row: Row, *, rng: np.random.Generator | None = None) -> Batch:
        samples = load_audio(row[self.columns[0]], self.log_mel.sample_rate)
        length = round(self.seconds * self.log_mel.sample_rate)
        if self.augment and rng is not None and len(samples) > length:
            start = int(rng.integers(len(samples) - length + 1))
            samples = samples[start : start + length]
        cut = windows(samples, length, pad=self.pad)  # type: ignore[arg-type]
        return {"mel": self.log_mel(torch.from_numpy(cut)), "windows": torch.tensor([len(cut)])}

    def collate(self, items: Sequence[Batch]) -> Batch:
        return {key: torch.cat([item[key] for item in items]) for key in ("mel", "windows")}

    def settings(self) -> dict[str, Any]:
        return {
            "columns": list(self.columns),
            "log_mel": self.log_mel.settings(),
            "seconds": self.seconds,
            "pad": self.pad,
        }


@register("clap", modalities=("text",))
class ClapText(PretrainedTower):
    """Text through a CLAP text model: (batch, projection) before normalisation.

    >>> ClapText(weights="laion/clap-htsat-fused")     # a Hub id, or a folder
    >>> ClapText(tokenizer="roberta")                  # random weights

    weights, config, tokenizer: as for `clip`. Texts longer than the model reads are cut.
    Raises GeoBindError where weights or words are missing.
    """

    def __init__(
        self,
        modality: str = "text",
        *,
        weights: str | Path | None = None,
        config: ConfigValue | None = None,
        tokenizer: str | Path | None = None,
    ) -> None:
        super().__init__(modality)
        source = self.load_side("text", {"clap": "ClapTextModelWithProjection"}, weights, config)
        own = self.model.config
        self._width = own.projection_dim
        self.tokenizer = load_tokenizer(source, tokenizer, own.vocab_size)
        if self.tokenizer.pad_token_id != own.pad_token_id:  # positions are counted from it
            raise GeoBindError(
                f"the tokenizer pads with token {self.tokenizer.pad_token_id}, the model expects {own.pad_token_id}: "
                f"give the model's own tokenizer, or set pad_token_id in text_config"
            )
        self.processor = TextProcessor(
            self.tokenizer, max_length=own.max_position_embeddings - own.pad_token_id - 1
        )

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:  # type: ignore[override]
        return self.model(input_ids=input_ids, attention_mask=attention_mask).text_embeds

    def save_encoder(self, folder: Path) -> None:
        super().save_encoder(folder)
        save_tokenizer(self.tokenizer, folder)


@register("clap")
class ClapAudio(PretrainedTower):
    """Sounds of any length through a CLAP audio model (HTSAT): the mean of their windows' embeddings.

    >>> ClapAudio("audio", weights="laion/clap-htsat-fused")
    >>> ClapAudio("audio")                             # the architecture of the same, random weights

    The library cuts long sounds at random and marks a random short one as long, so that an embedding
    depends on its neighbours in the batch. Here a sound is cut into windows (10 s) that cover it, each
    of which the model sees as a short sound: the same file gives the same vector.

    weights, config: as for `clip`; nothing given is laion/clap-htsat-fused. augment: learn from one
    random window of a long sound instead of all. Raises GeoBindError where weights are missing.
    """

    def __init__(
        self,
        modality: str = "audio",
        *,
        weights: str | Path | None = None,
        config: ConfigValue | None = None,
        augment: bool = True,
    ) -> None:
        super().__init__(modality)
        if config is None and weights in (None, "none"):
            config = {"audio_config": {"enable_fusion": True}}  # the library's default is unfused
        source = self.load_side("audio", {"clap": "ClapAudioModelWithProjection"}, weights, config)
        own = self.model.config
        self._width = own.projection_dim
        found = preprocessor(source)
        log_mel = LogMel(
            sample_rate=found.get("sampling_rate", 48_000),
            n_fft=found.get("fft_window_size", 1024),
            hop=found.get("hop_length", 480),
            n_mels=found.get("feature_size", own.num_mel_bins),
            fmin=float(found.get("frequency_min", _LOWEST)),
            fmax=float(found.get("frequency_max", _HIGHEST)),
            mel_scale="htk" if own.enable_fusion else "slaney",
            norm=None if own.enable_fusion else "slaney",
        )
        pad = "zero" if found.get("padding") == "pad" else "repeat"
        self.processor = AudioProcessor(modality, log_mel, found.get("max_length_s", 10), pad, augment)
        if own.enable_fusion:
            # Only sounds marked as long pass these, and no window is.
            for name, parameter in self.model.named_parameters():
                if ".fusion_model." in name or ".mel_conv2d." in name:
                    parameter.requires_grad_(False)

    def encode(self, mel: Tensor, windows: Tensor) -> Tensor:  # type: ignore[override]
        # Batch normalisation in training wants the whole batch at once.
        parts = [mel] if self.training else mel.split(_WINDOWS_AT_ONCE)
        embeddings = torch.cat([self._embed(part) for part in parts])
        return torch.stack([own.mean(0) for own in embeddings.split(windows.tolist())])

    def _embed(self, mel: Tensor) -> Tensor:
        """(windows, projection) of (windows, 1, frames, mels)."""
        # The fused model takes four views of a sound; those of a short one are all the same.
        views = mel.expand(-1, 4, -1, -1) if self.model.config.enable_fusion else mel
        longer = torch.zeros(len(mel), 1, dtype=torch.bool, device=mel.device)
        return self.model(input_features=views, is_longer=longer).audio_embeds

    def save_encoder(self, folder: Path) -> None:
        super().save_encoder(folder)
        processor: Any = self.processor
        mel = processor.log_mel
        content = {
            "feature_extractor_type": "ClapFeatureExtractor",
            "processor_class": "ClapProcessor",
            "sampling_rate": mel.sample_rate,
            "fft_window_size": mel.n_fft,
            "hop_length": mel.hop,
            "feature_size": mel.n_mels,
            "frequency_min": mel.fmin,
            "frequency_max": mel.fmax,
            "max_length_s": processor.seconds,
            "padding": "pad" if processor.pad == "zero" else "repeatpad",
            "truncation": "fusion" if self.model.config.enable_fusion else "rand_trunc",
        }
        (folder / "preprocessor_config.json").write_text(
            json.dumps(content, indent=2) + "\n", encoding="utf-8"
        )
