"""Any vision model of transformers, for pictures or for rasters of any number of channels."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from geobind.errors import GeoBindError, shorten
from geobind.media.images import ImageTransform
from geobind.media.rasters import BandTransform
from geobind.towers.base import register
from geobind.towers.checkpoints import checkpoint, preprocessor
from geobind.towers.condition import ConditionedTower
from geobind.towers.pixels import Fit, PixelProcessor, as_augment, image_transform, save_image_transform
from geobind.towers.place_time import ConditionValue, as_condition
from geobind.towers.pretrained import ConfigValue, load_config, load_model

Pooling = Literal["auto", "pooler", "cls", "mean"]

_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "fit": "crop"}


@register("hf")
class HfVision(ConditionedTower):
    """ViT, DINOv2, DINOv3, ResNet, ConvNeXt, Swin and the like, their features pooled to one vector.

    >>> HfVision("satellite", weights="facebook/dinov2-base")
    >>> HfVision("satellite", config={"model_type": "resnet"}, channels=2, mean=[-11, -18], std=[5, 5])

    weights: a folder or a Hub id with safetensors; "none" takes `config` (a mapping with `model_type`,
    or the path of a config.json). pooling "pooler" is the model's own, "cls" its first token, "mean"
    over its patches or feature map; "auto" is the first of these that is there with its weights.
    channels: as in the configuration unless given; colour filters become the mean of the three, repeated
    and scaled by 3 / channels, so that channels which all show the same give what a grey picture gave.
    Other than three channels, or `bands`, read rasters, and need one `mean` and `std` for each.
    size, mean, std, fit, augment, condition, adapters, unfreeze: as for `clip`; the default is ImageNet's normalisation.
    """

    def __init__(
        self,
        modality: str,
        *,
        weights: str | Path | None = None,
        config: ConfigValue | None = None,
        pooling: Pooling = "auto",
        channels: int | None = None,
        bands: bool = False,
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
        source = checkpoint(weights)
        cls, own = _vision_model(load_config(source, config, default=None))
        self.model = _load(cls, own, source, pooling, channels)
        for name, parameter in self.model.named_parameters():
            if name.endswith("mask_token"):  # of pretraining; like a pooler that is not used
                parameter.requires_grad_(False)
        channels = self.model.config.num_channels
        found, sides = preprocessor(source), getattr(own, "image_size", None)
        usual = sides if isinstance(sides, int) else sides[0] if sides else 224
        if bands or channels != 3:
            if mean is None or std is None or not len(mean) == len(std) == channels:
                raise GeoBindError(
                    f"tower 'hf' of {channels} channels, mean = {shorten(mean)}, std = {shorten(std)}: "
                    f"give one number of each per channel, in the unit of the files"
                )
            if fit == "squash":
                raise GeoBindError("tower 'hf', fit 'squash': rasters are always cut to their centre square")
            side = size or image_transform(found, {"size": usual, **_IMAGENET}, {}, None).size
            self.transform: ImageTransform | BandTransform = BandTransform(
                side, tuple(map(float, mean)), tuple(map(float, std)), as_augment(modality, augment)
            )
        else:
            self.transform = image_transform(
                found,
                {"size": usual, **_IMAGENET},
                {"size": size, "mean": mean, "std": std, "fit": fit},
                as_augment(modality, augment),
            )
        told = as_condition(condition)
        self.processor = PixelProcessor(modality, self.transform, told)
        takes = inspect.signature(self.model.forward).parameters
        resized = self.transform.size != usual and "interpolate_pos_encoding" in takes
        self.extra: dict[str, Any] = {"interpolate_pos_encoding": True} if resized else {}
        self._settle(pooling, channels, self.transform.size)
        self.condition_on(told, source)
        self.learn_partly(adapters, unfreeze, source)
        self.forget("config")

    @torch.no_grad()
    def _settle(self, pooling: Pooling, channels: int, size: int) -> None:
        """Find width and kind of pooling by one forward pass of an empty picture."""
        self.model.eval()
        try:
            output = self.model(pixel_values=torch.zeros(1, channels, size, size), **self.extra)
        except Exception as error:  # any architecture's own complaint
            raise GeoBindError(
                f"tower 'hf', {self.model.config.model_type} takes no input of {channels}x{size}x{size}: "
                f"{shorten(str(error), 160)}; set `size` or another model"
            ) from None
        self.model.train()
        hidden, patch = output.last_hidden_state, getattr(self.model.config, "patch_size", None)
        # Tokens before the patches: the class token, register and distillation tokens.
        patches = (size // patch) ** 2 if isinstance(patch, int) else 0
        self.prefix = max(0, hidden.shape[1] - patches) if hidden.ndim == 3 and patches else 0
        has = {
            "pooler": getattr(output, "pooler_output", None) is not None,
            "cls": self.prefix > 0,
            "mean": True,
        }
        self.pooling = next(name for name in has if has[name]) if pooling == "auto" else pooling
        if not has[self.pooling]:
            raise GeoBindError(
                f"tower 'hf', pooling {pooling!r}: {self.model.config.model_type} has none "
                f"(or the checkpoint lacks its weights); give {' or '.join(name for name in has if has[name])}"
            )
        self._width = self._pool(output).shape[1]

    def _pool(self, output: Any) -> Tensor:
        if self.pooling == "pooler":
            return output.pooler_output.flatten(1)
        hidden = output.last_hidden_state
        if self.pooling == "cls":
            return hidden[:, 0]
        return hidden[:, self.prefix :].mean(1) if hidden.ndim == 3 else hidden.mean((2, 3))

    def features(self, pixels: Tensor) -> Tensor:
        return self._pool(self.model(pixel_values=pixels, **self.extra))

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "pooling": self.pooling}

    def save_encoder(self, folder: Path) -> None:
        super().save_encoder(folder)
        if isinstance(self.transform, ImageTransform):
            save_image_transform(self.transform, folder)


def _vision_model(config: Any) -> tuple[Any, Any]:
    """The class of transformers that a configuration belongs to, and that configuration."""
    from transformers import MODEL_MAPPING, ViTConfig

    if config.model_type == "vit_mae":
        # Its encoder is a ViT; its own class would hide a random three quarters of every picture.
        config = ViTConfig(
            **{k: v for k, v in config.to_dict().items() if k in ViTConfig().to_dict() and k != "model_type"}
        )
    if hasattr(config, "vision_config"):
        raise GeoBindError(
            f"tower 'hf' takes a vision model, this is the joint {config.model_type!r}: the tower 'clip' reads "
            f"CLIP and SigLIP; of others, give a checkpoint of the vision model alone"
        )
    cls = MODEL_MAPPING.get(type(config), None)
    if getattr(cls, "main_input_name", None) != "pixel_values":
        raise GeoBindError(
            f"tower 'hf' takes a vision model, {config.model_type!r} is none: give one such as vit or dinov2"
        )
    if not hasattr(config, "num_channels"):
        raise GeoBindError(
            f"tower 'hf', {config.model_type!r} does not say its num_channels: use another model"
        )
    return cls, config


def _load(cls: Any, config: Any, source: Path | None, pooling: Pooling, channels: int | None) -> Any:
    """The model with `channels` input channels and no pooler that it does not use or whose weights are missing."""
    if source is None and channels is not None:
        config.num_channels = channels
    model = load_model(cls, config, source, optional="pooler")
    # A weight that is not used gets no gradient, which distributed training refuses.
    pooler = getattr(model, "pooler", None)
    if pooling in ("cls", "mean") and pooler is not None and any(True for _ in pooler.parameters()):
        model.pooler = None
    if channels is None or channels == config.num_channels:
        return model
    wide_config = deepcopy(model.config)
    wide_config.num_channels = channels
    wide = load_model(cls, wide_config, None)
    if getattr(model, "pooler", None) is None and hasattr(wide, "pooler"):
        wide.pooler = None
    shapes = {key: value.shape for key, value in wide.state_dict().items()}
    wide.load_state_dict(
        {
            key: value if value.shape == shapes[key] else _spread(value, channels)
            for key, value in model.state_dict().items()
        }
    )
    return wide


def _spread(filters: Tensor, channels: int) -> Tensor:
    """(out, 3, height, width) filters for colours to `channels` that see the same."""
    given = filters.shape[1]
    return filters.mean(1, keepdim=True).repeat(1, channels, 1, 1) * (given / channels)
