"""A report says the same in every form, and its files are whole, strict and as documented.

* metrics.json is strict JSON, round-trips, and its fields are exactly those of docs/evaluation.md;
* tables fit a terminal of 100 columns, hold every number they show, and break no interval at 80;
* metrics.md holds every metric of every row and explains each;
* writing is atomic: what fails leaves the former file whole;
* the figure has a panel for each protocol, and every pair in it.
"""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from geobind.errors import GeoBindError
from geobind.retrieval import report as module
from geobind.retrieval.evaluation import evaluate
from geobind.retrieval.items import Evaluation
from geobind.retrieval.metrics import GROUP_METRICS, PARTNER_METRICS
from geobind.retrieval.report import Report
from tests.spaces import vector_pairs, vector_space

DOCS = Path(__file__).parents[2] / "docs" / "evaluation.md"


@pytest.fixture(scope="module")
def evaluated() -> dict[str, Report]:
    groups = [f"g{i % 4}" for i in range(120)]
    split = ["train"] * 60 + ["test"] * 60
    captions = vector_pairs("satellite", "text", name="captions", group=groups, split=split)
    sounds = vector_pairs("satellite", "audio", name="sounds", group=groups, split=split)
    space, other = vector_space("satellite", "text", "audio"), vector_space("satellite", "text")
    for each in (space, other):
        for tower in map(each.tower, each.modalities):
            tower.fit(sounds if tower.modality == "audio" else captions)
        each.record_binding(["satellite"], {("satellite", "text"): 0.07})
    space.record_binding(["audio"], {("audio", "satellite"): 0.07})
    partner = Evaluation(("text", "satellite"), captions)
    group = Evaluation(("audio", "text"), (sounds, captions), protocol="group")
    options: dict[str, Any] = {"progress": False, "device": "cpu", "draws": 100}
    return {
        "plain": evaluate(space, [partner, group], **options),
        "compared": evaluate(space, [partner], baseline=other, baseline_name="Other", **options),
    }


@pytest.fixture
def report(evaluated: dict[str, Report]) -> Report:
    return evaluated["plain"]


