"""Does a satellite tower that is told the place find more? On the miniature Earth, with seeds and intervals.

    geobind demo --export runs/conditioning/earth
    python benchmarks/conditioning.py --earth runs/conditioning/earth --out runs/conditioning/results.json

A stand-in for CLIP is trained once a seed; then a small ResNet is bound to its frozen photos in each of the
ways of `VARIANTS`, and judged told the place and not told. Two splits: the Earth's own, whose val and test places
lie in cells that were never trained on; and one by place alone, whose held-out places have neighbours in training.
Both judge held-out places of the train split (by which one may choose) and the test split (reported). "location
alone" sees no picture: what a position by itself says about the photo. The Earth has no times, so only place is
told. Finished runs are kept in `--out`, so that the command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from joint_or_staged import T_95, cell

from geobind import Evaluation, GeoBind, GeoBindWarning, Pairs, Recipe, Stage, bind, evaluate
from geobind.storage import write_text
from geobind.towers.base import build_tower

ROOT = Path(__file__).parents[1]
RESNET = {
    "model_type": "resnet", "embedding_size": 32, "hidden_sizes": [64, 128], "depths": [2, 2],
    "layer_type": "basic", "downsample_in_first_stage": False,
}  # fmt: skip
VARIANTS: dict[str, Any] = {
    "not conditioned": None,
    "sat2cap": {"encoding": "sat2cap", "dropout": 0.3},
    "sphere": {"encoding": "sphere", "dropout": 0.3},
    "location alone": "location",
}
DIRECTIONS = (("satellite", "image"), ("text", "satellite"))
SPLITS = ("by cell", "by place")


class Earth:
    """Tables of the miniature Earth's places under one of the two splits."""

    def __init__(self, folder: Path, split: str) -> None:
        table = pq.read_table(folder / "places.parquet")
        if split == "by place":  # the same number of val and test places, drawn from all that have a photo
            has = np.array([value is not None for value in table["image"].to_pylist()])
            names = np.array(table["split"].to_pylist(), dtype=object)
            rows = np.random.default_rng(0).permutation(np.flatnonzero(has))
            val, test = (int((names == part).sum()) for part in ("val", "test"))
            names[:] = "train"
            names[rows[:val]], names[rows[val : val + test]] = "val", "test"
            table = table.set_column(table.schema.get_field_index("split"), "split", pa.array(names.tolist()))
        self.folder, self.table = folder, table

    def pairs(self, split: str, *modalities: str, told: bool = True) -> Pairs:
        """Rows of a split that have every modality. Not `told`, they hold no position."""
        keep = [*modalities, "split", *(("latitude", "longitude") if told else ())]
        name = f"earth {split} {' '.join(modalities)} {told}"
        return Pairs.from_table(self.table.select(keep), name=name, root=self.folder).split(split)


def stand_in(folder: Path, seed: int, out: Path) -> None:
    """Photos and texts trained together, as in the first stage of recipes/demo.yaml, saved to `out`."""
    content = yaml.safe_load((ROOT / "recipes/demo.yaml").read_text())
    recipe = Recipe.parse(content | {"seed": seed})
    space = GeoBind(recipe.dim, [recipe.tower(modality) for modality in ("image", "text")])
    captions = Pairs.from_table(folder / "captions.parquet").split("train")
    stage = recipe.stages[0]
    bind(space, stage.model_copy(update={"pairs": captions, "seed": seed}), progress=False)
    space.save_pretrained(out)


