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
from geobind.media.audio import LogMel, fusion_views, load_audio, windows
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
    window of the sound at a random place. With `fusion` a sound is one item of four views, and
    "longer" (1,) bool says whether they differ (see `fusion_views`).
    """

    def __init__(
        self, modality: str, log_mel: LogMel, seconds: float, pad: str, augment: bool, *, fusion: bool = False
    ) -> None:
        self.columns = (modality,)
        self.log_mel, self.seconds, self.pad, self.augment = log_mel, seconds, pad, augment
        self.fusion = fusion

    def __call__(self, row: Row, *, rng: np.random.Generator | None = None) -> Batch:
        return self.finish(self.light(row, rng=rng))

    def light(self, row: Row, *, rng: np.random.Generator | None = None) -> Batch:
        samples = load_audio(row[self.columns[0]], self.log_mel.sample_rate)
        length = round(self.seconds * self.log_mel.sample_rate)
        if self.fusion:  # views of a spectrogram as long as the sound, which is far more than they are
            return self._fused(samples, length, rng if self.augment else None)
        if self.augment and rng is not None and len(samples) > length:
            start = int(rng.integers(len(samples) - length + 1))
            samples = samples[start : start + length]
        cut = windows(samples, length, pad=self.pad)  # type: ignore[arg-type]
        return {"samples": torch.from_numpy(cut), "windows": torch.tensor([len(cut)])}

    def finish(self, batch: Batch) -> Batch:
        if "samples" not in batch:
            return batch
        return {"mel": self.log_mel(batch["samples"]), "windows": batch["windows"]}

    def _fused(self, samples: np.ndarray, length: int, rng: np.random.Generator | None) -> Batch:
        if len(samples) <= length:
            samples = windows(samples, length, pad=self.pad)[0]  # type: ignore[arg-type]
        mel = self.log_mel(torch.from_numpy(samples)[None])[0, 0]
        frames = 1 + length // self.log_mel.hop
        longer = len(mel) > frames
        views = fusion_views(mel, frames, rng) if longer else mel.expand(4, -1, -1)
        return {"mel": views[None], "windows": torch.tensor([1]), "longer": torch.tensor([longer])}

    def collate(self, items: Sequence[Batch]) -> Batch:
        return {key: torch.cat([item[key] for item in items]) for key in items[0]}

    def settings(self) -> dict[str, Any]:
        return {
            "columns": list(self.columns),
            "log_mel": self.log_mel.settings(),
            "seconds": self.seconds,
            "pad": self.pad,
            **({"fusion": True} if self.fusion else {}),
        }


@register("clap", modalities=("text",))
class ClapText(PretrainedTower):
    """Text through a CLAP text model: (batch, projection) before normalisation.

    >>> ClapText(weights="laion/clap-htsat-fused")     # a Hub id, or a folder
    >>> ClapText(tokenizer="roberta")                  # random weights

    weights, config, tokenizer, adapters, unfreeze: as for `clip`. Texts longer than the model reads are cut.
    Raises GeoBindError where weights or words are missing.
    """

    def __init__(
        self,
        modality: str = "text",
        *,
        weights: str | Path | None = None,
        config: ConfigValue | None = None,
        tokenizer: str | Path | None = None,
        adapters: dict[str, Any] | None = None,
        unfreeze: int | None = None,
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
        self.learn_partly(adapters, unfreeze, source)

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

    weights, config, adapters, unfreeze: as for `clip`; nothing given is laion/clap-htsat-fused. augment: learn from one
    random window of a long sound instead of all. fusion: give a long sound to the model at once, whole
    but shrunk, with fixed pieces of its front, middle and back (the published way, without its chance);
    `augment` then draws the pieces. Raises GeoBindError where weights are missing, and for `fusion`
    with a model that was not trained so.
    """

    def __init__(
        self,
        modality: str = "audio",
        *,
        weights: str | Path | None = None,
        config: ConfigValue | None = None,
        augment: bool = True,
        fusion: bool = False,
        adapters: dict[str, Any] | None = None,
        unfreeze: int | None = None,
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
        self.processor = AudioProcessor(
            modality, log_mel, found.get("max_length_s", 10), pad, augment, fusion=fusion
        )
        if fusion and not own.enable_fusion:
            raise GeoBindError(
                "tower 'clap', option 'fusion': this model was trained without (enable_fusion: false); leave it out, "
                "or give weights such as laion/clap-htsat-fused"
            )
        self.fusion = fusion
        for parameter in self._fusing():
            parameter.requires_grad_(fusion)
        self.learn_partly(adapters, unfreeze, source)

    def _fusing(self) -> list[Any]:
        """Parameters that only sounds marked as long pass, and no window is."""
        names = (".fusion_model.", ".mel_conv2d.")
        return [p for key, p in self.model.named_parameters() if any(name in key for name in names)]

    def train(self, mode: bool = True) -> ClapAudio:
        super().train(mode)
        for name, module in self.model.named_modules():
            if name.endswith(".fusion_model"):
                # Its batch normalisation would see the long sounds of a batch alone, and refuse one alone.
                module.eval()
        return self

    def encode(self, mel: Tensor, windows: Tensor, longer: Tensor | None = None) -> Tensor:  # type: ignore[override]
        if longer is None:
            longer = torch.zeros(len(mel), dtype=torch.bool, device=mel.device)
        # Batch normalisation in training wants the whole batch at once.
        size = len(mel) if self.training else _WINDOWS_AT_ONCE
        parts = zip(mel.split(size), longer.split(size), strict=True)
        embeddings = torch.cat([self.embed_windows(*part) for part in parts])
        if self.training and self.fusion and not longer.any():
            # A gradient of zero: distributed training refuses parameters without one.
            embeddings = embeddings + 0 * torch.stack([p.sum() for p in self._fusing()]).sum()
        return torch.stack([own.mean(0) for own in embeddings.split(windows.tolist())])

    def embed_windows(self, mel: Tensor, longer: Tensor | None = None) -> Tensor:
        """(windows, projection), whose means over a sound are its features: of (windows, 1 or 4, frames, mels)
        and of (windows,) bool, which of them have four different views."""
        if longer is None:
            longer = torch.zeros(len(mel), dtype=torch.bool, device=mel.device)
        # The fused model takes four views of a sound; those of a short one are all the same.
        views = mel.expand(-1, 4, -1, -1) if self.model.config.enable_fusion else mel
        return self.model(input_features=views, is_longer=longer[:, None]).audio_embeds

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
