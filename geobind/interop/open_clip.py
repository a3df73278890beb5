"""open_clip: RemoteCLIP, GeoRSCLIP, SkyCLIP, BioCLIP and other ViT CLIPs, without open_clip."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geobind.errors import GeoBindError
from geobind.interop.folders import tokenizer_folder, write_model
from geobind.interop.keys import Rule, convert, layers, renamed
from geobind.interop.options import ImportOptions
from geobind.interop.reading import State
from geobind.media.images import ImageTransform
from geobind.space import GeoBind
from geobind.storage import read_json
from geobind.towers.base import build_tower

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
USUAL_TOKENIZER = "openai/clip-vit-base-patch32"

# What may stand in open_clip_config.json and is honoured here; anything else changes the function.
_MODEL = {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg"}
_VISION = {"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio", "patch_dropout"}
_TEXT = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}
# Buffers of OpenAI's own files and of older versions; no weights.
_IGNORED = ("attn_mask", "input_resolution", "context_length", "vocab_size")


def open_clip(state: State, file: Path, folder: Path, options: ImportOptions) -> GeoBind:
    """A space of two towers, `options.modality` and text, from an open_clip checkpoint with a ViT.

    The architecture is read from shapes and from `open_clip_config.json` beside the file where there
    is one. Weights do not tell GELU from QuickGELU, so without that file `options.activation` must.
    Raises GeoBindError for keys left over or missing, and for options of the file not covered.
    """
    cfg = read_json(file.with_name("open_clip_config.json"))
    model = _checked(cfg.get("model_cfg", {}), _MODEL, "model_cfg")
    vision = _checked(model.get("vision_cfg", {}), _VISION, "vision_cfg")
    text = _checked(model.get("text_cfg", {}), _TEXT, "text_cfg")
    if not cfg and options.activation is None:
        raise GeoBindError(
            f"{file} does not tell GELU from QuickGELU: put its open_clip_config.json beside it, or give "
            f"--activation gelu (models named as ViT-B-32) or quick_gelu (ViT-B-32-quickgelu, OpenAI's)"
        )
    activation = options.activation or ("quick_gelu" if model.get("quick_gelu") else "gelu")
    tokens = tokenizer_folder(options.tokenizer, USUAL_TOKENIZER)
    weights = convert(state, {"clip": _rules(state)}, name=str(file), ignored=_IGNORED)["clip"]
    config = _config(weights, activation, vision.get("head_width", 64), text.get("heads"))
    pixels = cfg.get("preprocess_cfg", {})
    transform = ImageTransform(
        config.vision_config.image_size,
        mean=tuple(pixels.get("mean", CLIP_MEAN)),
        std=tuple(pixels.get("std", CLIP_STD)),
        fit="squash" if pixels.get("resize_mode") == "squash" else "crop",
    )
    source, dim = write_model(folder / "clip", config, weights, transform), config.projection_dim
    space = GeoBind(
        dim,
        [
            build_tower("clip", modality=options.modality, dim=dim, weights=source),
            build_tower("clip", modality="text", dim=dim, weights=source, tokenizer=tokens),
        ],
    )
    one, two = sorted((options.modality, "text"))
    space.temperatures[one, two] = math.exp(-float(weights["logit_scale"]))
    return space


def _checked(values: Mapping[str, Any], known: set[str], where: str) -> Mapping[str, Any]:
    odd = sorted(key for key in values.keys() - known if values[key] not in (None, False))
    if odd:
        raise GeoBindError(
            f"open_clip_config.json, {where}: {', '.join(odd)} asks for an architecture that is not covered: "
            f"plain ViT CLIPs are"
        )
    return values


def _rules(state: State) -> list[Rule]:
    rules = [
        Rule("logit_scale", ("logit_scale",)),
        Rule("visual.class_embedding", ("vision_model.embeddings.class_embedding",)),
        Rule("visual.conv1.weight", ("vision_model.embeddings.patch_embedding.weight",)),
        Rule("visual.positional_embedding", ("vision_model.embeddings.position_embedding.weight",)),
        Rule("visual.proj", ("visual_projection.weight",), transposed=True),
        Rule("token_embedding.weight", ("text_model.embeddings.token_embedding.weight",)),
        Rule("positional_embedding", ("text_model.embeddings.position_embedding.weight",)),
        Rule("text_projection", ("text_projection.weight",), transposed=True),
        *renamed(
            [
                ("visual.ln_pre", "vision_model.pre_layrnorm"),
                ("visual.ln_post", "vision_model.post_layernorm"),
                ("ln_final", "text_model.final_layer_norm"),
            ]
        ),
    ]
    for theirs, ours in (("visual.transformer", "vision_model"), ("transformer", "text_model")):
        for n in range(max(1, layers(state, f"{theirs}.resblocks."))):
            a, b = f"{theirs}.resblocks.{n}", f"{ours}.encoder.layers.{n}"
            for kind in ("weight", "bias"):
                qkv = tuple(f"{b}.self_attn.{part}_proj.{kind}" for part in "qkv")
                rules.append(Rule(f"{a}.attn.in_proj_{kind}", qkv))
            rules += renamed(
                [
                    (f"{a}.ln_1", f"{b}.layer_norm1"),
                    (f"{a}.attn.out_proj", f"{b}.self_attn.out_proj"),
                    (f"{a}.ln_2", f"{b}.layer_norm2"),
                    (f"{a}.mlp.c_fc", f"{b}.mlp.fc1"),
                    (f"{a}.mlp.c_proj", f"{b}.mlp.fc2"),
                ]
            )
    return rules


def vision_config(weights: State, activation: str, head_width: int) -> dict[str, Any]:
    """What a vision side's shapes tell of its configuration, under the keys of transformers.

    Raises GeoBindError where the weights that tell it are not there.
    """
    try:
        filters = weights["vision_model.embeddings.patch_embedding.weight"]
        positions = weights["vision_model.embeddings.position_embedding.weight"]
        inner = weights["vision_model.encoder.layers.0.mlp.fc1.weight"]
        dim = len(weights["visual_projection.weight"])
    except KeyError as error:
        raise GeoBindError(f"the checkpoint lacks {error} of its vision model: give a whole one") from None
    width, _, patch, _ = filters.shape
    return {
        "hidden_size": width,
        "intermediate_size": len(inner),
        "num_hidden_layers": layers(weights, "vision_model.encoder.layers."),
        "num_attention_heads": width // head_width,
        "patch_size": patch,
        "image_size": patch * math.isqrt(len(positions) - 1),
        "hidden_act": activation,
        "projection_dim": dim,
    }


def _config(weights: State, activation: str, head_width: int, text_heads: int | None) -> Any:
    """The configuration that the shapes tell, with heads of 64 numbers where nothing says otherwise."""
    from transformers import CLIPConfig

    words = weights["text_model.embeddings.token_embedding.weight"]
    vision = vision_config(weights, activation, head_width)
    return CLIPConfig(
        projection_dim=vision["projection_dim"],
        vision_config=vision,
        text_config={
            "hidden_size": words.shape[1],
            "intermediate_size": len(weights["text_model.encoder.layers.0.mlp.fc1.weight"]),
            "num_hidden_layers": layers(weights, "text_model.encoder.layers."),
            "num_attention_heads": text_heads or words.shape[1] // 64,
            "max_position_embeddings": len(weights["text_model.embeddings.position_embedding.weight"]),
            "vocab_size": len(words),
            "bos_token_id": len(words) - 2,
            "eos_token_id": len(words) - 1,  # open_clip reads a text at its highest token, which is this
            "hidden_act": activation,
            "projection_dim": vision["projection_dim"],
        },
    )
