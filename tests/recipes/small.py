"""The recipes in recipes/ with towers of a few random weights, bound on replicas of their data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes"
PUBLISHED = ("geobind", "sat2cap", "soundingearth", "geoclap", "geobind-plus")

TINY_RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
TINY_VIT = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip


def content_of(name: str) -> dict[str, Any]:
    return yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))


def small(name: str, data: Path, weights: Path) -> dict[str, Any]:
    """Changes of a recipe that leave all but sizes and paths as they are."""
    content = content_of(name)
    changes: dict[str, Any] = {"data": str(data), "dim": 24}
    for modality, tower in content["towers"].items():
        path = f"towers.{modality}"
        if tower["tower"] in ("clip", "clap"):
            changes[f"{path}.weights"] = str(weights / tower["tower"])
        elif tower["tower"] == "hf":
            changes |= {f"{path}.weights": "none", f"{path}.config": TINY_RESNET, f"{path}.size": 32}
        elif tower["tower"] == "satmae":
            changes |= {f"{path}.config": TINY_VIT, f"{path}.classes": 20}
        elif tower["tower"] == "small":
            changes |= {f"{path}.width": 64, f"{path}.seconds": 1}
        elif tower["tower"] == "location":
            changes[f"{path}.head"] = {"kind": "mlp", "hidden": 16}
    for number, stage in enumerate(content["stages"]):
        changes |= {f"stages.{number}.epochs": 1, f"stages.{number}.batch_size": 8}
        if stage.get("validation"):  # of 20 places, not of millions
            changes[f"stages.{number}.validation"] = 0.2
    for number, evaluation in enumerate(content["evaluations"]):
        if "sample" in evaluation:
            changes[f"evaluations.{number}.sample"] = 8
    return changes
