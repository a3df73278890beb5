"""Pixels for the vision models of transformers: the processor, and its settings in the library's own file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from geobind.errors import GeoBindError
from geobind.media.images import Augment, ImageTransform
from geobind.media.rasters import BandTransform
from geobind.towers.base import Batch, Processor, Row
from geobind.towers.place_time import COLUMNS, Condition, PlaceTime

Fit = Literal["squash", "crop"]
_BICUBIC = 3


class PixelProcessor(Processor):
    """A picture or a raster to {"pixels": (channels, size, size) float32}.

    With `condition` also what `geobind.towers.condition.PlaceTime` makes of the row.
    """

    def __init__(
        self, modality: str, transform: ImageTransform | BandTransform, condition: Condition | None = None
    ) -> None:
        self.columns = (modality,) if condition is None else (modality, *COLUMNS)
        self.transform = transform
        self.place_time = None if condition is None else PlaceTime(condition)

    def __call__(self, row: Row, *, rng: np.random.Generator | None = None) -> Batch:
        return self.finish(self.light(row, rng=rng))

    def light(self, row: Row, *, rng: np.random.Generator | None = None) -> Batch:
        value, transform = row[self.columns[0]], self.transform
        pixels = (
            transform.bytes(value, rng) if isinstance(transform, ImageTransform) else transform(value, rng)
        )
        item = {"pixels": pixels}
        return item if self.place_time is None else item | self.place_time(row, rng)

    def finish(self, batch: Batch) -> Batch:
        if not isinstance(self.transform, ImageTransform):
            return batch
        return batch | {"pixels": self.transform.normalise(batch["pixels"])}

    def settings(self) -> dict[str, Any]:
        fixed = {key: value for key, value in self.transform.settings().items() if key != "augment"}
        if self.place_time is not None:
            fixed["condition"] = self.place_time.encoding
        return {"columns": list(self.columns), "transform": type(self.transform).__name__, **fixed}


def as_augment(modality: str, augment: bool | Mapping[str, Any]) -> Augment | None:
    """A tower's option `augment`: none, the usual one (satellite images have no up), or its fields."""
    if augment is False:
        return None
    fields = {"overhead": modality == "satellite", **({} if augment is True else augment)}
    try:
        return Augment(**fields)
    except TypeError:
        raise GeoBindError(
            f"augment = {augment}: its keys are {', '.join(Augment.__dataclass_fields__)}"
        ) from None


def image_transform(
    found: Mapping[str, Any], default: Mapping[str, Any], given: Mapping[str, Any], augment: Augment | None
) -> ImageTransform:
    """The transform that options ask for, else a checkpoint's `preprocessor_config.json`, else the family's.

    `found` is that file. Of its resizing, geobind keeps the side and whether the picture is squashed or
    its centre cut; a margin (256 resized, 224 cut) stays visible, and interpolation is always bicubic.
    """
    values = {**default, **_read(found), **{key: value for key, value in given.items() if value is not None}}
    return ImageTransform(
        size=values["size"],
        mean=_floats(values["mean"]),
        std=_floats(values["std"]),
        fit=values["fit"],
        augment=augment,
    )


def _floats(numbers: Sequence[float]) -> Any:
    """As a tuple; that there are three is for the transform to check."""
    return tuple(map(float, numbers))


def _read(found: Mapping[str, Any]) -> dict[str, Any]:
    """Size, mean, std and fit of a `preprocessor_config.json`, as far as it gives them."""
    values: dict[str, Any] = {}
    if found.get("do_normalize", True):
        values |= {
            ours: found[theirs]
            for ours, theirs in (("mean", "image_mean"), ("std", "image_std"))
            if found.get(theirs)
        }
    else:
        values |= {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    size, cropped = found.get("size"), bool(found.get("do_center_crop", False))
    sides: Sequence[int] = ()
    if isinstance(size, int):
        values["fit"], sides = ("crop" if cropped else "squash"), (size,)
    elif isinstance(size, Mapping) and "shortest_edge" in size:
        values["fit"], sides = "crop", (size["shortest_edge"],)
    elif isinstance(size, Mapping) and "height" in size:
        values["fit"], sides = "squash", (size["height"], size["width"])
    if cropped and found.get("crop_size"):
        crop = found["crop_size"]
        sides = (crop,) if isinstance(crop, int) else (crop["height"], crop["width"])
    if len(set(sides)) > 1:
        raise GeoBindError(
            f"preprocessor_config.json asks for {sides[0]}x{sides[1]} pixels, towers take squares: set `size`"
        )
    return {**values, "size": sides[0]} if sides else values


def save_image_transform(
    transform: ImageTransform, folder: Path, processor: str = "CLIPImageProcessor"
) -> None:
    """Write `preprocessor_config.json`, with which the library's processor does the same."""
    square = {"height": transform.size, "width": transform.size}
    crop = transform.fit == "crop"
    content = {
        "image_processor_type": processor,
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": transform.size} if crop else square,
        "resample": _BICUBIC,
        "do_center_crop": crop,
        **({"crop_size": square} if crop else {}),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(transform.mean),
        "image_std": list(transform.std),
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
