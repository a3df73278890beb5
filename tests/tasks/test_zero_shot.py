"""The class of a value is the nearest of the classes' names, each the normalised mean of its templates."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from geobind import GeoBind, GeoBindError, GeoBindWarning, classify, score
from geobind.cli import app
from geobind.retrieval.prompts import prompt_vectors
from geobind.tasks.zero_shot import TEMPLATES, class_vectors, read_classes
from tests.spaces import vector_space
from tests.toy import toy_space

CLASSES = ["aaaa", "bbbb", "cccc"]


@pytest.fixture(scope="module")
def space() -> GeoBind:
    """Satellite files and sentences whose letters one matrix embeds, so that equal letters are near."""
    space = toy_space()
    space.tower("satellite").load_state_dict(space.tower("text").state_dict())
    space.record_binding(["satellite"], {("satellite", "text"): 0.1})
    return space


@pytest.fixture
def files(tmp_path):
    paths = []
    for name, content in {"one": "bbbbb", "two": "aaaaaa", "three": "ccccab"}.items():
        path = tmp_path / f"{name}.jpg"
        path.write_text(content)
        paths.append(path)
    return paths


def test_a_prompt_is_the_normalised_mean_of_normalised_templates(space):
    templates = ["{}", "a photo of {}", "{} {}"]
    for vector, text in zip(prompt_vectors(space, ["abc", "ddd"], templates), ["abc", "ddd"], strict=True):
        parts = space.embed("text", [text, f"a photo of {text}", f"{text} {text}"])
        mean = parts.sum(0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), rtol=1e-5, atol=1e-6)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


def test_the_nearest_name_wins(space, files):
    found = classify(space, "satellite", files, CLASSES, templates=["{}"])
    assert found.labels == ["bbbb", "aaaa", "cccc"]
    expected = space.similarity(space.embed("satellite", files), space.embed("text", CLASSES))
    np.testing.assert_allclose(found.cosines, expected, atol=1e-6)
    probabilities = score(space, ("satellite", "text"), found.cosines, "probability")
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)


def test_the_order_of_classes_changes_nothing(space, files):
    turned = classify(space, "satellite", files, CLASSES[::-1])
    np.testing.assert_array_equal(
        turned.cosines[:, ::-1], classify(space, "satellite", files, CLASSES).cosines
    )


def test_names_in_one_word_are_put_into_words_and_others_stay(space):
    def bare(name: str) -> np.ndarray:
        return class_vectors(space, "satellite", [name], ["{}"])[0]

    for name, words in {
        "DenseResidential": "dense residential",
        "sea_waves": "sea waves",
        "New Cabo": "New Cabo",
    }.items():
        np.testing.assert_array_equal(bare(name), space.embed("text", [words])[0])


def test_every_modality_has_templates_that_hold_the_bare_name(space):
    for templates in TEMPLATES.values():
        assert "{}" in templates
        assert len({*templates}) == len(templates) >= 5


def test_unreadable_values_have_no_class(space, files, tmp_path):
    with pytest.warns(GeoBindWarning, match="could not be read"):
        found = classify(space, "satellite", [files[0], tmp_path / "none.jpg"], CLASSES, on_error="skip")
    assert found.labels == ["bbbb", None]


@pytest.mark.parametrize(
    ("classes", "options", "reason"),
    [
        (["beach"], {}, "two or more names"),
        (["beach", "beach"], {}, "all of them different"),
        ("beach", {}, "give a list"),
        (CLASSES, {"templates": ["a photo"]}, r"each needs a \{\}"),
        (CLASSES, {"templates": "a {}"}, "give a list"),
    ],
)
def test_classes_and_templates_that_are_none_are_refused(space, files, classes, options, reason):
    with pytest.raises(GeoBindError, match=reason):
        classify(space, "satellite", files, classes, **options)


def test_spaces_without_words_say_so(space, files):
    with pytest.raises(GeoBindError, match="nothing binds environment to text"):
        classify(space, "environment", np.zeros((2, 5)), CLASSES)
    with pytest.raises(GeoBindError, match="no tower for 'audio'"):
        classify(space, "audio", files, CLASSES)
    vectors = vector_space("satellite", "text")
    vectors.record_binding(["satellite"], {("satellite", "text"): 0.1})
    with pytest.raises(GeoBindError, match="takes vectors, no sentences"):
        classify(vectors, "satellite", np.zeros((2, 24)), CLASSES)


def test_the_command_gives_what_python_gives(space, files, tmp_path):
    space.save_pretrained(tmp_path / "space")
    names = tmp_path / "classes.txt"
    names.write_text("aaaa\nbbbb\n\ncccc\n")
    assert read_classes(str(names)) == read_classes("aaaa, bbbb,cccc") == CLASSES
    command = ["classify", str(tmp_path / "space"), "satellite", *map(str, files), "--classes", str(names)]
    rows = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    expected = classify(space, "satellite", files, CLASSES)
    assert [row["class"] for row in rows] == expected.labels
    assert [row["key"] for row in rows] == [str(path) for path in files]
    np.testing.assert_allclose([[*row["cosines"].values()] for row in rows], expected.cosines, atol=1e-6)
    shown = CliRunner().invoke(app, command).stdout
    assert all(label in shown for label in expected.labels)
