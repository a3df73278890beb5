"""A recipe fine-tunes a saved space on labels: labels are text, classes are places, the text tower stays.

* A label becomes its words in every wording, and the rows of a class are one place.
* InfoNCE to the names of the classes is cross-entropy over them, with the batch's frequencies as prior.
* `start` goes on from a saved space, changes nothing of it, and moves only the learner.
"""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional as F

from geobind import GeoBind, GeoBindError, Pairs, Recipe, classify, evaluate
from geobind.binding.losses import info_nce
from tests.toy import DIM, toy_space

CLASSES = ("aa", "bb", "cc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A space that reads letters, tiles whose letters are not those of their class, and a recipe of both."""
    folder = tmp_path_factory.mktemp("labels")
    space = toy_space()
    space.tower("satellite").load_state_dict(space.tower("text").state_dict())
    space.record_binding(["satellite", "text"], {("satellite", "text"): 0.1})
    space.save_pretrained(folder / "start")
    rows = ["path,class,split"]
    for i in range(90):
        kind = i % 3
        (folder / f"{i}.jpg").write_text("klm"[kind] * (5 + i // 10) + "aabbcc" * (i % 2))
        rows.append(f"{i}.jpg,{CLASSES[kind]},{'test' if i >= 60 else 'train'}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    recipe = {
        "dim": DIM,
        "start": str(folder / "start"),
        "pairs": {
            "labels": {
                "table": str(folder / "labels.csv"),
                "columns": {"satellite": "path", "text": "class"},
                "prompts": {"text": ["{}"]},
                "place": "class",
            }
        },
        "stages": [
            {"learner": "satellite", "target": "text", "pairs": "labels", "loss": "infonce", "epochs": 10,
             "batch_size": 12, "lr": 0.03, "validation": 0}
        ],
        "evaluations": [{"between": ["satellite", "text"], "pairs": "labels"}],
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def test_a_label_becomes_its_words_in_every_wording_and_a_class_is_a_place(tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text(
        "path,class,split\na.jpg,StorageTanks,train\nb.jpg,Port,test\nc.jpg,Port,train\nd.jpg,,train\n"
    )
    pairs = Pairs.from_table(
        table, columns={"satellite": "path", "text": "class"}, place="class",
        prompts={"text": ["{}", "a satellite image of {}"]},
    )  # fmt: skip
    expected = ["storage tanks", "a satellite image of storage tanks"]
    expected += 2 * ["port", "a satellite image of port"]
    assert list(pairs.keys("text")) == [*expected, None]
    assert list(pairs.keys("satellite")) == ["a.jpg"] * 2 + ["b.jpg"] * 2 + ["c.jpg"] * 2 + ["d.jpg"]
    assert (pairs.places[2:6] == pairs.places[2]).all()
    assert len({*pairs.places}) == 3
    with pytest.raises(GeoBindError, match="no column 'text'"):
        Pairs.from_table(table, columns={"satellite": "path"}, prompts={"text": ["{}"]})
    with pytest.raises(GeoBindError, match=r"each needs a \{\}"):
        Pairs.from_table(table, columns={"text": "class"}, prompts={"text": ["a port"]})


def test_infonce_to_names_is_cross_entropy_with_the_frequencies_of_the_batch():
    labels = torch.tensor([0, 1, 1, 2, 2, 2])
    names = F.normalize(torch.randn(3, 5), dim=-1)
    images = F.normalize(torch.randn(6, 5), dim=-1)
    loss = info_nce(images, names[labels], 12.0, labels)
    logits = 12.0 * images @ names.T + torch.bincount(labels).log()
    prior = torch.bincount(labels).log()[labels].mean()  # a constant: no gradient
    assert torch.allclose(loss, F.cross_entropy(logits, labels) + prior, atol=1e-5)


def test_fine_tuning_learns_the_labels_and_moves_nothing_else(folder, tmp_path):
    recipe = Recipe.load(folder / "recipe.yaml")
    before = GeoBind.from_pretrained(folder / "start")
    files = [folder / f"{i}.jpg" for i in range(60, 90)]
    truth = [CLASSES[i % 3] for i in range(60, 90)]

    def right(space: GeoBind) -> float:
        found = classify(space, "satellite", files, CLASSES, templates=["{}"])
        return float(np.mean([label == true for label, true in zip(found.labels, truth, strict=True)]))

    assert right(before) < 0.7
    space = recipe.run(tmp_path / "run", progress=False)
    assert right(space) > 0.95
    assert space.fingerprint("text") == before.fingerprint("text")
    assert space.fingerprint("satellite") != before.fingerprint("satellite")
    untouched = GeoBind.from_pretrained(folder / "start")
    assert untouched.fingerprint("satellite") == before.fingerprint("satellite")
    again = GeoBind.from_pretrained(tmp_path / "run")
    assert again.modalities == before.modalities
    report = evaluate(again, recipe.open_evaluations(), progress=False)
    assert report.rows[0]["query"] == "satellite"
    assert report.rows[0]["recall@1"] == pytest.approx(right(again))


def test_a_run_goes_on_without_its_start(folder, tmp_path):
    """Its towers are its own once a stage is done."""
    shutil.copytree(folder / "start", tmp_path / "start")
    recipe = Recipe.load(folder / "recipe.yaml", {"start": str(tmp_path / "start"), "stages.0.epochs": 1})
    first = recipe.run(tmp_path / "run", progress=False)
    shutil.rmtree(tmp_path / "start")
    again = recipe.run(tmp_path / "run", progress=False)
    assert {m: again.fingerprint(m) for m in again.modalities} == {
        m: first.fingerprint(m) for m in first.modalities
    }


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dim": 4}, "the recipe's dim is 4, its start .* has 8: set dim: 8"),
        ({"towers": {"text": {"tower": "letters"}}}, "both have a tower for 'text'"),
        ({"start": "nowhere"}, "holds no space"),
        ({"stages.0.learner": "audio"}, "the recipe has no tower for 'audio'"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(folder, changes, reason):
    with pytest.raises(GeoBindError, match=reason):
        Recipe.load(folder / "recipe.yaml", changes).plan()
