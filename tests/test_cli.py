"""Each command prints what the Python API gives; each mistake is one line on stderr and exit status 1."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from geobind import GeoBind, __version__
from geobind.cli import app
from tests.toy import toy_space, write_recipe

COMMANDS = ("bind", "evaluate", "embed", "info", "doctor")


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    """A space of files, sentences, locations and vectors."""
    folder = tmp_path_factory.mktemp("toy")
    toy_space().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bound(tmp_path_factory) -> Path:
    """A folder with recipe.yaml and its table, and the space bound from it in run/."""
    folder = tmp_path_factory.mktemp("bound")
    result = CliRunner().invoke(app, ["bind", str(write_recipe(folder)), "--out", str(folder / "run")])
    assert result.exit_code == 0, result.output
    return folder


def one_line(error: str) -> bool:
    return error.startswith("geobind: ") and error.count("\n") == 1 and error.endswith("\n")


# --- starting up -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["embed", "--help"], ["--version"]])
def test_help_and_version_import_nothing_heavy(arguments):
    process = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "geobind", *arguments], capture_output=True, text=True
    )
    assert process.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in process.stderr.splitlines()}
    assert {"typer", "geobind.cli"} <= imported
    heavy = {"torch", "transformers", "numpy", "pyarrow", "accelerate", "matplotlib", "geobind.space"}
    assert not imported & heavy


def test_help_names_every_command():
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert all(command in result.output for command in COMMANDS)
    for command in COMMANDS:
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0


def test_version(run):
    assert run("--version") == (0, f"geobind {__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["bind", "x.yaml"],  # without --out
        ["bind", "x.yaml", "--out", "x", "--limit", "1"],
        ["embed", "x", "satellite", "--out", "x.parquet"],  # without values
        ["embed", "x", "satellite", "y.jpg", "--out", "x.parquet", "--on-error", "hide"],
        ["embed", "x", "satellite", "y.jpg", "--out", "x.parquet", "--batchsize", "3"],
        ["nonsense"],
    ],
)
def test_a_wrong_call_is_status_2(arguments):
    assert CliRunner().invoke(app, arguments).exit_code == 2


def test_a_mistake_is_one_line_and_status_1_in_a_process_of_its_own(tmp_path):
    process = subprocess.run(
        [sys.executable, "-m", "geobind", "info", str(tmp_path / "none")], capture_output=True, text=True
    )
    assert (process.returncode, process.stdout) == (1, "")
    assert one_line(process.stderr)
    assert "holds no space (no space.json)" in process.stderr


# --- bind and evaluate -------------------------------------------------------------------------------------


def test_bind_writes_a_space_that_evaluate_judges(bound, run, tmp_path):
    space = GeoBind.from_pretrained(bound / "run")
    assert space.trained("satellite", "text")
    status, out, err = run(
        "evaluate", bound / "run", "--json", tmp_path / "rows.json", "--out", tmp_path / "told"
    )
    assert (status, err) == (0, "")
    assert "Partner protocol" in out
    assert {path.name for path in (tmp_path / "told").iterdir()} == {
        "metrics.json",
        "metrics.md",
        "recall.png",
    }
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["query"], row["gallery"]) for row in rows] == [("text", "satellite"), ("satellite", "text")]
    assert rows == json.loads((tmp_path / "told" / "metrics.json").read_text())


def test_another_recipe_judges_the_space_on_its_own_pairs(bound, run, tmp_path):
    recipe = write_recipe(
        tmp_path / "other",
        stages=[],
        evaluations=[{"between": ["satellite", "text"], "pairs": "captions", "split": "train"}],
    )
    status, _, err = run("evaluate", bound / "run", "--recipe", recipe, "--out", tmp_path / "told")
    assert (status, err) == (0, "")
    rows = json.loads((tmp_path / "told" / "metrics.json").read_text())
    assert [(row["query"], row["split"], row["queries"]) for row in rows] == [
        ("satellite", "train", 40),
        ("text", "train", 40),
    ]


def test_bind_sums_up_each_stage_and_does_not_repeat_a_finished_one(run, tmp_path):
    recipe = write_recipe(tmp_path)
    status, out, err = run("bind", recipe, "--out", tmp_path / "run")
    assert (status, err) == (0, "")
    first, last = out.splitlines()
    assert first.startswith("Stage satellite: 40 rows; 2 epochs; loss ")
    assert last == f"Space written to {tmp_path / 'run'}. Next: geobind evaluate {tmp_path / 'run'}"
    assert run("bind", recipe, "--out", tmp_path / "run")[1].splitlines() == [last]


def test_limit_takes_the_first_rows_and_the_space_can_be_judged(run, tmp_path):
    _, out, _ = run("bind", write_recipe(tmp_path), "--out", tmp_path / "run", "--limit", 10)
    assert out.startswith("Stage satellite: 10 rows;")
    assert run("evaluate", tmp_path / "run")[0] == 0


def test_dry_run_prints_the_plan_and_writes_nothing(run, tmp_path):
    recipe = write_recipe(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    status, out, err = run("bind", recipe, "--out", tmp_path / "run", "--dry-run", "--limit", 32)
    assert (status, err) == (0, "")
    assert "32 to train" in out
    assert "8 = 2 epochs of 4 batches of 8" in out
    assert sorted(tmp_path.rglob("*")) == before


# --- embed -------------------------------------------------------------------------------------------------


def test_embed_writes_what_embed_gives(toy, run, tmp_path):
    arguments = ("embed", toy, "text", "a port", "a big farm", "--out", tmp_path / "x.parquet")
    assert run(*arguments) == (0, f"2 embeddings of text written to {tmp_path / 'x.parquet'}\n", "")
    table = pq.read_table(tmp_path / "x.parquet")
    assert table["key"].to_pylist() == ["a port", "a big farm"]
    np.testing.assert_array_equal(
        np.array(table["embedding"].to_pylist(), np.float32),
        GeoBind.from_pretrained(toy).embed("text", ["a port", "a big farm"]),
    )


def test_positions_may_begin_with_a_minus(toy, run, tmp_path):
    positions = ["21.3,-157.8", "-33.9,18.4", "-54.8, -68.3"]
    for between in ([], ["--"]):
        status, _, err = run("embed", toy, "location", "--out", tmp_path / "x.parquet", *between, *positions)
        assert (status, err) == (0, "")
        assert pq.read_table(tmp_path / "x.parquet")["key"].to_pylist() == positions


def test_embed_skips_counts_and_warns(toy, run, tmp_path):
    (tmp_path / "tile.jpg").write_text("badge")
    files = [tmp_path / "tile.jpg", tmp_path / "missing.jpg"]
    status, out, err = run(
        "embed", toy, "satellite", *files, "--out", tmp_path / "x.parquet", "--on-error", "skip"
    )
    assert status == 0
    assert out == f"1 embeddings of satellite written to {tmp_path / 'x.parquet'}, 1 unreadable left out\n"
    assert err.startswith("geobind: warning: 1 of 2 satellite values could not be read and are left out: ")
    assert err.count("\n") == 1


# --- info and doctor ---------------------------------------------------------------------------------------


def test_info_tells_of_the_space_for_people_and_for_programs(bound, run):
    status, out, err = run("info", bound / "run")
    assert (status, err) == (0, "")
    space = GeoBind.from_pretrained(bound / "run")
    assert all(space.fingerprint(modality) in out for modality in ("satellite", "text"))
    content = json.loads(run("info", bound / "run", "--json")[1])
    assert content["dim"] == space.dim
    assert content["towers"]["satellite"]["chain"] == [space.fingerprint("text")]


def test_doctor_runs_with_and_without_a_space(bound, run):
    status, out, _ = run("doctor")
    assert status == 0
    assert "Versions" in out
    assert "not recorded" in run("doctor", bound / "run")[1]


# --- mistakes ----------------------------------------------------------------------------------------------

RECIPES = {
    "misspelt": ({"stagez": []}, "unknown key 'stagez'; did you mean 'stages'?"),
    "tower": ({"towers": {"satellite": {"tower": "vektor"}, "text": {"tower": "vector", "width": 8}}}, "did you mean 'vector'?"),
    "option": ({"towers": {"satellite": {"tower": "vector", "wdth": 12}, "text": {"tower": "vector", "width": 8}}}, "did you mean 'width'?"),
    "column": ({"stages": [{"learner": "satellite", "target": "text", "pairs": "sounds"}]}, "names the pairs 'sounds'"),
    "modality": ({"stages": [{"learner": "audio", "target": "text", "pairs": "captions"}]}, "'audio', which has no tower"),
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry"])
def test_a_wrong_recipe_is_one_line_that_names_the_key(name, dry, run, tmp_path):
    changes, message = RECIPES[name]
    status, out, err = run("bind", write_recipe(tmp_path, **changes), "--out", tmp_path / "run", *dry)
    assert (status, out) == (1, "")
    assert one_line(err)
    assert message in err


def test_a_recipe_that_is_no_recipe_is_one_line(run, tmp_path):
    path = tmp_path / "recipe.yaml"
    assert "cannot be read" in run("bind", path, "--out", tmp_path / "run")[2]
    for text in ("stages: [", "just words", "- 1"):
        path.write_text(text)
        status, _, err = run("bind", path, "--out", tmp_path / "run")
        assert status == 1
        assert one_line(err)


def test_an_out_that_cannot_be_a_folder_is_one_line(run, tmp_path):
    recipe = write_recipe(tmp_path)
    status, _, err = run("bind", recipe, "--out", recipe / "run")
    assert status == 1
    assert one_line(err)
    assert "cannot write" in err


def test_an_out_of_another_recipe_is_one_line(bound, run, tmp_path):
    recipe = write_recipe(tmp_path, seed=1)
    status, _, err = run("bind", recipe, "--out", bound / "run")
    assert status == 1
    assert one_line(err)
    assert "holds a run of another recipe" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["satelite", "x.jpg"], "no tower for 'satelite'; did you mean 'satellite'?"),
        (["satellite", "x.jpg"], "x.jpg cannot be read"),
        (["location", "21.3"], "'21.3' is no location"),
        (["location", "95,0"], "latitude 95 is outside -90..90"),
        (["text", "missing.txt"], "missing.txt cannot be read"),
        (["environment", "missing.npz"], "missing.npz does not exist"),
        (["text", "a port", "--device", "toaster"], "device 'toaster' cannot be used"),
        (["text", "a port", "--device", "cuda:97"], "device 'cuda:97' cannot be used"),
    ],
)
def test_values_that_cannot_be_embedded_are_one_line(arguments, message, toy, run, tmp_path):
    status, out, err = run("embed", toy, *arguments, "--out", tmp_path / "x.parquet")
    assert (status, out) == (1, "")
    assert one_line(err)
    assert message in err
    assert not (tmp_path / "x.parquet").exists()


def test_vectors_of_another_width_or_with_nan_are_one_line(toy, run, tmp_path):
    for vector in (np.ones((2, 3)), np.full((2, 5), np.nan)):
        np.savez(tmp_path / "v.npz", key=np.array(["a", "b"]), vector=vector)
        status, _, err = run("embed", toy, "environment", tmp_path / "v.npz", "--out", tmp_path / "x.parquet")
        assert status == 1
        assert one_line(err)


def test_an_output_that_cannot_be_written_is_one_line(toy, run, tmp_path):
    status, _, err = run("embed", toy, "text", "a port", "--out", tmp_path)
    assert status == 1
    assert one_line(err)


@pytest.mark.parametrize("command", ["info", "evaluate", "doctor", "embed"])
def test_a_broken_space_is_one_line(command, run, tmp_path):
    toy_space().save_pretrained(tmp_path / "space")
    rest = ["text", "a port", "--out", tmp_path / "x.parquet"] if command == "embed" else []
    head = tmp_path / "space" / "text" / "head.safetensors"
    for path, content in ((head, b""), (tmp_path / "space" / "space.json", b'{"format')):
        path.write_bytes(content)
        status, _, err = run(command, tmp_path / "space", *rest)
        assert status == 1
        assert one_line(err)


def test_a_space_without_a_recipe_or_evaluations_says_what_to_give(toy, bound, run, tmp_path):
    status, _, err = run("evaluate", toy)
    assert (status, one_line(err)) == (1, True)
    assert "give one with --recipe" in err
    empty = tmp_path / "empty.yaml"
    empty.write_text(yaml.safe_dump({"dim": 8}))
    status, _, err = run("evaluate", bound / "run", "--recipe", empty)
    assert (status, one_line(err)) == (1, True)
    assert "names no evaluations" in err


def test_set_changes_the_recipe_of_bind_and_of_evaluate(bound, run, tmp_path):
    recipe, out = bound / "recipe.yaml", tmp_path / "run"
    assert run("bind", recipe, "--out", out, "--set", "stages.0.epochs=1", "--set", "seed=7")[0] == 0
    kept = GeoBind.from_pretrained(out).recipe
    assert kept is not None
    assert (kept["stages"][0]["epochs"], kept["seed"]) == (1, 7)
    assert run("evaluate", out, "--set", "evaluations.0.sample=12", "--json", tmp_path / "rows.json")[0] == 0
    assert json.loads((tmp_path / "rows.json").read_text())[0]["gallery_size"] == 12
    for change, message in (
        ("epochs", "expected KEY=VALUE"),
        ("seed=[", "not valid YAML"),
        ("seed=-1", "seed: "),
    ):
        status, _, err = run("bind", recipe, "--out", out, "--set", change)
        assert status == 1
        assert message in err
        assert one_line(err)
