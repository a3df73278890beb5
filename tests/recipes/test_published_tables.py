"""`make tables` binds what the paper's tables need, and fills them with what the runs give.

* the printed numbers stand in their columns whether there is a run or not;
* ours are those of the published protocol, each in its direction, as a fraction in percent;
* the line CLIP is the baseline's; a line without a run is empty;
* the command names recipes, losses and keys that exist, and runs as it stands in the Makefile.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from geobind import Recipe
from scripts.published_tables import TABLES, fill, tables
from tests.recipes.small import ROOT, small

pytestmark = pytest.mark.filterwarnings("ignore::geobind.errors.GeoBindWarning")  # of the replicas' quirks


def cells(table) -> dict[str, list[str]]:
    """Model to the rest of its row."""
    columns = [list(column.cells) for column in table.columns]
    return {str(row[0]): [str(cell) for cell in row[1:]] for row in zip(*columns, strict=True)}


def test_the_tables_hold_the_papers_numbers_and_ours(bound):
    run = bound("geobind")
    first, second = (cells(table) for table in tables(run.parent))
    rows = {
        (r["query"], r["gallery"]): r for r in json.loads((run / "published" / "metrics.json").read_text())
    }
    assert {row["protocol"] for row in rows.values()} == {"published"}

    def shown(row, k):
        return [f"{100 * row[f'recall@{k}']:.2f} %", f"{row['median_rank']:,.1f}"]

    there, back = rows["satellite", "image"], rows["image", "satellite"]
    assert first["GeoBind"] == ["56.4 %", "13.5", *shown(there, 10), *shown(back, 10), "8"]
    assert first["CLIP"] == [
        "1.3 %",
        "2857",
        *shown(there["baseline"], 10),
        *shown(back["baseline"], 10),
        "8",
    ]
    assert first["Sat2Cap, without place and time"] == ["56.4 %", "13.5", "", "", "", "", ""]
    there, back = rows["satellite", "audio"], rows["audio", "satellite"]
    size = str(there["gallery_size"])
    assert second["GeoBind"] == ["24.63 %", "613", *shown(there, 100), *shown(back, 100), size]
    assert second["SoundingEarth, contrastive"] == ["29.12 %", "565", "", "", "", "", ""]


def test_chance_is_that_of_the_gallery():
    row = {"recall@10": 0.5, "median_rank": 9.0, "gallery_size": 10_000}
    runs = {"geobind": [row | {"query": "satellite", "gallery": "image"}]}
    filled = cells(fill(TABLES[0], runs))
    assert filled["GeoBind"] == ["56.4 %", "13.5", "50.00 %", "9.0", "", "", "10,000"]
    assert filled["a random order"][2:4] == ["0.09 %", "5,000.5"]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not here")
def test_the_command_names_what_exists(tmp_path):
    printed = subprocess.run(
        ["make", "-n", "-C", str(ROOT), "tables", f"DATA={tmp_path}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.replace("\\\n", " ")
    losses = {}
    for line in re.split(r"&&|\n", printed):
        words = shlex.split(line)
        if len(words) > 2 and words[1] == "bind":
            options = list(zip(words[3::2], words[4::2], strict=True))
            changes = dict(value.split("=") for option, value in options if option == "--set")
            recipe = Recipe.load(ROOT / words[2], changes)
            assert recipe.data == str(tmp_path)
            losses[dict(options)["--out"].rpartition("/")[2]] = recipe.stages[0].links[0].loss
    wanted = {line.run for table in TABLES for line in table.lines if line.run}
    assert losses.keys() == wanted
    assert losses["soundingearth-native"] == "triplet"
    assert losses["soundingearth-batch"] == "batch_triplet"
    assert losses["soundingearth-contrastive"] == losses["geobind"] == "infonce"


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not here")
def test_the_command_fills_both_tables(data, weights, tmp_path):
    """The commands of the Makefile themselves, with changes behind each `bind` that make its towers small."""
    for name in ("Makefile", "recipes", "scripts", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).symlink_to(ROOT / name)
    changes = {}
    for name in ("geobind", "soundingearth"):
        chosen = {key: value for key, value in small(name, data, weights).items() if key != "data"}
        changes[name] = [part for item in chosen.items() for part in ("--set", "{}={}".format(*item))]
    wrapper = f"""#!{sys.executable}
import os, sys
os.environ["PYTHONPATH"] = {str(ROOT)!r}
arguments = sys.argv[1:]
if arguments[0] == "bind":
    arguments += {changes!r}[os.path.basename(arguments[1]).removesuffix(".yaml")] + ["--workers", "0"]
os.execv({sys.executable!r}, [{sys.executable!r}, "-m", "geobind", *arguments])
"""
    (tmp_path / "bin").mkdir()
    for name, script in {
        "geobind": wrapper,
        "python": f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} "$@"\n',
    }.items():
        (tmp_path / "bin" / name).write_text(script)
        (tmp_path / "bin" / name).chmod(0o755)
    done = subprocess.run(
        ["make", "tables", f"DATA={data}", "BASELINES=native", "BIN=bin", "INSTALLED=bin/python"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "160"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    titles = [line for line in done.stdout.splitlines() if line.startswith("Table ")]
    assert [title[:7] for title in titles] == ["Table 1", "Table 2"]
    ours = re.findall(
        r"^GeoBind +[\d.]+ % +[\d.]+ +[\d.]+ % +[\d.]+ +[\d.]+ % +[\d.]+ +\d+$", done.stdout, re.M
    )
    assert len(ours) == 2
    assert re.search(r"native triplets +18.59 % +749 +[\d.]+ %", done.stdout)
    assert re.search(r"SoundingEarth, contrastive +29.12 % +565 *$", done.stdout, re.M)  # no run, no number
