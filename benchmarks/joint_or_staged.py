"""Joint training or staged binding? And what do extra negatives and joint positives change?

    python benchmarks/joint_or_staged.py --sample ../shared/sample --out runs/joint-or-staged.json

Binds the real pretrained features of the sample data in several ways (`VARIANTS`), five seeds each, and prints
the table of docs/joint-or-staged.md. Towers and options are those of recipes/sample.yaml. Each run
trains on part of the train split and is judged twice: on tiles and files held out of that split, by which one
may choose, and on the test split, which is only reported. Finished runs are kept in `--out`, so that the
command goes on where it stopped.

Joint training needs rows that hold every modality: the captions of the tiles that have a sound and a photo
too. Staged binding takes each table as it is; it is also run on those rows alone, to tell the two apart.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from geobind import Evaluation, GeoBind, Link, Pairs, Recipe, Stage, bind, evaluate
from geobind.storage import write_text

ROOT = Path(__file__).parents[1]
TABLES = {"text": "captions", "audio": "sounds", "image": "photos"}
HELD_OUT = 0.15  # of the tiles, and of the sounds and photos, of the train split
T_95 = {5: 2.776, 4: 3.182, 3: 4.303, 2: 12.71}  # Student's t, two-sided, of n - 1 degrees of freedom

Rows = dict[str, list[dict[str, str]]]  # of each table
Results = dict[str, dict[str, dict[str, float]]]  # by variant/seed, judging part, direction

# (query, gallery), metric: what is right for captions is the tile they describe, else the group.
COLUMNS = {
    ("text", "satellite"): "recall@10",
    ("satellite", "text"): "recall@10",
    ("audio", "satellite"): "map",
    ("image", "satellite"): "map",
    ("audio", "text"): "map",
    ("image", "text"): "map",
    ("image", "audio"): "map",
}
VARIANTS = (
    "staged",
    "staged, 1,000 extra negatives",
    "staged, masked positives",
    "staged, captions of a tile together",
    "staged, complete rows",
    "joint, satellite links, complete rows",
    "joint, all links, complete rows",
    "joint, all links, text learns, complete rows",
)

# (variant, beside which other): differences by seed, as the parts of a seed are the same for all.
DIFFERENCES = (
    ("staged", "staged, complete rows"),
    ("joint, satellite links, complete rows", "staged, complete rows"),
    ("joint, all links, complete rows", "staged, complete rows"),
    ("joint, all links, text learns, complete rows", "staged, complete rows"),
    ("staged, 1,000 extra negatives", "staged"),
    ("staged, masked positives", "staged"),
    ("staged, captions of a tile together", "staged"),
)


# --- data --------------------------------------------------------------------------------------------------


class Sample:
    """The three tables of the sample data and its feature files."""

    def __init__(self, folder: Path) -> None:
        self.features = {
            "satellite": folder / "features/satellite_efficientnet_lite0.npz",
            "text": folder / "features/text_minilm.npz",
            "audio": folder / "features/audio_yamnet.npz",
            "image": folder / "features/image_efficientnet_lite0.npz",
        }
        self.tables = {
            other: pyarrow.csv.read_csv(folder / f"satellite_{other}.csv").to_pylist() for other in TABLES
        }

    def parts(self, seed: int) -> tuple[Rows, dict[str, Rows]]:
        """Rows to train on, and rows to judge by: held out of the train split, and the test split.

        No tile, sound or photo that is held out is trained on (captions may be: people wrote the same ones
        for several tiles).
        """
        split = {
            name: {
                other: [row for row in rows if row["split"] == name] for other, rows in self.tables.items()
            }
            for name in ("train", "test")
        }
        rng = np.random.default_rng([seed, 1])
        held = {}
        for modality in ("satellite", "audio", "image"):
            known = {row[modality] for part in split["train"].values() for row in part if modality in row}
            held[modality] = set(rng.permutation(sorted(known))[: round(HELD_OUT * len(known))].tolist())
        train: Rows = {}
        judge: Rows = {}
        for other, part in split["train"].items():
            files = [modality for modality in ("satellite", other) if modality in held]
            train[other] = [row for row in part if not any(row[m] in held[m] for m in files)]
            judge[other] = [row for row in part if row[files[-1]] in held[files[-1]]]
        return train, {"held out": judge, "test": split["test"]}

    def pairs(self, rows: list[dict[str, str]], name: str, *modalities: str) -> Pairs:
        table = pa.table({key: [row[key] for row in rows] for key in (*modalities, "group")})
        features = {modality: self.features[modality] for modality in modalities}
        return Pairs.from_table(table, name=name, features=features)


def complete(rows: Rows) -> list[dict[str, str]]:
    """The captions of tiles that have a sound and a photo, with both."""
    by_tile = {other: {row["satellite"]: row for row in rows[other]} for other in ("audio", "image")}
    return [
        {**by_tile["audio"][tile], **by_tile["image"][tile], **row}
        for row in rows["text"]
        if all((tile := row["satellite"]) in found for found in by_tile.values())
    ]


# --- the ways to bind --------------------------------------------------------------------------------------


def stages(variant: str, sample: Sample, rows: Rows, seed: int, epochs: int) -> list[Stage]:
    """The stages of a variant. Links of sounds and photos have the recipe's warm, fixed temperature."""
    options: dict[str, Any] = {"epochs": epochs, "batch_size": 256, "lr": 1e-3, "seed": seed}
    options["positives"] = "masked" if "masked" in variant else "joint"
    options["rows_per_place"] = 5 if "together" in variant else None  # no tile has more captions
    warm: dict[str, Any] = {"temperature": 0.2, "learn_temperature": False}
    if "complete" in variant:
        rows = dict.fromkeys(TABLES, complete(rows))
    if variant.startswith("staged"):
        options["extra_negatives"] = 1000 if "extra" in variant else 0
        pairs = {other: sample.pairs(rows[other], TABLES[other], "satellite", other) for other in TABLES}
        return [
            Stage(learner="satellite", target="text", pairs=pairs["text"], **options),
            Stage(learner="audio", target="satellite", pairs=pairs["audio"], **warm, **options),
            Stage(learner="image", target="satellite", pairs=pairs["image"], **warm, **options),
        ]
    links = [
        Link("satellite", "text"),
        Link("audio", "satellite", **warm),
        Link("image", "satellite", **warm),
    ]
    if "all links" in variant:
        links += [Link(a, b, **warm) for a, b in (("audio", "text"), ("image", "text"), ("image", "audio"))]
    learners = ["satellite", "audio", "image", *(["text"] if "text learns" in variant else [])]
    triples = sample.pairs(rows["text"], "complete", "satellite", *TABLES)
    return [Stage(learners=learners, links=links, pairs=triples, **options)]


