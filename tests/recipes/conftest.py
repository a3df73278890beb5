"""Replicas of the published data and small joint models, once for all tests of the recipes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geobind import Recipe
from scripts.make_replicas import write_hub, write_sat2cap, write_soundingearth
from tests.models import save_joint
from tests.recipes.small import RECIPES, small


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """What `data` of the recipes is: the replicas under the names that the recipes use."""
    folder = tmp_path_factory.mktemp("data")
    write_sat2cap(folder / "sat2cap", samples=8)
    write_soundingearth(folder / "soundingearth", places=24, geoclap=True)
    write_hub(folder / "soundingearth-hub", rows=12)
    return folder


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """Joint models of 24 dimensions and a few thousand weights, under `clip` and `clap`."""
    folder = tmp_path_factory.mktemp("weights")
    for kind in ("clip", "clap"):
        save_joint(folder / kind, kind)
    return folder


@pytest.fixture(scope="session")
def bound(data, weights, tmp_path_factory) -> Callable[..., Path]:
    """A published recipe's space, bound when it is first asked for."""
    folder = tmp_path_factory.mktemp("runs")

    def bind(name: str, run: str = "", *, limit: int | None = None, **changes: Any) -> Path:
        out = folder / (run or name)
        if not out.exists():
            recipe = Recipe.load(RECIPES / f"{name}.yaml", small(name, data, weights) | changes)
            recipe.run(out, limit=limit, progress=False, workers=0)
        return out

    return bind
