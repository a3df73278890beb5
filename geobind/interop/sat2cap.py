"""Sat2Cap: CLIP for satellite images, bound to ground-level photos, with place and time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from geobind.errors import GeoBindError
from geobind.interop.folders import write_model
from geobind.interop.keys import Rule, convert, renamed, under
from geobind.interop.open_clip import CLIP_MEAN, CLIP_STD, vision_config
from geobind.interop.options import ImportOptions
from geobind.interop.reading import State
from geobind.media.images import ImageTransform
from geobind.space import GeoBind
from geobind.towers.base import Tower, build_tower
from geobind.towers.clip import ClipVision

_MEAN, _STD = (0.3670, 0.3827, 0.3338), (0.2209, 0.1975, 0.1988)  # of its satellite images
_PREFIX = {"satellite": "imo_encoder.vision_model.", "image": "img_encoder.vision_model."}


def sat2cap(state: State, file: Path, folder: Path, options: ImportOptions) -> GeoBind:
    """A space of satellite and image from a Sat2Cap checkpoint, and of text with `options.target`.

    The satellite tower keeps its projection, without which its features are not in CLIP's space, and
    its encoder of place and time (`condition: sat2cap`). The image tower is the frozen CLIP; the text
    tower of that CLIP is not in the file, and comes from `target` where the two are the same.
    Raises GeoBindError for keys left over or missing, and for a target that is another CLIP.
    """
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    configs: dict[str, Any] = {
        modality: CLIPVisionConfig(**vision_config(_part(state, prefix), "quick_gelu", 64))
        for modality, prefix in _PREFIX.items()
    }
    conditioned = any(key.startswith("geo_encoder.") for key in state)
    parts = {m: under(prefix, CLIPVisionModelWithProjection, configs[m]) for m, prefix in _PREFIX.items()}
    parts["geo"] = renamed([("geo_encoder.fc1", "fc1"), ("geo_encoder.fc2", "fc2")]) if conditioned else []
    parts["scale"] = [Rule("temp_layer.logit_scale", ("logit_scale",))]
    weights = convert(state, parts, name=str(file), ignored=("queue", "queue_ptr"))

    dim = configs["satellite"].projection_dim
    towers: list[Tower] = []
    for modality, mean, std in (("satellite", _MEAN, _STD), ("image", CLIP_MEAN, CLIP_STD)):
        transform = ImageTransform(configs[modality].image_size, mean=mean, std=std, fit="squash")
        source = write_model(folder / modality, configs[modality], weights[modality], transform)
        told = {"condition": "sat2cap"} if conditioned and modality == "satellite" else {}
        towers.append(build_tower("clip", modality=modality, dim=dim, weights=source, **told))
    satellite, image = towers
    if conditioned:
        assert isinstance(satellite, ClipVision)
        assert satellite.geo_encoder is not None
        # What the package adds to it, for a picture of which nothing is known, stays zero: published dropout.
        satellite.geo_encoder.load_state_dict({**satellite.geo_encoder.state_dict(), **weights["geo"]})
    if options.target is not None:
        towers[1:] = _target(options.target, image, dim, file)
    space = GeoBind(dim, towers)
    temperature = math.exp(-float(weights["scale"]["logit_scale"]))
    space.record_binding(["satellite"], {("satellite", "image"): temperature})
    return space


def _part(state: State, prefix: str) -> State:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _target(target: str | Path, image: Tower, dim: int, file: Path) -> list[Tower]:
    """Image and text towers of the CLIP at `target`, which must be the one that the checkpoint holds."""
    own = build_tower("clip", modality="image", dim=dim, weights=target, fit="squash")
    ours, theirs = image.encoder_state(), own.encoder_state()
    if ours.keys() != theirs.keys() or not all(
        ours[key].shape == theirs[key].shape and torch.allclose(ours[key], theirs[key], atol=1e-5)
        for key in ours
    ):
        raise GeoBindError(
            f"{target} is not the CLIP that {file} was trained against: their vision weights differ; "
            f"give the one its hyper-parameters name (openai/clip-vit-base-patch32 as published)"
        )
    return [own, build_tower("clip", modality="text", dim=dim, weights=target)]
