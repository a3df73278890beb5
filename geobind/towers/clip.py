"""CLIP and SigLIP: satellite images, ground-level images and text in one space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from geobind.errors import GeoBindError
from geobind.towers.base import register
from geobind.towers.checkpoints import preprocessor
from geobind.towers.condition import ConditionedTower
from geobind.towers.pixels import Fit, PixelProcessor, as_augment, image_transform, save_image_transform
from geobind.towers.place_time import ConditionValue, as_condition
from geobind.towers.pretrained import ConfigValue, PretrainedTower
from geobind.towers.tokens import TextProcessor, load_tokenizer, save_tokenizer


class _Pixels(NamedTuple):
    """How a family prepares images where no file says it, and the name of its image processor."""

    processor: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fit: Fit


_TEXT = {"clip": "CLIPTextModelWithProjection", "siglip": "SiglipTextModel", "siglip2": "Siglip2TextModel"}
_VISION = {
    "clip": "CLIPVisionModelWithProjection",
    "siglip": "SiglipVisionModel",
    "siglip2": "Siglip2VisionModel",
}
_PIXELS = {
    "clip": _Pixels(
        "CLIPImageProcessor",
        (0.48145466, 0.4578275, 0.40821073),
        (0.26862954, 0.26130258, 0.27577711),
        "crop",
    ),
    "siglip": _Pixels("SiglipImageProcessor", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "squash"),
    "siglip2": _Pixels("Siglip2ImageProcessor", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "squash"),
}


@register("clip", modalities=("text",))
class ClipText(PretrainedTower):
    """Text through a CLIP or SigLIP text model: (batch, projection) before normalisation.

    >>> ClipText(weights="openai/clip-vit-base-patch32")           # a Hub id, or a folder
    >>> ClipText(config={"projection_dim": 256}, tokenizer="tok")  # random weights

    weights: a folder (joint, or this side alone) or a Hub id with safetensors; "none" takes `config`.
    config: mapping or path of a config.json; nothing given is CLIP ViT-B/32. tokenizer: a folder with one.
    adapters, unfreeze: learn a part of the model only, see `geobind.towers.adapters`.
    Texts longer than the model reads are cut. Raises GeoBindError where weights or words are missing.
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
        source = self.load_side("text", _TEXT, weights, config)
        own = self.model.config
        self.tokenizer = load_tokenizer(source, tokenizer, own.vocab_size)
        self._width = own.projection_dim if self.family == "clip" else own.projection_size
        self.processor = TextProcessor(
            self.tokenizer,
            max_length=own.max_position_embeddings,
            fixed_length=self.family != "clip",  # SigLIP was trained so, and without a mask
        )
        self.learn_partly(adapters, unfreeze, source)
        if self.family == "clip":
            ids = self.processor({"text": "a photo"})["input_ids"]
            # CLIP reads its answer at the end token; without one it would read the first and ignore the text.
            end = ids.max() if own.eos_token_id == 2 else own.eos_token_id
            if (ids == end).int().argmax() != len(ids) - 1:
                raise GeoBindError(
                    f"the tokenizer ends a text with token {int(ids[-1])}, the model expects {int(end)}: "
                    f"give the model's own tokenizer, or set eos_token_id in text_config"
                )

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:  # type: ignore[override]
        if self.family == "clip":
            return self.model(input_ids=input_ids, attention_mask=attention_mask).text_embeds
        return self.model(input_ids=input_ids).pooler_output

    def save_encoder(self, folder: Path) -> None:
        super().save_encoder(folder)
        save_tokenizer(self.tokenizer, folder)


@register("clip")
class ClipVision(ConditionedTower):
    """Satellite or ground-level images through a CLIP or SigLIP vision model.

    >>> ClipVision("satellite", weights="openai/clip-vit-base-patch32", fit="squash")
    >>> ClipVision("image", config={"vision_config": {"patch_size": 16}})   # random weights

    weights: a folder (joint, or this side alone) or a Hub id with safetensors; "none" takes `config`.
    config: mapping or path of a config.json; nothing given is CLIP ViT-B/32.
    size (pixels), mean, std (of 0..1), fit ("squash" or "crop"): instead of what the checkpoint's
    preprocessor_config.json says. Another `size` interpolates the position embeddings.
    augment: when the tower learns: True, False, or fields of `geobind.media.images.Augment`.
    condition: add what place and time say: "sphere", "sat2cap" or fields of `Condition`.
    adapters, unfreeze: learn a part of the model only: fields of `AdapterOptions`, or so many last blocks.
    Raises GeoBindError where weights are missing.
    """

    def __init__(
        self,
        modality: str,
        *,
        weights: str | Path | None = None,
        config: ConfigValue | None = None,
        size: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        fit: Fit | None = None,
        augment: bool | dict[str, Any] = True,
        condition: ConditionValue | None = None,
        adapters: dict[str, Any] | None = None,
        unfreeze: int | None = None,
    ) -> None:
        super().__init__(modality)
        source = self.load_side("vision", _VISION, weights, config)
        own, family = self.model.config, _PIXELS[self.family]
        if not getattr(own, "vision_use_head", True):
            raise GeoBindError(
                "this SigLIP vision model has no pooling head (vision_use_head: false): use the tower 'hf'"
            )
        self._width = own.projection_dim if self.family == "clip" else own.hidden_size
        trained = own.image_size if self.family != "siglip2" else round(own.num_patches**0.5) * own.patch_size
        transform = image_transform(
            preprocessor(source),
            {"size": trained, "mean": family.mean, "std": family.std, "fit": family.fit},
            {"size": size, "mean": mean, "std": std, "fit": fit},
            as_augment(modality, augment),
        )
        self.interpolate = transform.size != trained
        self.transform = transform
        told = as_condition(condition)
        self.processor = PixelProcessor(modality, transform, told)
        self.condition_on(told, source)
        self.learn_partly(adapters, unfreeze, source)

    def features(self, pixels: Tensor) -> Tensor:
        if self.family == "siglip2":
            return self.model(**_patches(pixels, self.model.config.patch_size)).pooler_output
        output = self.model(pixel_values=pixels, interpolate_pos_encoding=self.interpolate)
        return output.image_embeds if self.family == "clip" else output.pooler_output

    def save_encoder(self, folder: Path) -> None:
        super().save_encoder(folder)
        save_image_transform(self.transform, folder, _PIXELS[self.family].processor)


def _patches(pixels: Tensor, side: int) -> dict[str, Tensor]:
    """(batch, channels, size, size) as SigLIP 2 takes it: rows of patches, each (side, side, channels)."""
    batch, channels, size, _ = pixels.shape
    grid = size // side
    cut = pixels[:, :, : grid * side, : grid * side].reshape(batch, channels, grid, side, grid, side)
    return {
        "pixel_values": cut.permute(0, 2, 4, 3, 5, 1).reshape(batch, grid * grid, side * side * channels),
        "pixel_attention_mask": pixels.new_ones(batch, grid * grid, dtype=torch.int64),
        "spatial_shapes": torch.tensor([[grid, grid]], device=pixels.device).expand(batch, 2),
    }
