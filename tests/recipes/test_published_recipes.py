"""The recipes of the published systems, as they stand in recipes/, run from end to end.

On replicas of the data's layouts, with towers of the same kinds and options but of a few random weights:

* every stage moves its learners and nothing else, with the published optimiser, losses and negatives;
* the space is evaluated as the recipe says, in both directions, under both protocols;
* with their real architectures, every option is one that the towers take;
* each value that a recipe sets has a source beside it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from geobind import GeoBind, Recipe, evaluate
from scripts.make_replicas import write_hub, write_sat2cap, write_soundingearth
from tests.models import save_joint

RECIPES = Path(__file__).parents[2] / "recipes"
PUBLISHED = ("geobind", "sat2cap", "soundingearth", "geoclap", "geobind-plus")
pytestmark = pytest.mark.filterwarnings("ignore::geobind.errors.GeoBindWarning")  # of the replicas' quirks

TINY_RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
TINY_VIT = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """What `data` of the recipes is: the replicas under the names that the recipes use."""
    folder = tmp_path_factory.mktemp("data")
    write_sat2cap(folder / "sat2cap", samples=8)
    write_soundingearth(folder / "soundingearth", places=24, geoclap=True)
    write_hub(folder / "soundingearth-hub", rows=12)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Joint models of 24 dimensions and a few thousand weights, under `clip` and `clap`."""
    folder = tmp_path_factory.mktemp("weights")
    for kind in ("clip", "clap"):
        save_joint(folder / kind, kind)
    return folder


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
        if stage.get("precision") == "fp16":  # which a CPU has not
            changes[f"stages.{number}.precision"] = "fp32"
    for number, evaluation in enumerate(content["evaluations"]):
        if "sample" in evaluation:
            changes[f"evaluations.{number}.sample"] = 8
    return changes


def snapshot(space: GeoBind) -> dict[str, str]:
    return {modality: space.fingerprint(modality) for modality in space.modalities}


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_runs_from_end_to_end(name, data, weights, tmp_path):
    recipe = Recipe.load(RECIPES / f"{name}.yaml", small(name, data, weights))
    untrained = {modality: recipe.tower(modality) for modality in recipe.towers}
    before = {m: {k: v.clone() for k, v in tower.state_dict().items()} for m, tower in untrained.items()}
    reports: list[Any] = []
    space = recipe.run(tmp_path / "run", progress=False, workers=0, report=reports.append)
    assert [report.stage for report in reports] == [stage.name for stage in recipe.stages]
    assert all(report.step > 0 for report in reports)

    moving = {modality for stage in recipe.stages for modality in stage.moving}
    for modality in recipe.towers:
        after = space.tower(modality).state_dict()
        moved = any(not after[key].equal(before[modality][key]) for key in before[modality])
        assert moved == (modality in moving), modality

    loaded = GeoBind.from_pretrained(tmp_path / "run")
    assert snapshot(loaded) == snapshot(space)
    again = Recipe.parse(loaded.recipe)
    evaluations = again.open_evaluations()
    report = evaluate(
        loaded, evaluations, baseline=again.open_baseline(loaded), draws=20, progress=False, device="cpu"
    )
    assert len(report.rows) == 2 * len(recipe.evaluations)
    for row in report.rows:
        assert 0 <= row["recall@10"] <= 1
        assert row["split"] == "test"
        assert row["gallery_size"] >= 2


@pytest.mark.parametrize("loss", ["triplet", "batch_triplet"])
def test_the_other_baselines_of_table_2_are_one_change_away(loss, data, weights, tmp_path):
    changes = small("soundingearth", data, weights) | {"stages.0.links.0.loss": loss}
    space = Recipe.load(RECIPES / "soundingearth.yaml", changes).run(
        tmp_path / "run", progress=False, workers=0
    )
    assert space.trained("satellite", "audio")


def test_the_variant_of_geobind_with_extra_negatives_is_two_changes_away(data, weights):
    changes = small("geobind", data, weights)
    changes |= {"stages.0.extra_negatives": 9000, "stages.0.batch_size": 100}
    stage = Recipe.load(RECIPES / "geobind.yaml", changes).stages[0]
    published = Recipe.load(RECIPES / "sat2cap.yaml").stages[0]
    assert (
        stage.model_copy(update={"epochs": published.epochs, "validation": published.validation}) == published
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_its_real_towers_can_be_built(name):
    """On no device and with no weights, since all that counts is whether each option is one that a tower takes."""
    content = content_of(name)
    changes: dict[str, Any] = {}
    for modality, tower in content["towers"].items():
        if "weights" in tower:
            changes[f"towers.{modality}.weights"] = "none"
        if tower["tower"] == "hf":
            changes[f"towers.{modality}.config"] = {"model_type": "resnet"}
    recipe = Recipe.load(RECIPES / f"{name}.yaml", changes)
    for modality in {*recipe.towers} - {"text"}:  # which has no option but its weights
        with torch.device("meta"):
            tower = recipe.tower(modality)
        assert tower.dim == recipe.dim, modality
        assert sum(p.numel() for p in tower.parameters()) > 2_000_000, modality


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_value_of_a_tower_and_of_a_stage_has_a_source(name):
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    body = text[text.index("\ntowers:") : text.index("\nevaluations:")].splitlines()
    named = re.compile(r"(- )?(name|learners?|target|pairs|query|gallery|tower): [\w, \[\]]+$|\w+:$")
    for number, line in enumerate(body):
        stripped = line.strip()
        if not stripped or "#" in stripped or named.match(stripped):
            continue
        # The source may stand above: on a line of its own, or on the key that the values are under.
        above = next(
            b
            for b in reversed(body[:number])
            if not b.strip() or indent(b) < indent(line) or b.strip()[0] == "#"
        )
        assert "#" in above, f"{name}.yaml: {stripped}"


def indent(line: str) -> int:
    return len(line) - len(line.lstrip())
