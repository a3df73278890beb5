"""A recipe runs its stages in order, resumes where it stopped, and names the key that is wrong."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from geobind import GeoBind, GeoBindError, Recipe, evaluate
from tests.spaces import WIDTHS, vector_pairs


@pytest.fixture
def content(tmp_path) -> dict:
    """A recipe of two stages on vectors in a Parquet table, with a group to judge by."""
    pairs = vector_pairs("satellite", "text", "audio")
    columns = {m: pa.array([row[m].tolist() for row in pairs]) for m in pairs.modalities}
    columns["split"] = pa.array(["test" if i % 4 == 0 else "train" for i in range(len(pairs))])
    columns["place"] = pa.array([str(i) for i in range(len(pairs))])
    columns["group"] = pa.array(["even" if i % 2 else "odd" for i in range(len(pairs))])
    pq.write_table(pa.table(columns), tmp_path / "pairs.parquet")
    quick = {"pairs": "all", "epochs": 2, "batch_size": 16}
    return {
        "dim": 16,
        "towers": {
            "satellite": {"tower": "vector", "width": WIDTHS["satellite"]},
            "text": {"tower": "vector", "width": 16, "standardize": False},
            "audio": {"tower": "vector", "width": WIDTHS["audio"], "head": {"kind": "mlp", "hidden": 32}},
        },
        "pairs": {"all": {"table": str(tmp_path / "pairs.parquet"), "columns": {m: m for m in ("satellite", "text", "audio")}}},
        "stages": [{"learner": "satellite", "target": "text", **quick}, {"learner": "audio", "target": "satellite", **quick}],
        "evaluations": [
            {"between": ["satellite", "text"], "pairs": "all"},
            {"between": ["audio", "text"], "pairs": "all", "protocol": "group"},
        ],
    }  # fmt: skip


def test_stages_run_in_order_and_the_space_remembers_its_recipe(content, tmp_path):
    names: list[str] = []
    recipe = Recipe.parse(content)
    space = recipe.run(tmp_path / "run", progress=False, report=lambda result: names.append(result.stage))
    assert names == ["satellite", "audio"]
    assert space.trained("audio", "satellite")
    assert not space.trained("audio", "text")
    loaded = GeoBind.from_pretrained(tmp_path / "run")
    again = Recipe.parse(loaded.recipe)
    assert again.model_dump() == recipe.model_dump()
    report = evaluate(loaded, again.open_evaluations(), progress=False)
    assert [(row["query"], row["gallery"], row["trained"]) for row in report.rows] == [
        ("satellite", "text", True), ("text", "satellite", True), ("audio", "text", False), ("text", "audio", False),
    ]  # fmt: skip


def test_a_run_stopped_between_stages_goes_on_to_the_same_space(content, tmp_path):
    whole = Recipe.parse(content).run(tmp_path / "whole", progress=False)

    def stop(result):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Recipe.parse(content).run(tmp_path / "cut", progress=False, report=stop)
    names: list[str] = []
    resumed = Recipe.parse(content).run(
        tmp_path / "cut", progress=False, report=lambda result: names.append(result.stage)
    )
    assert names == ["audio"]
    assert {m: whole.fingerprint(m) for m in whole.modalities} == {
        m: resumed.fingerprint(m) for m in resumed.modalities
    }
    before = (tmp_path / "cut" / "space.json").read_bytes()
    Recipe.parse(content).run(tmp_path / "cut", progress=False, report=stop)  # all done: nothing is trained
    assert (tmp_path / "cut" / "space.json").read_bytes() == before


def test_another_recipe_in_the_same_folder_is_refused(content, tmp_path):
    Recipe.parse(content).run(tmp_path / "run", progress=False)
    content["stages"][0]["epochs"] = 3
    with pytest.raises(GeoBindError, match="another recipe"):
        Recipe.parse(content).run(tmp_path / "run", progress=False)


def test_the_seed_decides_the_weights(content, tmp_path):
    prints = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        space = Recipe.parse(content | {"seed": seed}).run(tmp_path / name, progress=False)
        prints.append(space.fingerprint("audio"))
    assert prints[0] == prints[1] != prints[2]


def _set(content: dict, path: str, value) -> dict:
    *parents, last = path.split(".")
    content = json.loads(json.dumps(content))
    here = content
    for part in parents:
        here = here[int(part) if part.isdigit() else part]
    if value is None:
        del here[last]
    else:
        here[last] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("tower", {}, "unknown key 'tower'; did you mean 'towers'"),
        ("stages.0.epoch", 3, "unknown key 'stages.0.epoch'; did you mean 'epochs'"),
        ("stages.0.lerner", "x", "unknown key 'stages.0.lerner'; did you mean 'learner'"),
        ("stages.0.batch_size", "many", "stages.0.batch_size: .*got 'many'"),
        ("stages.0.loss", "tripplet", "loss: .*got 'tripplet'"),
        ("stages.0.pairs", "al", "names the pairs 'al', which the recipe does not define; did you mean 'all'"),
        ("stages.1.target", "satelite", "names the modality 'satelite', which has no tower; did you mean 'satellite'"),
        ("stages.1.target", "audio", "joins 'audio' to itself"),
        ("stages.1.target", None, "needs both `learner` and `target`"),
        ("towers.audio.tower", None, "the key 'towers.audio.tower' is missing"),
        ("pairs.all.tabel", "x", "unknown key 'pairs.all.tabel'; did you mean 'table'"),
        ("evaluations.0.protocol", "pairs", "evaluations.0.protocol"),
    ],
)  # fmt: skip
def test_a_wrong_key_is_named_in_one_line(content, path, value, message):
    with pytest.raises(GeoBindError, match=message) as caught:
        Recipe.parse(_set(content, path, value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("towers.satellite.tower", "vectr", "unknown tower 'vectr'; did you mean 'vector'"),
        ("towers.satellite.widht", 3, "no option 'widht'; did you mean 'width'"),
        ("towers.text.head", "none", None),
        ("towers.text.width", 17, "the frozen target 'text' gives 17 numbers, the space has 16"),
        ("pairs.all.columns.satellite", "sat", "no column 'sat'"),
        ("pairs.all.split", "fold", "no column 'fold'"),
        ("pairs.all.table", "missing.csv", "missing.csv does not exist"),
    ],
)
def test_a_wrong_value_is_named_when_the_recipe_runs(content, tmp_path, path, value, message):
    recipe = Recipe.parse(_set(content, path, value))
    if message is None:
        recipe.run(tmp_path / "run", progress=False)
        return
    with pytest.raises(GeoBindError, match=message) as caught:
        recipe.run(tmp_path / "run", progress=False)
    assert "\n" not in str(caught.value)


def test_yaml_that_is_none_is_one_line(tmp_path):
    path = tmp_path / "recipe.yaml"
    for text, message in (("a: [", "not valid YAML"), ("- 1", "expected keys"), ("", "expected keys")):
        path.write_text(text)
        with pytest.raises(GeoBindError, match=message) as caught:
            Recipe.load(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(GeoBindError, match="cannot be read"):
        Recipe.load(tmp_path / "nowhere.yaml")


def test_yaml_and_mapping_are_the_same_recipe(content, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    assert Recipe.load(path).model_dump() == Recipe.parse(content).model_dump()
    assert np.prod([stage.epochs for stage in Recipe.load(path).stages]) == 4


def test_changes_are_values_by_their_path(content):
    changes = {"seed": 3, "stages.1.epochs": 5, "towers.audio.head.hidden": 8, "towers.text.dropout": 0.5}
    recipe = Recipe.parse(content, "recipe", changes)
    assert (recipe.seed, recipe.stages[1].epochs, recipe.stages[0].epochs) == (3, 5, 2)
    assert recipe.towers["audio"].head == {"kind": "mlp", "hidden": 8}
    assert recipe.towers["text"].model_extra["dropout"] == 0.5
    assert content["stages"][1]["epochs"] == 2  # the original stays
    for path, message in (
        ("stages.2.epochs", "'2' in 'stages.2.epochs' is none of the 2 items"),
        ("stages.audio.epochs", "'audio' in 'stages.audio.epochs' is none"),
        ("dim.size", "nothing within 16 for 'dim.size'"),
        ("stages.0.epoch", "unknown key 'stages.0.epoch'; did you mean 'epochs'"),
    ):
        with pytest.raises(GeoBindError, match=message):
            Recipe.parse(content, "recipe", {path: 1})


def test_paths_of_pairs_are_under_data(content, tmp_path, monkeypatch):
    content["pairs"]["all"]["table"] = "pairs.parquet"
    monkeypatch.chdir(tmp_path)
    here = Recipe.parse(content).open_pairs("all")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(GeoBindError, match=r"pairs\.parquet"):
        Recipe.parse(content).open_pairs("all")
    recipe = Recipe.parse(content, "recipe", {"data": str(tmp_path)})
    assert recipe.open_pairs("all").places.tolist() == here.places.tolist()
    absolute = content | {"data": "/nowhere"}
    absolute["pairs"] = {"all": {**content["pairs"]["all"], "table": str(tmp_path / "pairs.parquet")}}
    assert len(Recipe.parse(absolute).open_pairs("all")) == len(here)
