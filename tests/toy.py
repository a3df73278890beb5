"""Towers of a few weights, one for each kind of value that a processor takes, and a recipe on tiny tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import yaml

from geobind import GeoBind, MediaError, Processor, Tower, build_tower, register
from geobind.towers.location import LocationProcessor

DIM = 8


class LettersProcessor(Processor):
    """How often each of 16 letters occurs; `read` turns the value into the text."""

    def __init__(self, modality: str, takes: str) -> None:
        self.columns, self.takes = (modality,), takes

    def __call__(self, row, *, rng=None):
        value = row[self.columns[0]]
        try:
            text = value.read_text() if self.takes == "file" else value
        except OSError as error:
            raise MediaError(f"file {value} cannot be read ({error.strerror}): check the path") from None
        if not text:
            raise MediaError(f"{self.columns[0]} {value} is empty: remove it")
        return {"counts": torch.tensor([1.0 + text.count(letter) for letter in "abcdefghijklmnop"])}

    def settings(self):
        return {"columns": list(self.columns), "takes": self.takes}


@register("letters")
class Letters(Tower):
    """A file's or a sentence's letters; `weights` is only remembered."""

    def __init__(self, modality: str, *, takes: str = "file", weights: str | None = None) -> None:
        super().__init__(modality, width=16, processor=LettersProcessor(modality, takes))
        self.scale = torch.nn.Parameter(torch.ones(16))

    def encode(self, counts):
        return counts * self.scale


@register("point")
class Point(Tower):
    """A position on the map, times a matrix."""

    def __init__(self, modality: str = "location") -> None:
        super().__init__(modality, width=16, processor=LocationProcessor(modality))
        self.matrix = torch.nn.Linear(2, 16)

    def encode(self, point):
        return self.matrix(point)


def toy_space() -> GeoBind:
    """satellite: files, text: sentences, location: positions, environment: vectors of 5."""
    torch.manual_seed(0)
    return GeoBind(
        DIM,
        [
            build_tower("letters", modality="satellite", dim=DIM),
            build_tower("letters", modality="text", dim=DIM, takes="text"),
            build_tower("point", modality="location", dim=DIM),
            build_tower("vector", modality="environment", dim=DIM, width=5),
        ],
    )


def write_recipe(folder: Path, **changes: object) -> Path:
    """A recipe of one stage and its table of feature keys in `folder`; `changes` replace its keys."""
    folder.mkdir(parents=True, exist_ok=True)
    hidden = np.random.default_rng(0).normal(size=(60, 4))
    views = {
        "satellite": hidden @ np.random.default_rng(1).normal(size=(4, 12)),
        "text": hidden @ np.random.default_rng(2).normal(size=(4, DIM)),
    }
    rows = ["satellite,text,split,group"]
    for i in range(60):
        rows.append(f"tile_{i}.jpg,caption {i},{'test' if i >= 40 else 'train'},{'ab'[i % 2]}")
    (folder / "pairs.csv").write_text("\n".join(rows) + "\n")
    keys = {"satellite": [f"tile_{i}.jpg" for i in range(60)], "text": [f"caption {i}" for i in range(60)]}
    for modality, vectors in views.items():
        np.savez(folder / f"{modality}.npz", key=np.array(keys[modality]), vector=vectors.astype(np.float32))
    content = {
        "dim": DIM,
        "towers": {
            "satellite": {"tower": "vector", "width": 12, "head": {"kind": "mlp", "hidden": 16}},
            "text": {"tower": "vector", "width": DIM, "standardize": False, "head": "none"},
        },
        "pairs": {
            "captions": {
                "table": str(folder / "pairs.csv"),
                "features": {modality: str(folder / f"{modality}.npz") for modality in views},
            }
        },
        "stages": [
            {"learner": "satellite", "target": "text", "pairs": "captions", "epochs": 2, "batch_size": 8}
        ],
        "evaluations": [{"between": ["text", "satellite"], "pairs": "captions"}],
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content | changes))
    return path
