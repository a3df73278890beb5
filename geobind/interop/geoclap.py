"""GeoCLAP: SatMAE for satellite images, CLAP for sound and text, three links between them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from geobind.errors import GeoBindError
from geobind.interop.folders import tokenizer_folder, write_model
from geobind.interop.keys import Rule, convert, layers, renamed, timm_blocks, under
from geobind.interop.options import ImportOptions
from geobind.interop.reading import State
from geobind.space import GeoBind
from geobind.towers.base import Tower, build_tower
from geobind.towers.pretrained import load_config

DIM = 512
USUAL_TOKENIZER = "FacebookAI/roberta-base"
_LINKS = {"ia": ("satellite", "audio"), "it": ("satellite", "text"), "at": ("audio", "text")}


def geoclap(state: State, file: Path, folder: Path, options: ImportOptions) -> GeoBind:
    """A space of satellite, audio and text from a GeoCLAP checkpoint.

    The satellite tower keeps the published function: class logits of the ViT, ReLU, Linear(1000, 512).
    A run on frozen embeddings saved no CLAP; `options.target` then names the one it was trained against.
    Raises GeoBindError for keys left over or missing, and for the variant with a location input.
    """
    from transformers import (
        ClapAudioConfig,
        ClapAudioModelWithProjection,
        ClapTextConfig,
        ClapTextModelWithProjection,
    )

    if any(key.startswith("sat_encoder.metamodel.") for key in state):
        raise GeoBindError(
            f"{file} is a GeoCLAP that also reads the location (sat_encoder.metamodel), which is not covered: "
            f"give the checkpoint trained without it"
        )
    whole = any(key.startswith("audio_encoder.") for key in state)
    if not whole and options.target is None:
        raise GeoBindError(
            f"{file} holds no audio and no text tower (trained on frozen embeddings): name the model they "
            f"came from (--target laion/clap-htsat-fused)"
        )
    vit = load_config(None, {"layer_norm_eps": 1e-6}, "vit")  # timm's epsilon
    vit.num_labels = 1000
    audio, text = ClapAudioConfig(enable_fusion=True), ClapTextConfig()
    parts = {
        "satellite": _satellite(layers(state, "sat_encoder.model.blocks.")),
        "head": renamed([("sat_encoder.fc", "0")]),
        "audio": under("audio_encoder.model.", ClapAudioModelWithProjection, audio) if whole else [],
        "text": under("text_encoder.model.", ClapTextModelWithProjection, text) if whole else [],
        "scales": [Rule(f"temp_layer.logit_scale_{link}", (link,)) for link in _LINKS],
    }
    tokens = tokenizer_folder(options.tokenizer, USUAL_TOKENIZER) if whole else None
    weights = convert(state, parts, name=str(file))
    satellite = build_tower(
        "satmae", modality="satellite", dim=DIM, head="linear",
        weights=write_model(folder / "satellite", vit, weights["satellite"]),
    )  # fmt: skip
    assert satellite.head is not None
    satellite.head.load_state_dict(weights["head"])
    sound: dict[str, Any] = {"weights": options.target}
    words: dict[str, Any] = {"weights": options.target}
    if whole:
        sound["weights"] = write_model(folder / "audio", audio, weights["audio"])
        words = {"weights": write_model(folder / "text", text, weights["text"]), "tokenizer": tokens}
    towers: list[Tower] = [
        satellite,
        build_tower("clap", modality="audio", dim=DIM, fusion=True, **sound),
        build_tower("clap", modality="text", dim=DIM, **words),
    ]
    space = GeoBind(DIM, towers)
    temperatures = {link: math.exp(-float(weights["scales"][name])) for name, link in _LINKS.items()}
    space.record_binding(["satellite", "audio", "text"] if whole else ["satellite"], temperatures)
    return space


def _satellite(depth: int) -> list[Rule]:
    """timm's ViT with a classifier."""
    return [
        Rule("sat_encoder.model.cls_token", ("vit.embeddings.cls_token",)),
        Rule("sat_encoder.model.pos_embed", ("vit.embeddings.position_embeddings",)),
        *renamed(
            [
                ("sat_encoder.model.patch_embed.proj", "vit.embeddings.patch_embeddings.projection"),
                ("sat_encoder.model.norm", "vit.layernorm"),
                ("sat_encoder.model.head", "classifier"),
            ]
        ),
        *timm_blocks("sat_encoder.model.", depth),
    ]