def shown(report: Report, width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    for table in report.tables():
        console.print(table)
    return console.export_text()


def test_json_is_strict_and_round_trips(report: Report) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert Report(json.loads(report.to_json(), parse_constant=refuse)) == report
    with pytest.raises(ValueError, match="JSON compliant"):
        Report([{**report.rows[0], "mrr": float("nan")}]).to_json()


def test_fields_are_those_of_the_documentation(evaluated: dict[str, Report]) -> None:
    text = DOCS.read_text(encoding="utf-8")
    fields = re.findall(r"^\| (`[^|]*?`) \|", text.split("## metrics.json")[1], flags=re.M)
    documented = {name for cell in fields for name in re.findall(r"`(\w+)`", cell)}
    plain, compared = evaluated["plain"].rows, evaluated["compared"].rows
    assert set(plain[0]) == documented - {"baseline", "baseline_name"} | set(PARTNER_METRICS)
    assert set(plain[2]) == documented - {"baseline", "baseline_name"} | set(GROUP_METRICS)
    assert set(compared[0]) == documented | set(PARTNER_METRICS)
    example = json.loads(text.split("```json")[1].split("```")[0])
    assert list(example[0]) == list(plain[2])
    assert not Report(example).to_markdown().count("nan")


def test_values_have_the_documented_types(report: Report) -> None:
    for row in report.rows:
        metrics = PARTNER_METRICS if row["protocol"] == "partner" else GROUP_METRICS
        assert type(row["trained"]) is bool
        assert all(type(row[key]) is int for key in ("queries", "gallery_size", "unreadable"))
        assert all(type(row[m]) is float and np.isfinite(row[m]) for m in metrics)
        assert all(type(row[key][m]) is float for key in ("low", "high", "chance") for m in metrics)


def test_tables_fit_and_hold_the_numbers(evaluated: dict[str, Report]) -> None:
    for report in evaluated.values():
        for width in (100, 120):
            text = shown(report, width)
            assert max(map(len, text.splitlines())) <= width
            for row in report.rows:
                names = ("recall@1", "recall@10", "mrr") if row["protocol"] == "partner" else GROUP_METRICS
                assert f"{row['query']} → {row['gallery']}" in text
                for name in names:
                    assert f"{row[name]:.3f}" in text
                    assert f"[{row['low'][name]:.3f},{row['high'][name]:.3f}]" in text
                    assert f"chance {row['chance'][name]:.3f}" in text
                if "baseline" in row:
                    assert f"Other {row['baseline']['recall@10']:.3f}" in text
    text = shown(evaluated["plain"], 120)
    assert "captions, trained" in text
    assert "sounds+captions, emergent" in text


def test_a_narrow_terminal_breaks_no_interval(report: Report) -> None:
    text = shown(report, 80)
    for row in report.rows[:2]:
        assert f"[{row['low']['mrr']:.3f},{row['high']['mrr']:.3f}]" in text


def test_markdown_holds_and_explains_every_metric(evaluated: dict[str, Report]) -> None:
    text = evaluated["plain"].to_markdown()
    for row in evaluated["plain"].rows:
        for name in PARTNER_METRICS if row["protocol"] == "partner" else GROUP_METRICS:
            number = module._number(name, row[name])
            assert f"**{number}**" in text
            assert module._interval(name, row) in text
    for name in ("R@k", "MedR", "MRR", "nDCG@10", "mAP", "P@10", "95 % interval", "Chance", "Emergent"):
        assert f"- **{name}**: " in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {5 + len(PARTNER_METRICS), 5 + len(GROUP_METRICS)}
    assert "| Other |" in evaluated["compared"].to_markdown()


def test_an_unusual_split_is_named(report: Report) -> None:
    rows = [{**report.rows[0], "split": split} for split in ("val", None)]
    for text in (shown(Report(rows), 120), Report(rows).to_markdown()):
        assert "captions (val)" in text
        assert "captions (all rows)" in text


def test_notes_name_what_a_reader_must_know(report: Report) -> None:
    row = {**report.rows[0], "shared_with_train": {"text": 172, "satellite": 0}, "unreadable": 1}
    text = Report([row]).to_markdown()
    assert "items also in the train split: 172 text; items left out as unreadable: 1." in text


def test_write_is_atomic(report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report.write(tmp_path / "new")
    files = {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()}
    assert sorted(files) == ["metrics.json", "metrics.md", "recall.png"]
    assert Report(json.loads(files["metrics.json"])) == report

    def broken(*args: Any, **kwargs: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(GeoBindError, match=r"cannot write .*disk full"):
        Report(report.rows[:1]).write(tmp_path / "new")
    assert all((tmp_path / "new" / name).read_bytes() == content for name, content in files.items())


def test_the_figure_shows_every_row(evaluated: dict[str, Report], tmp_path: Path) -> None:
    recall, precision = evaluated["plain"].figure().axes
    labels = [text.get_text() for text in recall.get_legend().get_texts()]
    assert labels == [
        "text → satellite  (captions, trained)",
        "satellite → text  (captions, trained)",
        "chance",
    ]
    assert recall.get_xscale() == "log"
    drawn = recall.lines[0]
    row = evaluated["plain"].rows[0]
    # k stops at the size of the gallery, 60
    assert list(drawn.get_xdata()) == [1, 5, 10, 50]
    assert list(drawn.get_ydata()) == [row[f"recall@{k}"] for k in (1, 5, 10, 50)]
    assert [text.get_text() for text in precision.get_yticklabels()] == [
        "audio → text\nsounds+captions",
        "text → audio\nsounds+captions",
    ]
    (only,) = evaluated["compared"].figure().axes
    assert "Other" in [text.get_text() for text in only.get_legend().get_texts()]
    evaluated["plain"].write(tmp_path)
    with Image.open(tmp_path / "recall.png") as image:
        assert image.size[0] > 1500
