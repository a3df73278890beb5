"""The main job on real input, through the command line as a user runs it.

* `recipes/sample.yaml` reaches the floors that a plain two-layer head sets, emergent pairs included.
* `recipes/sample-media.yaml`, from the files themselves, is clearly above chance in every metric.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

Rows = dict[tuple[str, str], dict[str, Any]]


def geobind(*arguments: str | Path) -> str:
    """Run the command line in the project's root, to which a recipe's paths are relative."""
    command = [sys.executable, "-m", "geobind", *map(str, arguments)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def bind_and_evaluate(recipe: str, folder: Path) -> Rows:
    """Rows of metrics.json by (query, gallery)."""
    geobind("bind", f"recipes/{recipe}", "--out", folder)
    geobind("evaluate", folder, "--json", folder / "rows.json")
    rows = json.loads((folder / "rows.json").read_text())
    assert rows == json.loads((folder / "metrics.json").read_text())
    return {(row["query"], row["gallery"]): row for row in rows}


# What a plain two-layer head with symmetric InfoNCE reaches: (query, gallery): metric, floor.
FLOORS = {
    ("text", "satellite"): ("recall@10", 0.42),
    ("satellite", "text"): ("recall@10", 0.45),
    ("audio", "satellite"): ("map", 0.47),
    ("image", "satellite"): ("map", 0.51),
    ("audio", "text"): ("map", 0.51),
    ("image", "text"): ("map", 0.53),
    ("image", "audio"): ("map", 0.48),
}
EMERGENT = [("audio", "text"), ("image", "text"), ("image", "audio")]


def test_features_reach_the_floors(sample, tmp_path):
    rows = bind_and_evaluate("sample.yaml", tmp_path)
    below = {
        (*pair, metric): rows[pair][metric]
        for pair, (metric, floor) in FLOORS.items()
        if rows[pair][metric] < floor
    }
    assert not below
    assert rows["text", "satellite"]["gallery_size"] == 600
    emergent = {pair for pair, row in rows.items() if not row["trained"]}
    assert emergent == {*EMERGENT, *((b, a) for a, b in EMERGENT)}


def test_media_are_clearly_above_chance(sample, tmp_path):
    for pair, row in bind_and_evaluate("sample-media.yaml", tmp_path).items():
        for metric, chance in row["chance"].items():
            if metric == "median_rank":
                assert row["high"][metric] < chance, (pair, metric)
            else:
                assert row["low"][metric] > chance, (pair, metric)
