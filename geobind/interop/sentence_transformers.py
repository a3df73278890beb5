"""A space's CLIP as a sentence-transformers model: `geobind export --to sentence-transformers`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from geobind.errors import GeoBindError
from geobind.interop.folders import check_new, write_new
from geobind.space import GeoBind
from geobind.towers.base import Tower
from geobind.towers.clip import ClipText, ClipVision
from geobind.towers.pixels import save_image_transform
from geobind.towers.pretrained import quiet
from geobind.towers.tokens import save_tokenizer

_MODULES = (("0", "0_CLIPModel", "CLIPModel"), ("1", "1_Normalize", "Normalize"))


def export_sentence_transformers(space: GeoBind, out: str | Path, *, picture: str | None = None) -> None:
    """A folder that `SentenceTransformer(out)` opens without this package: pictures and text, unit length.

    >>> export_sentence_transformers(space, "runs/st", picture="satellite")
    >>> SentenceTransformer("runs/st").encode(["a harbour", Image.open("tile.jpg")])   # there

    Its module for pictures is CLIP, so `picture` (the satellite tower, else the image tower) and text
    must be CLIP towers without head and without conditioning. Raises GeoBindError, with the reason, for
    others; `export_onnx` takes them. Nothing is left half-written.
    """
    out = Path(out)
    check_new(out)
    if picture is None:
        picture = next((m for m in ("satellite", "image") if m in space.modalities), "satellite")
    vision, text = (_clip(space.tower(modality)) for modality in (picture, "text"))
    scale = math.log(1 / space.temperatures.get(_pair(picture), 0.07))
    write_new(out, lambda folder: _write(folder, vision, text, scale))


def _pair(picture: str) -> tuple[str, str]:
    one, two = sorted((picture, "text"))
    return one, two


def _clip(tower: Tower) -> Any:
    reason = None
    if not isinstance(tower, ClipText | ClipVision) or tower.family != "clip":
        reason = f"is no CLIP ({tower.kind or type(tower).__name__})"
    elif tower.head is not None:
        reason = "has a head"
    elif getattr(tower, "geo_encoder", None) is not None:
        reason = "is conditioned on place and time"
    elif getattr(tower, "interpolate", False):
        reason = "sees another size than its model was trained on"
    if reason:
        raise GeoBindError(
            f"the {tower.modality} tower {reason}, for which sentence-transformers has no module: "
            f"export it --to onnx instead"
        )
    return tower


def _write(folder: Path, vision: Any, text: Any, scale: float) -> None:
    from transformers import CLIPConfig

    model = folder / _MODULES[0][1]
    model.mkdir(parents=True)
    (folder / _MODULES[1][1]).mkdir()
    config = CLIPConfig(
        vision_config=vision.model.config.to_dict(),
        text_config=text.model.config.to_dict(),
        projection_dim=vision.model.config.projection_dim,
        architectures=["CLIPModel"],
    )
    state = {
        key: value.detach().cpu().contiguous().clone()
        for tower in (vision, text)
        for key, value in tower.model.state_dict().items()
    }
    with quiet():
        config.save_pretrained(model)
    save_file(
        state | {"logit_scale": torch.tensor(scale)}, model / "model.safetensors", metadata={"format": "pt"}
    )
    save_image_transform(vision.transform, model)
    save_tokenizer(text.tokenizer, model)
    path = model / "tokenizer_config.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokenizer |= {"model_max_length": text.processor.max_length, "processor_class": "CLIPProcessor"}
    _write_json(path, tokenizer)
    _write_json(model / "sentence_bert_config.json", {})
    _write_json(
        folder / "modules.json",
        [
            {"idx": number, "name": name, "path": path, "type": f"sentence_transformers.models.{cls}"}
            for number, (name, path, cls) in enumerate(_MODULES)
        ],
    )
    _write_json(folder / "config_sentence_transformers.json", {"similarity_fn_name": "cosine"})


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
