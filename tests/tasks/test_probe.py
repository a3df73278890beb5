"""Probes report what their labels say, choose on training rows alone, and find what is there and nothing else.

* Metrics equal scikit-learn's, their intervals those of a loop over the same draws.
* The options chosen, and what is predicted, do not depend on the labels that are tested.
* Separable classes are found by every method; labels without relation to the values are not.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score
from sklearn.neighbors import KNeighborsClassifier
from typer.testing import CliRunner

from geobind import GeoBind, GeoBindError, Pairs, probe
from geobind.cli import app
from geobind.tasks.probe import NEIGHBOURS, class_metrics
from tests.spaces import WIDTHS, vector_space
from tests.toy import toy_space

SPLITS = ["train"] * 120 + ["test"] * 60
NAMES = np.array(["a", "b", "c"])


def vectors_and_labels(noise: float = 0.3):
    labels = np.arange(180) % 3
    centres = np.random.default_rng(1).normal(size=(3, WIDTHS["satellite"]))
    values = centres[labels] + noise * np.random.default_rng(2).normal(size=(180, WIDTHS["satellite"]))
    return values.astype(np.float32), NAMES[labels]


def labelled(values, labels, **options) -> Pairs:
    return Pairs.from_columns({"satellite": values}, group=labels, split=SPLITS, **options)


def written_out_f1(truth, guess) -> float:
    """The mean over the classes in `truth` of the harmonic mean of precision and recall."""
    found = []
    for label in np.unique(truth):
        hits = ((truth == label) & (guess == label)).sum()
        precision, recall = hits / max((guess == label).sum(), 1), hits / (truth == label).sum()
        found.append(2 * precision * recall / (precision + recall) if hits else 0.0)
    return float(np.mean(found))


def test_metrics_equal_those_of_sklearn_and_intervals_those_of_a_loop():
    rng = np.random.default_rng(0)
    truth, guess = rng.integers(0, 4, 90), rng.integers(0, 5, 90)
    found = class_metrics(truth, guess, 5)
    labels = np.unique(truth)
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, guess))
    assert found["macro_f1"] == pytest.approx(f1_score(truth, guess, labels=labels, average="macro"))
    drawn = np.random.default_rng(0).integers(90, size=(1000, 90))
    scores = [(np.mean(truth[d] == guess[d]), written_out_f1(truth[d], guess[d])) for d in drawn]
    for name, (low, high) in zip(
        ("accuracy", "macro_f1"), np.quantile(scores, [0.025, 0.975], axis=0).T, strict=True
    ):
        assert (found["low"][name], found["high"][name]) == pytest.approx((low, high))


def test_separable_classes_are_found_and_unrelated_labels_are_not():
    values, labels = vectors_and_labels()
    space = vector_space("satellite")
    for row in probe(space, labelled(values, labels), "satellite").rows[1:]:
        assert row["accuracy"] > 0.95
    unrelated = np.random.default_rng(3).permutation(labels)
    for row in probe(space, labelled(values, unrelated), "satellite").rows:
        assert row["low"]["accuracy"] < 1 / 3 < row["high"]["accuracy"] + 0.05
        assert row["accuracy"] < 0.5


def test_what_is_chosen_and_predicted_does_not_depend_on_the_tested_labels():
    values, labels = vectors_and_labels(noise=1.5)
    space = vector_space("satellite")
    turned = labels.copy()
    turned[120:] = NAMES[(np.searchsorted(NAMES, labels[120:]) + 1) % 3]
    one, two = (probe(space, labelled(values, some), "satellite") for some in (labels, turned))
    assert [row["method"] for row in one.rows] == [row["method"] for row in two.rows]
    # Each prediction is right for at most one of the two labellings.
    for first, second in zip(one.rows[1:], two.rows[1:], strict=True):
        assert first["accuracy"] + second["accuracy"] <= 1
        assert first["accuracy"] > second["accuracy"]


def test_the_split_val_chooses_where_there_is_one():
    values, labels = vectors_and_labels(noise=2.0)
    splits = np.array(SPLITS, dtype=object)
    splits[:40] = "val"
    space = vector_space("satellite")
    pairs = Pairs.from_columns({"satellite": values}, group=labels, split=splits.tolist())
    report = probe(space, pairs, "satellite")
    assert (report.train, report.test) == (120, 60)
    vectors = space.embed("satellite", values)
    right = {}
    for k in NEIGHBOURS:
        model = KNeighborsClassifier(min(k, 80), metric="cosine").fit(vectors[40:120], labels[40:120])
        right[k] = model.score(vectors[:40], labels[:40])
    assert len({*right.values()}) > 1
    assert report.rows[1]["method"] == f"{max(right, key=right.get)} nearest"


def test_baselines_stand_beside_the_space_and_the_majority_is_of_the_training_rows():
    values, labels = vectors_and_labels()
    labels[:30] = "c"
    space = vector_space("satellite")
    report = probe(space, labelled(values, labels), "satellite", baselines={"same": space})
    rows = {name: [r for r in report.rows if r["embeddings"] == name] for name in ("none", "space", "same")}
    assert rows["none"][0]["accuracy"] == pytest.approx((labels[120:] == "c").mean())
    assert [{**row, "embeddings": ""} for row in rows["space"]] == [
        {**row, "embeddings": ""} for row in rows["same"]
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"test": "later"}, "no split 'later'"),
        ({"test": "train"}, "cannot be tested"),
        ({"modality": "image"}, "no modality 'image'"),
    ],
)
def test_splits_and_modalities_that_are_not_there_are_named(change, reason):
    values, labels = vectors_and_labels()
    options = {"modality": "satellite", "test": "test"} | change
    with pytest.raises(GeoBindError, match=reason):
        probe(vector_space("satellite"), labelled(values, labels), options["modality"], test=options["test"])


def test_labels_that_cannot_be_learned_are_refused():
    values, labels = vectors_and_labels()
    with pytest.raises(GeoBindError, match="no labels"):
        probe(vector_space("satellite"), Pairs.from_columns({"satellite": values}, split=SPLITS), "satellite")
    labels[-1] = "z"
    with pytest.raises(GeoBindError, match="class 'z' is tested, but has no training row"):
        probe(vector_space("satellite"), labelled(values, labels), "satellite")


def test_the_command_gives_what_python_gives_with_zero_shot_and_unreadable_files(tmp_path):
    space = toy_space()
    space.tower("satellite").load_state_dict(space.tower("text").state_dict())
    space.record_binding(["satellite"], {("satellite", "text"): 0.1})
    space.save_pretrained(tmp_path / "space")
    rows = ["path,kind,class,split"]
    for i in range(40):
        name = ["aaaa", "bbbb", "cccc"][i % 3]
        (tmp_path / f"{i}.jpg").write_text(name * (1 + i // 3))
        rows.append(f"{i}.jpg,satellite,{name},{'test' if i >= 28 else 'train'}")
    rows += ["none.jpg,satellite,aaaa,test", "sound.ogg,audio,other,test"]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(rows) + "\n")
    command = ["probe", str(tmp_path / "space"), "satellite", str(table), "--label", "class"]
    command += ["--column", "path", "--only", "kind=satellite"]
    with pytest.warns(UserWarning, match="could not be read"):
        result = CliRunner().invoke(app, [*command, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["train"], found["test"], found["unreadable"]) == (28, 12, 1)
    assert [row["method"] for row in found["rows"]][-1] == "class names"
    assert found["rows"][-1]["accuracy"] == 1
    pairs = Pairs.from_table(table, columns={"satellite": "path"}, group="class", only={"kind": "satellite"})
    with pytest.warns(UserWarning, match="could not be read"):
        report = probe(GeoBind.from_pretrained(tmp_path / "space"), pairs, "satellite")
    assert json.loads(report.to_json()) == found
