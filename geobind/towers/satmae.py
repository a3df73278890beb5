"""GeoCLAP's satellite encoder: a ViT whose class logits, rectified, are the features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from geobind.towers.base import register
from geobind.towers.checkpoints import checkpoint, preprocessor
from geobind.towers.condition import ConditionedTower
from geobind.towers.pixels import PixelProcessor, as_augment, image_transform, save_image_transform
from geobind.towers.place_time import ConditionValue, as_condition
from geobind.towers.pretrained import ConfigValue, load_config, load_model


@register("satmae")
class SatMae(ConditionedTower):
    """A ViT with its classifier: (batch, classes) logits through ReLU, then the head to the space.

    >>> SatMae("satellite", weights="runs/geoclap/satellite")
    >>> SatMae("satellite")                        # ViT-B/16 of 1000 classes, random weights

    GeoCLAP (Khanal et al. 2023) fine-tuned SatMAE's ViT with the 1000-way head of its pretraining left
    on, and projects what that gives. A tower of width 1000 with a linear head is the same function.

    weights: a folder or Hub id with a ViTForImageClassification in safetensors; "none" takes `config`
    (a mapping, or the path of a config.json). classes: of a model without weights.
    augment, condition, adapters, unfreeze: as for `clip`.
    Raises GeoBindError where weights are missing.
    """

    def __init__(
        self,
        modality: str = "satellite",
        *,
        weights: str | Path | None = None,
        config: ConfigValue | None = None,
        classes: int = 1000,
        augment: bool | dict[str, Any] = True,
        condition: ConditionValue | None = None,
        adapters: dict[str, Any] | None = None,
        unfreeze: int | None = None,
    ) -> None:
        from transformers import ViTForImageClassification

        super().__init__(modality)
        source = checkpoint(weights)
        if source is None and config is None:
            config = {"layer_norm_eps": 1e-6}  # timm's
        own = load_config(source, config, default="vit")
        if source is None:
            own.num_labels = classes
        self.model = load_model(ViTForImageClassification, own, source)
        self._width = self.model.config.num_labels
        usual = {
            "size": own.image_size, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "fit": "crop",
        }  # fmt: skip
        self.transform = image_transform(preprocessor(source), usual, {}, as_augment(modality, augment))
        told = as_condition(condition)
        self.processor = PixelProcessor(modality, self.transform, told)
        self.condition_on(told, source)
        self.learn_partly(adapters, unfreeze, source)
        self.forget("config", "classes")

    def features(self, pixels: Tensor) -> Tensor:
        return self.model(pixel_values=pixels).logits.relu()

    def save_encoder(self, folder: Path) -> None:
        super().save_encoder(folder)
        save_image_transform(self.transform, folder, "ViTImageProcessor")
