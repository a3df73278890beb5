"""The recipes of the published systems, as they stand in recipes/, run from end to end.

On replicas of the data's layouts, with towers of the same kinds and options but of a few random weights:

* every stage moves its learners and nothing else, with the published optimiser, losses and negatives;
* the space is evaluated as the recipe says, in both directions, under both protocols;
* with their real architectures, every option is one that the towers take;
* what the paper prints stands in geobind.yaml, and geobind-plus.yaml tells no query its answer;
* each value that a recipe sets has a source beside it.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import torch

from geobind import GeoBind, Recipe, evaluate
from tests.recipes.small import PUBLISHED, RECIPES, content_of, small

pytestmark = pytest.mark.filterwarnings("ignore::geobind.errors.GeoBindWarning")  # of the replicas' quirks


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_runs_from_end_to_end(name, bound, data, weights):
    run = bound(name)
    space = GeoBind.from_pretrained(run)
    recipe = Recipe.parse(space.recipe)
    reports = [json.loads(path.read_text()) for path in sorted(run.glob("stages/*/report.json"))]
    assert [report["stage"] for report in reports] == [stage.name for stage in recipe.stages]
    assert all(report["step"] > 0 for report in reports)

    moving = {modality for stage in recipe.stages for modality in stage.moving}
    for modality in recipe.towers:
        before, after = recipe.tower(modality).state_dict(), space.tower(modality).state_dict()
        moved = any(not after[key].equal(before[key]) for key in before)
        assert moved == (modality in moving), modality

    baseline = recipe.open_baseline(space)
    evaluations = recipe.open_evaluations()
    report = evaluate(space, evaluations, baseline=baseline, draws=20, progress=False, device="cpu")
    directions = [(row["query"], row["gallery"]) for row in report.rows]
    assert directions == [d for e in recipe.evaluations for d in (e.between, e.between[::-1])]
    for row in report.rows:
        assert 0 <= row["recall@10"] <= 1
        assert row["split"] == "test"
        assert row["gallery_size"] >= 2


def test_geobind_is_what_the_paper_prints():
    recipe = Recipe.load(RECIPES / "geobind.yaml")
    first, second = recipe.stages
    assert (first.moving, first.frozen, second.moving, second.frozen) == (
        ["satellite"],
        ["image"],
        ["audio"],
        ["satellite"],
    )
    assert [stage.links[0].loss for stage in recipe.stages] == ["infonce", "symmetric"]  # eq. 1; eq. 2 to 4
    assert recipe.towers["satellite"].model_extra["augment"]["num_ops"] == 3
    for stage in recipe.stages:
        assert (stage.lr, stage.betas, stage.schedule) == (5e-5, (0.9, 0.98), "cosine_restarts")
        assert (stage.links[0].temperature, stage.links[0].learn_temperature) == (0.07, True)
    assert [evaluation.sample for evaluation in recipe.evaluations] == [10_000, None]
    assert recipe.baseline == {"satellite": "image"}


def test_geobind_plus_tells_no_query_its_answer():
    """Tiles are told their position, so that a position must not be asked of them; no column is of the target."""
    recipe = Recipe.load(RECIPES / "geobind-plus.yaml")
    assert recipe.towers["satellite"].model_extra["condition"]
    asked = [set(e.between) for e in recipe.evaluations] + [
        set(link.pair) for s in recipe.stages for link in s.links
    ]
    assert {"satellite", "location"} not in asked
    assert all(pairs.columns is None for pairs in recipe.pairs.values())


@pytest.mark.parametrize("loss", ["triplet", "batch_triplet"])
def test_the_other_baselines_of_table_2_are_one_change_away(loss, bound):
    run = bound("soundingearth", loss, limit=8, **{"stages.0.links.0.loss": loss})
    space = GeoBind.from_pretrained(run)
    assert space.trained("satellite", "audio")
    assert space.recipe["stages"][0]["links"][0]["loss"] == loss


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