def run(variant: str, sample: Sample, seed: int, epochs: int) -> dict[str, dict[str, float]]:
    """Metrics of one run by the rows that judge and "query > gallery"."""
    train, judges = sample.parts(seed)
    recipe = Recipe.load(ROOT / "recipes/sample.yaml").model_copy(update={"seed": seed})
    if "text learns" in variant:
        recipe.towers["text"].head = "linear"
    space = GeoBind(recipe.dim, [recipe.tower(modality) for modality in recipe.towers])
    for stage in stages(variant, sample, train, seed, epochs):
        bind(space, stage, progress=False)
    return {part: judge(space, sample, rows) for part, rows in judges.items()}


def judge(space: GeoBind, sample: Sample, rows: Rows) -> dict[str, float]:
    """The metric of each column; tiles are those with captions, sounds and photos are those of their tables."""
    pairs = {other: sample.pairs(rows[other], TABLES[other], "satellite", other) for other in TABLES}
    tiles = pairs["text"]
    evaluations = [Evaluation(("text", "satellite"), tiles, split=None)]
    for one, other in list(COLUMNS)[2:]:
        both = (pairs[one], tiles if other == "satellite" else pairs[other])
        evaluations.append(Evaluation((one, other), both, split=None, protocol="group"))
    report = evaluate(space, evaluations, progress=False, draws=1)
    found = {(row["query"], row["gallery"]): row for row in report.rows}
    return {" > ".join(pair): found[pair][metric] for pair, metric in COLUMNS.items()}


# --- the table ---------------------------------------------------------------------------------------------


def cell(values: np.ndarray, sign: str = "") -> str:
    """Mean and half the width of its 95 % interval over seeds (Student's t)."""
    half = T_95[len(values)] * np.std(values, ddof=1) / math.sqrt(len(values))
    return f"{np.mean(values):{sign}.3f} ± {half:.3f}"


def table(results: Results, part: str, seeds: int) -> str:
    """A row a variant and a column a direction, then a row a difference (variant less the other)."""
    names = [" > ".join(pair) for pair in COLUMNS]
    columns = [f"{name}, {metric}" for name, metric in zip(names, COLUMNS.values(), strict=True)]
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]

    def figures(variant: str, name: str) -> np.ndarray:
        return np.array([results[f"{variant}/{seed}"][part][name] for seed in range(seeds)])

    for variant in VARIANTS:
        lines.append(f"| {variant} | {' | '.join(cell(figures(variant, name)) for name in names)} |")
    for one, other in DIFFERENCES:
        cells = [cell(figures(one, name) - figures(other, name), "+") for name in names]
        lines.append(f"| *{one}, less {other}* | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", type=Path, default=ROOT.parent / "shared/sample")
    parser.add_argument("--out", type=Path, required=True, help="JSON file of finished runs")
    parser.add_argument("--seeds", type=int, default=5, choices=sorted(T_95))
    parser.add_argument("--epochs", type=int, default=15)
    arguments = parser.parse_args()
    sample = Sample(arguments.sample)
    results = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["GEOBIND_CACHE"] = cache
        for seed in range(arguments.seeds):
            for variant in VARIANTS:
                key = f"{variant}/{seed}"
                if key not in results:
                    began = time.monotonic()
                    results[key] = run(variant, sample, seed, arguments.epochs)
                    write_text(arguments.out, json.dumps(results, indent=1) + "\n")
                    print(f"{key}: {time.monotonic() - began:.0f} s", flush=True)
    for part in ("held out", "test"):
        print(f"\n{part}: mean over {arguments.seeds} seeds ± 95 % interval, {arguments.epochs} epochs\n")
        print(table(results, part, arguments.seeds))


if __name__ == "__main__":
    main()
