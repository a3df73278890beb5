"""A space on the Hub.

* The card tells towers, stages, data by name, licences, and metrics with intervals, chance and protocol; no path.
* The upload holds the space and nothing else, and what was uploaded opens again as the same space.
* A card that the user wrote stays; a Hub that cannot be reached is one line.
"""

from __future__ import annotations

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest

from geobind import GeoBind, GeoBindError, Recipe, evaluate, push_to_hub
from geobind.interop.hub import model_card, write_card
from tests.toy import write_recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A space bound from a recipe and evaluated, with its checkpoints."""
    folder = tmp_path_factory.mktemp("hub")
    recipe = Recipe.load(write_recipe(folder / "data"))
    space = recipe.run(folder / "run", workers=0)
    evaluate(space, recipe.open_evaluations(), progress=False).write(folder / "run")
    return folder / "run"


class FakeApi:
    """Keeps what would be on the Hub in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.private: bool | None = None

    def create_repo(self, repo_id, *, private, exist_ok):
        self.private = private
        return f"https://huggingface.co/{repo_id}"

    def upload_folder(self, *, repo_id, folder_path, allow_patterns, commit_message):
        for path in Path(folder_path).rglob("*"):
            name = path.relative_to(folder_path).as_posix()
            if path.is_file() and any(fnmatch(name, pattern) for pattern in allow_patterns):
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, self.root / name)


def test_the_card_tells_what_the_space_is(run):
    text = model_card(run, licence="cc-by-4.0")
    assert text.startswith("---\nlibrary_name: geobind\nlicense: cc-by-4.0\n")
    space, rows = GeoBind.from_pretrained(run), json.loads((run / "metrics.json").read_text())
    for modality in space.modalities:
        assert f"`{space.fingerprint(modality)}`" in text
    assert "learns satellite; satellite to text (symmetric); pairs `captions`, 2 epochs" in text
    assert "`captions`: pairs.csv; precomputed features of satellite, text" in text
    assert "Partner protocol" in text
    assert "95 % interval" in text
    for row in rows:
        assert f"{row['low']['recall@10']:.3f}, {row['high']['recall@10']:.3f}" in text
    assert str(run.parent) not in text


def test_what_is_uploaded_is_the_space_alone_and_opens_again(run, tmp_path):
    (run / "stages" / "leftover.bin").parent.mkdir(parents=True, exist_ok=True)
    (run / "stages" / "leftover.bin").write_bytes(b"x")
    api = FakeApi(tmp_path / "hub")
    assert push_to_hub(run, "me/space", private=True, api=api) == "https://huggingface.co/me/space"
    assert api.private is True
    found = {path.relative_to(api.root).parts[0] for path in api.root.rglob("*") if path.is_file()}
    assert found == {
        "space.json",
        "README.md",
        "recipe.json",
        "metrics.json",
        "metrics.md",
        "recall.png",
        "satellite",
        "text",
    }
    space, again = GeoBind.from_pretrained(run), GeoBind.from_pretrained(api.root)
    assert {m: space.fingerprint(m) for m in space.modalities} == {
        m: again.fingerprint(m) for m in again.modalities
    }


def test_without_metrics_the_card_says_so_and_a_card_of_ones_own_stays(run, tmp_path):
    shutil.copytree(run, tmp_path / "copy")
    (tmp_path / "copy" / "metrics.json").unlink()
    path = write_card(tmp_path / "copy")
    assert "Not measured yet" in path.read_text()
    path.write_text("# Mine\n")
    write_card(tmp_path / "copy")
    assert path.read_text() == "# Mine\n"


def test_a_hub_that_cannot_be_reached_is_one_line(run):
    class Unreachable:
        def create_repo(self, *args, **options):
            raise ConnectionError("no route\nto host")

    with pytest.raises(
        GeoBindError, match=r"me/space was not uploaded .*no route to host.*hf auth login"
    ) as caught:
        push_to_hub(run, "me/space", api=Unreachable())
    assert "\n" not in str(caught.value)
