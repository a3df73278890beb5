"""SatMAE's ViT of Sentinel-2 channel groups, as GeoCLAP starts its satellite tower from it."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor

from geobind.errors import GeoBindError, GeoBindWarning
from geobind.interop.folders import write_model
from geobind.interop.keys import Rule, convert, layers, timm_blocks
from geobind.interop.options import ImportOptions
from geobind.interop.reading import State
from geobind.space import GeoBind
from geobind.towers.base import build_tower
from geobind.towers.pretrained import load_config, load_model

CLASSES = 1000  # timm's default, which GeoCLAP keeps
_HEAD_WIDTH = 64  # of every ViT of SatMAE


def satmae(state: State, file: Path, folder: Path, options: ImportOptions) -> GeoBind:
    """A satellite tower to train from, of SatMAE's fMoW-Sentinel checkpoint: not yet one to embed with.

    SatMAE's network reads ten bands in three groups, in patches of 8 of 96 pixels. GeoCLAP loads it into a
    ViT/16 for three colours of 224 pixels, and so do we: the class token, the blocks and, where the
    file has one, the last norm are SatMAE's. What does not fit is drawn anew, always the same: patch embedding
    and classifier at random, positions as sines and cosines (Cong et al. 2022, "SatMAE").
    Raises GeoBindError for keys left over or missing, and for SatMAE's other models.
    """
    from transformers import ViTForImageClassification

    depth, groups = layers(state, "blocks."), layers(state, "patch_embed.")
    if "channel_embed" not in state or "cls_token" not in state:
        raise GeoBindError(
            f"{file} is a SatMAE without channel groups: give a checkpoint of fMoW-Sentinel, such as "
            f"finetune-vit-base-e7.pth"
        )
    width = state["cls_token"].shape[-1]
    # The fine-tuned model averages patches before a norm of its own; GeoCLAP's reads the class token.
    rules = [Rule("cls_token", ("vit.embeddings.cls_token",)), *timm_blocks("", depth)]
    if "norm.weight" in state:
        rules += [Rule(f"norm.{kind}", (f"vit.layernorm.{kind}",)) for kind in ("weight", "bias")]
    left = {
        "pos_embed", "channel_embed", "channel_cls_embed", "mask_token",
        *(f"{name}.{kind}" for name in ("head", "fc_norm") for kind in ("weight", "bias")),
        *(f"patch_embed.{n}.proj.{kind}" for n in range(groups) for kind in ("weight", "bias")),
        *(key for key in state if key.startswith("decoder_")),
    }  # fmt: skip
    taken = convert(state, {"vit": rules}, name=str(file), ignored=left)["vit"]
    config = load_config(
        None,
        {
            "hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": depth,
            "num_attention_heads": width // _HEAD_WIDTH, "layer_norm_eps": 1e-6,
        },
        "vit",
    )  # fmt: skip
    config.num_labels = CLASSES
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = load_model(ViTForImageClassification, config, None)
        torch.nn.init.trunc_normal_(model.classifier.weight, std=2e-5)  # GeoCLAP's
    # Blocks are all taken, under the names that checkpoints have; the library's own differ.
    new = {key: value for key, value in model.state_dict().items() if not key.startswith("vit.layers.")}
    whole = new | taken
    whole["vit.embeddings.position_embeddings"] = sines(width, config.image_size // config.patch_size)
    weights = write_model(folder / "satellite", config, whole)
    warnings.warn(
        f"{file} holds a network of ten bands: its {depth} blocks were taken, patch embedding, positions and "
        f"classifier are new, as in GeoCLAP; train the tower before you embed with it",
        GeoBindWarning,
        stacklevel=3,
    )
    return GeoBind(CLASSES, [build_tower("satmae", modality="satellite", dim=CLASSES, weights=weights)])


def sines(width: int, side: int) -> Tensor:
    """Positions of a class token and side x side patches, (1, 1 + side², width): the token's is zero.

    Half of the numbers say the column and half the row, as sines then cosines of width / 4 frequencies
    from 1 to 1 / 10,000 (He et al. 2022, "Masked autoencoders are scalable vision learners").
    """
    rates = 1e-4 ** (torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = torch.arange(side, dtype=torch.float64)[:, None] * rates
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    columns, rows = waves.repeat(side, 1), waves.repeat_interleave(side, 0)
    patches = torch.cat([columns, rows], dim=1)
    return torch.cat([patches.new_zeros(1, width), patches])[None].float()