def run(variant: str, earth: Earth, frozen: Path, seed: int, epochs: int) -> dict[str, float]:
    """recall@10 by part, direction and whether the tower was told the place."""
    kind = VARIANTS[variant]
    learner = "location" if kind == "location" else "satellite"
    space = GeoBind.from_pretrained(frozen)
    if kind == "location":
        head = {"kind": "mlp", "hidden": 128}
        tower = build_tower("location", modality=learner, dim=space.dim, sigmas=[2, 16], head=head)
    else:
        tower = build_tower(
            "hf", modality=learner, dim=space.dim, config=RESNET, size=32, condition=kind, head="linear"
        )
    space.add(tower)
    modalities = ("image",) if kind == "location" else ("satellite", "image")
    stage = Stage(
        learner=learner, target="image", pairs=earth.pairs("train", *modalities), epochs=epochs, batch_size=128,
        lr=2e-3, seed=seed,
    )  # fmt: skip
    bind(space, stage, progress=False)
    found = {}
    for part in ("val", "test"):
        for told in (True, False) if isinstance(kind, dict) else (True,):
            pairs = earth.pairs(part, "satellite", "image", "text", told=told)
            between = [tuple(learner if m == "satellite" else m for m in pair) for pair in DIRECTIONS]
            evaluations = [Evaluation(pair, pairs, split=None) for pair in between]
            rows = evaluate(space, evaluations, progress=False, draws=1).rows
            scores = {(row["query"], row["gallery"]): row["recall@10"] for row in rows}
            for pair, asked in zip(DIRECTIONS, between, strict=True):
                found[f"{part}/{' > '.join(pair)}/{'told' if told else 'not told'}"] = scores[asked]
    return found


def table(results: dict[str, dict[str, float]], part: str, seeds: int) -> str:
    """Mean over seeds ± half of its 95 % interval (Student's t), and the difference to "not conditioned"."""
    columns = [(split, " > ".join(pair)) for split in SPLITS for pair in DIRECTIONS]
    lines = ["| | " + " | ".join(f"{split}: {pair}" for split, pair in columns) + " |", "|---" * 5 + "|"]

    def figures(variant: str, split: str, pair: str, told: str) -> np.ndarray:
        keys = [f"{split}/{variant}/{seed}" for seed in range(seeds)]
        return np.array([results[key][f"{part}/{pair}/{told}"] for key in keys])

    for variant, kind in VARIANTS.items():
        for told in ("told", "not told") if isinstance(kind, dict) else ("told",):
            name = f"{variant}, {told}" if isinstance(kind, dict) else variant
            values = [figures(variant, *column, told) for column in columns]
            lines.append(f"| {name} | {' | '.join(map(cell, values))} |")
            if isinstance(kind, dict):
                base = [figures("not conditioned", *column, "told") for column in columns]
                less = [cell(a - b, "+") for a, b in zip(values, base, strict=True)]
                lines.append(f"| *{name}, less not conditioned* | {' | '.join(less)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--earth", type=Path, required=True, help="folder of `geobind demo --export`")
    parser.add_argument("--out", type=Path, required=True, help="JSON file of finished runs")
    parser.add_argument("--seeds", type=int, default=5, choices=sorted(T_95))
    parser.add_argument("--epochs", type=int, default=6)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", GeoBindWarning)  # a tower that is not told the place says so
    earths = {split: Earth(arguments.earth, split) for split in SPLITS}
    results = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["GEOBIND_CACHE"] = cache
        for seed in range(arguments.seeds):
            keys = [(split, variant) for split in SPLITS for variant in VARIANTS]
            if all(f"{split}/{variant}/{seed}" in results for split, variant in keys):
                continue
            frozen = Path(cache, f"stand-in-{seed}")
            stand_in(arguments.earth, seed, frozen)
            for split, variant in keys:
                key = f"{split}/{variant}/{seed}"
                if key in results:
                    continue
                began = time.monotonic()
                results[key] = run(variant, earths[split], frozen, seed, arguments.epochs)
                write_text(arguments.out, json.dumps(results, indent=1) + "\n")
                print(f"{key}: {time.monotonic() - began:.0f} s {results[key]}", flush=True)
    for part in ("val", "test"):
        print(f"\n{part}: recall@10, mean over {arguments.seeds} seeds ± 95 % interval\n")
        print(table(results, part, arguments.seeds))


if __name__ == "__main__":
    main()
