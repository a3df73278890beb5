"""Checkpoints as published, with random weights: exact keys and shapes; and what they compute, in plain torch.

The functions named `evaluate_...` read the published keys directly, so that they share nothing with the package.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
}


def weights(generator: torch.Generator, **shapes: tuple[int, ...]) -> State:
    """Random weights that keep activations of order one, biases and norms that are not at their defaults."""
    out = {}
    for key, shape in shapes.items():
        value = torch.randn(shape, generator=generator)
        if "norm" in key or ".ln_" in key or key.startswith("ln_"):
            out[key] = value * 0.1 + (1.0 if key.endswith("weight") else 0.0)
        else:
            out[key] = value * (0.05 if len(shape) < 2 else 0.5 * shape[-1] ** -0.5)
    return out


def linear(state: State, key: str, x: Tensor) -> Tensor:
    return x @ state[f"{key}.weight"].T + state[f"{key}.bias"]


def norm(state: State, key: str, x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{key}.weight"], state[f"{key}.bias"], eps)


def attention(qkv: Tensor, heads: int, mask: Tensor | float = 0.0) -> Tensor:
    """(batch, tokens, 3 width) to (batch, tokens, width)."""
    batch, tokens, _ = qkv.shape
    q, k, v = qkv.reshape(batch, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4)
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + mask
    return (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, tokens, -1)


# --- open_clip ---------------------------------------------------------------------------------------------


def open_clip_state(
    *, width=768, depth=12, patch=32, image=224, text_width=512, text_depth=12, vocab=49_408, context=77, dim=512, seed=0
) -> State:  # fmt: skip
    """ViT-B/32 unless told otherwise."""
    shapes: dict[str, tuple[int, ...]] = {
        "visual.class_embedding": (width,),
        "visual.positional_embedding": ((image // patch) ** 2 + 1, width),
        "visual.conv1.weight": (width, 3, patch, patch),
        "visual.proj": (width, dim),
        "positional_embedding": (context, text_width),
        "token_embedding.weight": (vocab, text_width),
        "text_projection": (text_width, dim),
    }
    norms = {"visual.ln_pre": width, "visual.ln_post": width, "ln_final": text_width}
    for prefix, size, layers in (
        ("visual.transformer", width, depth),
        ("transformer", text_width, text_depth),
    ):
        for n in range(layers):
            block = f"{prefix}.resblocks.{n}"
            norms |= {f"{block}.ln_1": size, f"{block}.ln_2": size}
            shapes |= {
                f"{block}.attn.in_proj_weight": (3 * size, size), f"{block}.attn.in_proj_bias": (3 * size,),
                f"{block}.attn.out_proj.weight": (size, size), f"{block}.attn.out_proj.bias": (size,),
                f"{block}.mlp.c_fc.weight": (4 * size, size), f"{block}.mlp.c_fc.bias": (4 * size,),
                f"{block}.mlp.c_proj.weight": (size, 4 * size), f"{block}.mlp.c_proj.bias": (size,),
            }  # fmt: skip
    for key, size in norms.items():
        shapes |= {f"{key}.weight": (size,), f"{key}.bias": (size,)}
    return weights(torch.Generator().manual_seed(seed), **shapes) | {"logit_scale": torch.tensor(4.0)}


def _open_clip_blocks(state: State, prefix: str, x: Tensor, act: str, mask: Tensor | float = 0.0) -> Tensor:
    n = 0
    while f"{prefix}.resblocks.{n}.ln_1.weight" in state:
        key = f"{prefix}.resblocks.{n}"
        y = norm(state, f"{key}.ln_1", x, 1e-5)
        y = y @ state[f"{key}.attn.in_proj_weight"].T + state[f"{key}.attn.in_proj_bias"]
        x = x + linear(state, f"{key}.attn.out_proj", attention(y, x.shape[-1] // 64, mask))
        y = linear(state, f"{key}.mlp.c_fc", norm(state, f"{key}.ln_2", x, 1e-5))
        x = x + linear(state, f"{key}.mlp.c_proj", ACTIVATIONS[act](y))
        n += 1
    return x


def evaluate_open_clip_image(state: State, pixels: Tensor, act: str) -> Tensor:
    filters = state["visual.conv1.weight"]
    x = F.conv2d(pixels, filters, stride=filters.shape[-1]).flatten(2).transpose(1, 2)
    first = state["visual.class_embedding"].expand(len(x), 1, -1)
    x = torch.cat([first, x], 1) + state["visual.positional_embedding"]
    x = _open_clip_blocks(state, "visual.transformer", norm(state, "visual.ln_pre", x, 1e-5), act)
    return norm(state, "visual.ln_post", x[:, 0], 1e-5) @ state["visual.proj"]


def evaluate_open_clip_text(state: State, ids: Tensor, act: str) -> Tensor:
    """`ids` are padded with 0 to the context length and read at the highest, as open_clip does."""
    length = len(state["positional_embedding"])
    ids = F.pad(ids, (0, length - ids.shape[1]))
    mask = torch.full((length, length), float("-inf")).triu(1)
    x = state["token_embedding.weight"][ids] + state["positional_embedding"]
    x = norm(state, "ln_final", _open_clip_blocks(state, "transformer", x, act, mask), 1e-5)
    return x[torch.arange(len(x)), ids.argmax(-1)] @ state["text_projection"]


# --- GeoCLAP -----------------------------------------------------------------------------------------------


def timm_vit_state(prefix: str, *, width=768, depth=12, patch=16, image=224, classes=1000, seed=1) -> State:
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, (image // patch) ** 2 + 1, width),
        "patch_embed.proj.weight": (width, 3, patch, patch), "patch_embed.proj.bias": (width,),
        "norm.weight": (width,), "norm.bias": (width,),
        "head.weight": (classes, width), "head.bias": (classes,),
    }  # fmt: skip
    for n in range(depth):
        block = f"blocks.{n}"
        shapes |= {
            f"{block}.norm1.weight": (width,), f"{block}.norm1.bias": (width,),
            f"{block}.norm2.weight": (width,), f"{block}.norm2.bias": (width,),
            f"{block}.attn.qkv.weight": (3 * width, width), f"{block}.attn.qkv.bias": (3 * width,),
            f"{block}.attn.proj.weight": (width, width), f"{block}.attn.proj.bias": (width,),
            f"{block}.mlp.fc1.weight": (4 * width, width), f"{block}.mlp.fc1.bias": (4 * width,),
            f"{block}.mlp.fc2.weight": (width, 4 * width), f"{block}.mlp.fc2.bias": (width,),
        }  # fmt: skip
    state = weights(torch.Generator().manual_seed(seed), **shapes)
    return {f"{prefix}{key}": value for key, value in state.items()}


def evaluate_timm_vit(state: State, prefix: str, pixels: Tensor) -> Tensor:
    """Class logits."""
    state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    filters = state["patch_embed.proj.weight"]
    x = F.conv2d(pixels, filters, state["patch_embed.proj.bias"], stride=filters.shape[-1])
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x], 1) + state["pos_embed"]
    n = 0
    while f"blocks.{n}.norm1.weight" in state:
        key = f"blocks.{n}"
        y = attention(
            linear(state, f"{key}.attn.qkv", norm(state, f"{key}.norm1", x, 1e-6)), x.shape[-1] // 64
        )
        x = x + linear(state, f"{key}.attn.proj", y)
        y = F.gelu(linear(state, f"{key}.mlp.fc1", norm(state, f"{key}.norm2", x, 1e-6)))
        x = x + linear(state, f"{key}.mlp.fc2", y)
        n += 1
    return linear(state, "head", norm(state, "norm", x, 1e-6)[:, 0])


def geoclap_state(audio: torch.nn.Module, text: torch.nn.Module, **vit: int) -> State:
    """The satellite encoder, and CLAP's sides under their prefixes, as GeoCLAP's Lightning module names them."""
    state = timm_vit_state("sat_encoder.model.", **vit)
    state |= weights(
        torch.Generator().manual_seed(2),
        **{"sat_encoder.fc.weight": (512, 1000), "sat_encoder.fc.bias": (512,)},
    )
    state |= {f"audio_encoder.model.{key}": value for key, value in audio.state_dict().items()}
    state |= {f"text_encoder.model.{key}": value for key, value in text.state_dict().items()}
    return state | {f"temp_layer.logit_scale_{link}": torch.tensor(3.0) for link in ("ia", "it", "at")}


# --- Sat2Cap -----------------------------------------------------------------------------------------------


def sat2cap_state(satellite: torch.nn.Module, image: torch.nn.Module, queue: int = 2560) -> State:
    """The two CLIP vision models under their prefixes, the encoder of place and time, and the queue."""
    state = {f"imo_encoder.vision_model.{key}": value for key, value in satellite.state_dict().items()}
    state |= {f"img_encoder.vision_model.{key}": value for key, value in image.state_dict().items()}
    for side in ("imo", "img"):  # of transformers before 4.31
        key = f"{side}_encoder.vision_model.vision_model.embeddings.position_ids"
        state[key] = torch.arange(50)[None]
    shapes = {"fc1.weight": (64, 12), "fc1.bias": (64,), "fc2.weight": (512, 64), "fc2.bias": (512,)}
    generator = torch.Generator().manual_seed(3)
    state |= {
        f"geo_encoder.{key}": torch.randn(shape, generator=generator) * 0.2 for key, shape in shapes.items()
    }
    return state | {
        "temp_layer.logit_scale": torch.tensor(4.6052),
        "queue": torch.randn(512, queue, generator=generator),
        "queue_ptr": torch.zeros(1, dtype=torch.int64),
    }


def evaluate_clip_vision(state: State, prefix: str, pixels: Tensor) -> Tensor:
    """CLIP's vision model with its projection, from keys as transformers names them."""
    state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    filters = state["vision_model.embeddings.patch_embedding.weight"]
    x = F.conv2d(pixels, filters, stride=filters.shape[-1]).flatten(2).transpose(1, 2)
    x = torch.cat([state["vision_model.embeddings.class_embedding"].expand(len(x), 1, -1), x], 1)
    x = norm(
        state,
        "vision_model.pre_layrnorm",
        x + state["vision_model.embeddings.position_embedding.weight"],
        1e-5,
    )
    n = 0
    while f"vision_model.encoder.layers.{n}.layer_norm1.weight" in state:
        key = f"vision_model.encoder.layers.{n}"
        y = norm(state, f"{key}.layer_norm1", x, 1e-5)
        qkv = torch.cat([linear(state, f"{key}.self_attn.{part}_proj", y) for part in "qkv"], -1)
        x = x + linear(state, f"{key}.self_attn.out_proj", attention(qkv, x.shape[-1] // 64))
        y = linear(state, f"{key}.mlp.fc1", norm(state, f"{key}.layer_norm2", x, 1e-5))
        x = x + linear(state, f"{key}.mlp.fc2", ACTIVATIONS["quick_gelu"](y))
        n += 1
    return norm(state, "vision_model.post_layernorm", x[:, 0], 1e-5) @ state["visual_projection.weight"].T


def evaluate_geo_encoder(
    state: State, latitude: float, longitude: float, year: int, month: int, day: int, hour: int
) -> Tensor:
    """What Sat2Cap adds to an embedding: its twelve numbers through Linear, ReLU, Linear."""
    from math import cos, pi, sin

    turns = [(year - 2015) / 15, month / 12, day / 31, hour / 23]
    numbers = [
        sin(pi * latitude / 90),
        cos(pi * latitude / 90),
        sin(pi * longitude / 180),
        cos(pi * longitude / 180),
    ]
    numbers += [wave(2 * pi * turn) for turn in turns for wave in (sin, cos)]
    return linear(state, "geo_encoder.fc2", linear(state, "geo_encoder.fc1", torch.tensor([numbers])).relu())


# --- files -------------------------------------------------------------------------------------------------


def save_lightning(path: Path, state: State) -> Path:
    """As Lightning saves: hyper-parameters as a namespace, an optimiser's state, counters."""
    import argparse

    torch.save(
        {
            "epoch": 26,
            "global_step": 7506,
            "pytorch-lightning_version": "2.0.0",
            "state_dict": state,
            "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 5e-5}]}],
            "hyper_parameters": {"args": argparse.Namespace(lr=5e-5, batch_size=128), "geo_encode": True},
        },
        path,
    )
    return path


def save_wide_clip_tokenizer(folder: Path) -> Path:
    """CLIP's tokenizer of single characters, whose first and last token have the published numbers."""
    from transformers import CLIPTokenizer

    from tests.models import BYTES

    vocab = {token: i for i, token in enumerate([*BYTES, *(f"{byte}</w>" for byte in BYTES)])}
    vocab |= {"<|startoftext|>": 49_406, "<|endoftext|>": 49_407}
    CLIPTokenizer(vocab=vocab, merges=[]).save_pretrained(folder)
    return folder


# --- SatMAE ------------------------------------------------------------------------------------------------


def satmae_state(*, width=768, depth=12, side=12, classes=62) -> State:
    """finetune-vit-base-e7.pth of fMoW-Sentinel: three groups of bands, patches of 8 of 96 pixels."""
    state = timm_vit_state("", width=width, depth=depth, classes=classes)
    for key in ("patch_embed.proj.weight", "patch_embed.proj.bias", "norm.weight", "norm.bias"):
        del state[key]
    shapes: dict[str, tuple[int, ...]] = {
        "pos_embed": (1, side**2 + 1, width - 256),
        "channel_embed": (1, 3, 256), "channel_cls_embed": (1, 1, 256),
        "fc_norm.weight": (width,), "fc_norm.bias": (width,),
    }  # fmt: skip
    for n, bands in enumerate((4, 4, 2)):
        shapes |= {
            f"patch_embed.{n}.proj.weight": (width, bands, 8, 8),
            f"patch_embed.{n}.proj.bias": (width,),
        }
    return state | weights(torch.Generator().manual_seed(4), **shapes)
